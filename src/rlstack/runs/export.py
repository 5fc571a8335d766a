"""Exporting the policy of a run."""

from pathlib import Path
from typing import Any

import torch

from . import checkpoint
from .evaluate import load_policy
from .inspect import find_checkpoint
from .saved_config import read_config


def export(path: Path, to: str, output: Path | None, *, deterministic: bool) -> dict[str, Any]:
    """Write a checkpoint's policy for programs without rlstack; return where it is, and how exact.

    Args:
        path: A checkpoint, or a run.
        to: "onnx" or "pt2".
        output: Where to; None is `policy.onnx` or `policy.pt2` in the run's directory.
        deterministic: Whether it acts without chance.

    Raises:
        CheckpointError: If there is no sound checkpoint, or it is of another run than its directory.
        RunDirError, ConfigError: If the run's config.yaml can't be used.
        ExportError: If the policy can't be exported.
    """
    where = find_checkpoint(path)
    run = where.absolute().parent.parent
    config = read_config(run)
    said = checkpoint.read(where, config.get("id", ""))
    policy = load_policy(where, config, torch.device("cpu"))
    made = policy.export(output or where.parent.parent / f"policy.{to}", deterministic=deterministic)
    return {
        "checkpoint": str(where),
        "updates": said.info["updates"],
        "policy": str(made.path),
        "guide": str(made.guide),
        "largest_error": made.largest_error,
    }
