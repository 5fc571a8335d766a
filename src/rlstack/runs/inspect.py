"""Looking at a run's checkpoints: what they hold, and how well their policies do."""

from pathlib import Path
from typing import Any

from torch import Tensor

from ..common.errors import CheckpointError
from . import checkpoint


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint that a path means: itself, or of a run the best one, else the last one.

    Raises:
        CheckpointError: If there is none.
    """
    directory = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    found = checkpoint.pointed(directory, "best") or next(iter(checkpoint.numbered(directory)), None)
    if found is None and not (path / "manifest.json").is_file():
        raise CheckpointError(f"{path} is no checkpoint, and there is none in it")
    return found or path


def inspect(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, every file of it verified; nothing is built or imported.

    Raises:
        CheckpointError: If it is damaged, or there is none.
    """
    where = find_checkpoint(path)
    said = checkpoint.read(where)
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
