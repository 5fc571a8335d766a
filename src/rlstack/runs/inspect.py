"""Looking at a run's checkpoints: what they hold, and how well their policies do."""

import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from ..common.errors import CheckpointError, ConfigError, RunDirError
from . import checkpoint, kept
from .saved_config import read_config

_log = logging.getLogger(__name__)


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint that a path means: itself, or of a run the best one, else the last one.

    Raises:
        CheckpointError: If there is none.
    """
    directory = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    found = kept.pointed(directory, "best") or next(iter(checkpoint.numbered(directory)), None)
    if found is None and not (path / "manifest.json").is_file():
        raise CheckpointError(f"{path} is no checkpoint, and there is none in it")
    return found or path


def inspect(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, every file of it verified; nothing is built or imported.

    One of another run than its directory is named in a warning.

    Raises:
        CheckpointError: If it is damaged, or there is none.
    """
    where = find_checkpoint(path)
    said, run = checkpoint.read(where), where.absolute().parent.parent
    try:
        own = read_config(run).get("id", "")
    except (ConfigError, RunDirError):
        # Where there is no run, or none that says which, a checkpoint is no other's.
        own = None
    if own is not None and said.info.get("run") not in (None, own):
        _log.warning("%s is of another run than %s: its id is %s", where, run, said.info["run"])
    manifest = checkpoint.manifest(where)
    tensors = [value for value in said.state["policy"].values() if isinstance(value, Tensor)]
    return {
        "checkpoint": str(where),
        "bytes": sum(entry["size"] for entry in manifest["files"].values()),
        "parameters": sum(tensor.numel() for tensor in tensors),
        "policy": said.policy,
        "versions": manifest["versions"],
        **{key: value for key, value in said.info.items() if key != "config"},
    }
