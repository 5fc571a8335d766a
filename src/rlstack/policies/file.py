"""Policies on disk: one safetensors file, described in its metadata. No pickle, no code.

The description has a checksum of the whole file, taken with zeros in the checksum's place.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from .. import distributions, spec_json
from ..common.atomic_files import write_file
from ..common.errors import PolicyFileError
from ..common.public_names import public_name
from ..common.serialization import pack, storable, unpack
from ..models import lstm, mlp

_FORMAT, _UNSEALED = "rlstack.policy.2", "rlstack.policy.1"
"""With and without a checksum; rlstack 0.1.0 wrote none."""

_NO_CHECKSUM = "0" * 64

_CHECKSUM = re.compile(rb'\A.{8}\{"__metadata__":\{"rlstack":"\{\\"checksum\\": \\"([0-9a-f]{64})\\"', re.S)

_EXTRA = "policy"
"""Where tensors lie that are in what modules' `get_extra_state` returns; no parameter's name begins so."""

_COMPILED = "_orig_mod"
"""Where torch.compile keeps the module that it wraps."""


def state_of(policy: nn.Module) -> dict[str, Any]:
    """Return a policy's `state_dict`: tensors, and whatever its modules' `get_extra_state` returns.

    Raises:
        TypeError: If a module can't say its state, whatever it raises.
    """
    try:
        return dict(policy.state_dict())
    except Exception as error:
        name, module = _first_without_state(policy)
        raise TypeError(
            f"state_dict of {name} (a {type(module).__name__}) raised {type(error).__name__}: {error}; "
            "let it return tensors and plain data"
        ) from error


def _first_without_state(policy: nn.Module) -> tuple[str, nn.Module]:
    """Return name and module of the innermost one whose `state_dict` raises an error."""
    for name, module in reversed([*policy.named_modules()]):
        try:
            module.state_dict()
        except Exception:
            return name or "the policy", module
    return "the policy", policy


def write(path: str | os.PathLike[str], state: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Write a policy's state and a description that JSON can hold; an older file is replaced when complete.

    Raises:
        ValueError: If JSON can't hold the description.
        TypeError: If no file can hold a part of the state.
        OSError: If the file can't be written; an older one is left as it was.
    """
    write_file(Path(path), as_stored(state, description))


def as_stored(state: Mapping[str, Any], description: Mapping[str, Any]) -> bytes:
    """Return what `write` writes.

    Raises:
        ValueError: If JSON can't hold the description.
        TypeError: If no file can hold a part of the state.
    """
    extra = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
    tensors = {key: storable(value, key) for key, value in state.items() if key not in extra}
    sealed = {"checksum": _NO_CHECKSUM, "format": _FORMAT, **description}
    if extra:
        sealed["extra"], parts = pack(extra, _EXTRA)
        tensors |= parts
    try:
        metadata = {"rlstack": json.dumps(sealed)}
    except TypeError as error:
        raise ValueError(f"the policy's description, model_config among it, can't be JSON: {error}") from None
    data = save(tensors, metadata)
    checksum = hashlib.sha256(data).hexdigest()
    return data.replace(_NO_CHECKSUM.encode(), checksum.encode(), 1)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the state and the description of a file that `write` wrote.

    Raises:
        PolicyFileError: If it is no such file, or is damaged.
        OSError: If it can't be read.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a directory, expected a file that Policy.save wrote")
    return parse(Path(path).read_bytes(), path)


def parse(data: bytes, path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the state, its tensors in their names' order, and the description that a file's bytes hold.

    Raises:
        PolicyFileError: If they aren't what `write` wrote, or are damaged.
    """
    found = _CHECKSUM.match(data)
    if found is not None:
        sha256 = hashlib.sha256(data[: found.start(1)] + _NO_CHECKSUM.encode())
        sha256.update(memoryview(data)[found.end(1) :])
        if sha256.hexdigest().encode() != found[1]:
            raise PolicyFileError(f"{path} is damaged: its checksum is another one")
    try:
        tensors = dict(sorted(load(data).items()))
        length = int.from_bytes(data[:8], "little")
        description = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["rlstack"])
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise PolicyFileError(f"{path} is damaged, or no policy that rlstack saved: {error}") from error
    expected = _UNSEALED if found is None else _FORMAT
    if not isinstance(description, dict) or description.pop("format", None) != expected:
        raise PolicyFileError(f"{path} is damaged, or not of the format {expected}")
    description.pop("checksum", None)
    try:
        extra = unpack(description.pop("extra", {"dict": []}), tensors)
        state = {key: value for key, value in tensors.items() if not key.startswith(f"{_EXTRA}.")}
        return state | extra, description
    except (TypeError, ValueError, RecursionError) as error:
        raise PolicyFileError(f"{path} is damaged: {error}") from error


def make_parts(
    path: str | os.PathLike[str],
    description: Mapping[str, Any],
    model_cls: type[nn.Module] | None,
    distribution_cls: type[distributions.Distribution] | None,
) -> tuple[nn.Module, type[distributions.Distribution]]:
    """Return the model, with its first weights, and the distribution's class that a description names.

    Args:
        path: Whose description it is.
        description: As of `read`.
        model_cls: Class of the model; None if it is one of rlstack's.
        distribution_cls: Class of the distribution; None if it is one of rlstack's.

    Raises:
        PolicyFileError: If a class isn't rlstack's own and isn't given.
    """
    observation_spec, action_spec = (
        spec_json.from_json(description[name]) for name in ("observation_spec", "action_spec")
    )
    model_cls = model_cls or _resolve(description, "model_cls", _MODELS, path)
    distribution_cls = distribution_cls or _resolve(description, "distribution_cls", _DISTRIBUTIONS, path)
    return model_cls(observation_spec, action_spec, **description["model_config"]), distribution_cls


def uncompiled(module: Any) -> Any:
    """Return the module that torch.compile has wrapped; itself where there is no other."""
    return getattr(module, _COMPILED, module)


def plain_name(name: str) -> str:
    """Return the name that a parameter, buffer or module has where nothing is compiled."""
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def name_as_uncompiled(policy: nn.Module) -> None:
    """Let a policy's `state_dict` and `load_state_dict` name everything as if no part of it were compiled."""
    policy.register_state_dict_post_hook(_to_plain)
    policy.register_load_state_dict_pre_hook(_from_plain)


def _to_plain(policy: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    renamed = {plain_name(key) if key.startswith(prefix) else key: value for key, value in state.items()}
    state.clear()
    state.update(renamed)


def _from_plain(policy: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    # A wrapper comes before what it wraps, which has the parameters.
    homes = {plain_name(name): name for name, _ in policy.named_modules(remove_duplicate=False)}
    renamed = {}
    for key, value in state.items():
        if key.startswith(prefix):
            home, dot, leaf = plain_name(key.removeprefix(prefix)).rpartition(".")
            key = prefix + homes.get(home, home) + dot + leaf
        renamed[key] = value
    state.clear()
    state.update(renamed)


def _resolve(
    description: Mapping[str, Any], option: str, own: Mapping[str, Any], path: str | os.PathLike[str]
) -> Any:
    name = description[option]
    if name not in own:
        raise PolicyFileError(
            f"{path} needs the class {name}, which isn't rlstack's: hand it over as {option}="
        )
    return own[name]


_MODELS = {
    public_name(cls): cls
    for cls in (mlp.DiscreteMLP, mlp.ContinuousMLP, lstm.DiscreteLSTM, lstm.ContinuousLSTM)
}

_DISTRIBUTIONS = {
    public_name(cls): cls
    for cls in (
        distributions.Bernoulli,
        distributions.Categorical,
        distributions.Normal,
        distributions.OneHotCategorical,
        distributions.SquashedNormal,
    )
}
