"""Checkpoints on disk: safetensors and a JSON manifest with checksums. No pickle, no code.

    checkpoints/
      ckpt-000000120/          120 is the number of updates
        model.safetensors      a policy, as `Policy.save` writes it
        optimizer.safetensors
        state.safetensors      everything else that is a tensor
        manifest.json          what is where, checksums, and everything that is no tensor
        state-1.safetensors    the same of rank 1, where several trained together, and so on
      latest  best             the names of two of them

A checkpoint is written under another name and renamed when it is complete, so it is there whole or not at
all. Checksums find damage; they are no protection from someone who means harm, and needn't be: nothing that
is read is ever run.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias, final

from safetensors import SafetensorError
from safetensors.torch import load, save

from ..common import errors
from ..common.atomic_files import discard, remove, sync_directory, write_file
from ..common.errors import CheckpointError
from ..common.serialization import pack, unpack
from ..policies.file import as_stored, parse, state_of

_FORMAT = "rlstack.checkpoint.1"

_FILES = _MODEL, _OPTIMIZER, _STATE = "model.safetensors", "optimizer.safetensors", "state.safetensors"

_MANIFEST = "manifest.json"

_NO_CHECKSUM = "0" * 64

_CHECKSUM = re.compile(rb'\A\{"checksum": "([0-9a-f]{64})"')

NAME = re.compile(r"ckpt-(\d{9,})")

_STATES = re.compile(r"state-[1-9]\d*\.safetensors")

Others: TypeAlias = Callable[[Path], list[dict[str, Any]]]
"""Lets other ranks write their states into a directory, and returns what the manifest says of each."""

_LARGEST_MANIFEST = 2**28
"""Bytes; more is no manifest."""

_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds, read and verified.

    Attributes:
        path: Its directory.
        state: What `Algorithm.state_dict` returned.
        info: What was to be known of it, JSON alone.
        policy: The description of the policy: its classes, options and specs.
        ranks: How many ranks wrote it; the state is that of one of them.
    """

    path: Path
    state: dict[str, Any]
    info: dict[str, Any]
    policy: dict[str, Any]
    ranks: int = 1


def check(policy: Any, state: Mapping[str, Any]) -> None:
    """Refuse what no checkpoint could hold.

    Args:
        policy: As of `write`.
        state: What is known of its `state` already.

    Raises:
        TypeError, ValueError: With where it is.
    """
    as_stored(state_of(policy), policy.description)
    pack(state.get("optimizer"), "optimizer")
    pack(_rest(state), "state")


def write_state(directory: Path, rank: int, state: Mapping[str, Any]) -> dict[str, Any]:
    """Write a rank's own part of `Algorithm.state_dict`; return what the manifest is to say of it."""
    packed, tensors = pack(_rest(state), "state")
    write_file(directory / _state_of(rank), save(tensors))
    return packed


def write(
    directory: Path,
    number: int,
    policy: Any,
    state: Mapping[str, Any],
    info: Mapping[str, Any],
    others: Others | None = None,
) -> Path:
    """Write a checkpoint and return where it is.

    Args:
        directory: Where checkpoints are; made if need be.
        number: Of updates so far; an older checkpoint of the same number is replaced.
        policy: The policy that `state["policy"]` is of.
        state: What `Algorithm.state_dict` returned.
        info: What else is to be known, JSON alone: `collects`, `updates`, `env_steps` and `stats` at least,
            and the identity of the `run`.
        others: Of the ranks after this one, if there are any.

    Raises:
        TypeError, ValueError: If the state holds what no file can; says where.
        OSError: If it can't be written; what was there is as it was.
    """
    optimizer, optimizer_tensors = pack(state["optimizer"], "optimizer")
    packed, tensors = pack(_rest(state), "state")
    final = directory / f"ckpt-{number:09d}"
    partial = directory / f".{final.name}.{os.getpid()}"
    directory.mkdir(parents=True, exist_ok=True)
    remove(partial)
    try:
        partial.mkdir()
        policy.save(partial / _MODEL)
        write_file(partial / _OPTIMIZER, save(optimizer_tensors))
        write_file(partial / _STATE, save(tensors))
        states = [packed, *(others(partial) if others else [])]
        files = {
            name: {"size": (partial / name).stat().st_size, "sha256": _hash(partial / name)}
            for name in (_MODEL, _OPTIMIZER, *map(_state_of, range(len(states))))
        }
        versions = {name: version(name) for name in ("rlstack", "torch", "tensordict", "torchrl")}
        head = {"format": _FORMAT, "versions": versions, "info": info, "files": files}
        parts = {"optimizer": optimizer, "state": states[0]}
        if others:
            parts["states"] = states[1:]
        write_file(partial / _MANIFEST, seal({**head, **parts}))
        if final.exists():
            # What takes its place is complete; in between the checkpoint before it is the last one.
            discard(final)
        partial.rename(final)
        sync_directory(directory)
    finally:
        remove(partial)
    return final


def read(path: Path, run: str | None = None, rank: int = 0, ranks: int = 1) -> Checkpoint:
    """Return a checkpoint, every byte of it verified.

    Args:
        path: Its directory.
        run: The identity that it must have if it has one, empty for no other; None takes any.
        rank: Whose state to return.
        ranks: Of how many; if others wrote it, the state is that of rank 0.

    Raises:
        CheckpointError: If it is damaged, none, or of another run.
    """
    try:
        said = _read(path, rank, ranks)
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error
    theirs = said.info.get("run")
    if run is not None and theirs not in (None, run):
        here = run or f"none: if it is this run's, write `id: {theirs!s:.60}` into config.yaml"
        raise CheckpointError(f"{path} is of another run: its id is {theirs!s:.60}, here it is {here}")
    return said


def manifest(path: Path) -> dict[str, Any]:
    """Return what a checkpoint's manifest says, verified; no other file is looked at.

    Raises:
        CheckpointError: If it is damaged or none.
        OSError: If it can't be read.
    """
    file = path / _MANIFEST
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a checkpoint: expected a directory ckpt-…")
    if file.stat().st_size > _LARGEST_MANIFEST:
        raise CheckpointError(f"{file} is damaged: it is too large")
    data = file.read_bytes()
    found = _CHECKSUM.match(data)
    unsealed = data if found is None else data.replace(found[1], _NO_CHECKSUM.encode(), 1)
    if found is None or hashlib.sha256(unsealed).hexdigest().encode() != found[1]:
        raise CheckpointError(f"{file} is damaged: its checksum is another one")
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    if said.get("format") != _FORMAT:
        raise CheckpointError(f"{file} has the format {said.get('format')!r}, expected {_FORMAT}")
    files = said.get("files")
    if not isinstance(files, dict) or {name for name in files if not _STATES.fullmatch(name)} != {*_FILES}:
        raise CheckpointError(f"{file} is damaged: it should list {', '.join(_FILES)}")
    info = said.get("info")
    kinds = {"collects": int, "updates": int, "env_steps": int, "stats": dict}
    if not isinstance(info, dict) or any(type(info.get(key)) is not kind for key, kind in kinds.items()):
        raise CheckpointError(f"{file} is damaged: it should say {', '.join(kinds)}")
    if (named := NAME.fullmatch(path.name)) and int(named[1]) != info["updates"]:
        raise CheckpointError(f"{path} is damaged or was renamed: it is of update {info['updates']}")
    return said


def seal(manifest: Mapping[str, Any]) -> bytes:
    """Return a manifest as JSON that begins with a checksum of itself."""
    return stamp(json.dumps({"checksum": _NO_CHECKSUM, **manifest}, allow_nan=False).encode())


def stamp(text: bytes) -> bytes:
    """Return a manifest's text with its checksum in place of the first zeros."""
    return text.replace(_NO_CHECKSUM.encode(), hashlib.sha256(text).hexdigest().encode(), 1)


def numbered(directory: Path) -> list[Path]:
    """Return the checkpoints in a directory, the last one first; whether they are sound isn't looked at."""
    if not directory.is_dir():
        return []
    named = [(int(found[1]), path) for path in directory.iterdir() if (found := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(named, reverse=True)]


def read_latest(directory: Path, run: str | None = None) -> Checkpoint:
    """Return the last checkpoint that is sound; those after it are named in warnings.

    Args:
        directory: Where they are.
        run: As of `read`.

    Raises:
        CheckpointError: If there is none.
    """
    faults = []
    for path in numbered(directory):
        try:
            said = read(path, run)
        except CheckpointError as error:
            faults.append(str(error))
            continue
        for fault in faults:
            _log.warning("%s; %s is taken", fault, path.name)
        return said
    raise CheckpointError(f"{directory} has no sound checkpoint" + "".join(f"; {fault}" for fault in faults))


def _rest(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what has no file of its own."""
    return {key: value for key, value in state.items() if key not in ("policy", "optimizer")}


def _state_of(rank: int) -> str:
    return f"state-{rank}.safetensors" if rank else _STATE


def _read(path: Path, rank: int, ranks: int) -> Checkpoint:
    said = manifest(path)
    contents: dict[str, dict[str, Any]] = {}
    policy: dict[str, Any] = {}
    for name in sorted(said["files"]):
        file, expected = path / name, said["files"][name]
        if not isinstance(expected, dict) or file.stat().st_size != expected.get("size"):
            raise CheckpointError(f"{file} is damaged: it has another size")
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != expected.get("sha256"):
            raise CheckpointError(f"{file} is damaged: its checksum is another one")
        try:
            if name == _MODEL:
                contents[name], policy = parse(data, file)
            else:
                # In an order that is always the same.
                contents[name] = dict(sorted(load(data).items()))
        except (SafetensorError, errors.PolicyFileError) as error:
            raise CheckpointError(f"{file} is damaged: {error}") from error
    try:
        states = [said["state"], *said.get("states", [])]
        mine = rank if len(states) == ranks else 0
        state = {
            "policy": contents[_MODEL],
            "optimizer": unpack(said["optimizer"], contents[_OPTIMIZER]),
            **unpack(states[mine], contents[_state_of(mine)]),
        }
        return Checkpoint(path, state, said["info"], policy, len(states))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path / _MANIFEST} is damaged: {error}") from error


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
