"""Policies on disk: one safetensors file, described in its metadata. No pickle, no code."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from . import distributions, models, spec_json
from .files import write_file

_FORMAT = "rlstack.policy.1"
_COMPILED = "_orig_mod"
"""Where torch.compile keeps the module that it wraps."""


class PolicyFileError(ValueError):
    """A file is no policy, is damaged, or needs a class that wasn't handed over."""


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], description: Mapping[str, Any]
) -> None:
    """Write tensors and a description that JSON can hold; an older file is replaced at once, when complete.

    Raises:
        ValueError: If JSON can't hold the description.
        OSError: If the file can't be written; an older one is left as it was.
    """
    try:
        metadata = {"rlstack": json.dumps({"format": _FORMAT, **description})}
    except TypeError as error:
        raise ValueError(f"the policy's description, model_config among it, can't be JSON: {error}") from None
    # Clones: safetensors refuses tensors that share memory, as tied weights do.
    copies = {key: value.detach().cpu().clone() for key, value in tensors.items()}
    write_file(Path(path), save(copies, metadata))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the description of a file that `write` wrote.

    Raises:
        PolicyFileError: If it is no such file.
        OSError: If it can't be read.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a directory, expected a file that Policy.save wrote")
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})["rlstack"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise PolicyFileError(f"{path} is not a policy that rlstack saved: {error}") from error
    if not isinstance(description, dict) or description.get("format") != _FORMAT:
        raise PolicyFileError(f"{path} is not of the format {_FORMAT}")
    return tensors, description


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


def name_of(cls: type) -> str:
    """Return what a class is called in files."""
    return f"{cls.__module__}.{cls.__qualname__}"


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
    name_of(cls): cls
    for cls in (models.DiscreteMLP, models.ContinuousMLP, models.DiscreteLSTM, models.ContinuousLSTM)
}
_DISTRIBUTIONS = {
    name_of(cls): cls
    for cls in (distributions.Categorical, distributions.Normal, distributions.SquashedNormal)
}
