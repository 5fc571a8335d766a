"""A run as a directory: its configuration and its checkpoints.

    runs/cartpole-20260101-1/
      config.yaml      every value that was used
      checkpoints/     as `rlstack.checkpoint` tells

A lock in it keeps a second trainer out.
"""

import copy
import json
import math
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self, final

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from . import checkpoint
from .algorithm import Algorithm, RecurrentAlgorithm
from .config import ConfigError, dump, parse
from .data import Stats
from .files import write_file
from .hparams import checked

ALGORITHMS: dict[str, type[Algorithm] | type[RecurrentAlgorithm]] = {
    "feedforward": Algorithm,
    "recurrent": RecurrentAlgorithm,
}
"""By their names in a configuration."""

_CONFIG = "config.yaml"


class RunDirError(ValueError):
    """A run directory is none, holds another run, or is in use."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, allow_inf_nan=False))
class CheckpointConfig:
    """When to write a checkpoint, and which ones to keep.

    Raises:
        HparamsError: From `parse`, which says what to change.
    """

    every_updates: Annotated[int, Field(ge=1)] | None = None
    """Write one after every so many updates."""
    every_seconds: Annotated[float, Field(ge=0)] | None = 300.0
    """Write one when so long has passed since the last one."""
    keep: Annotated[int, Field(ge=1)] = 3
    """How many of the last ones to keep; the best one is kept too."""
    best: str = "returns/mean"
    """Statistic that says which one is the best."""
    best_is: Literal["highest", "lowest"] = "highest"
    """Whether the best one has the highest or the lowest value of it."""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Return the options with these values and the defaults for the rest.

        Raises:
            HparamsError: If a name is unknown or a value can't be, with what to do about it.
        """
        return checked(cls, values, "an option of checkpoint_config")


@final
class RunDir:
    """The directory of one run, held by one process at a time.

    Args:
        path: Where; made if need be.
        options: When to write a checkpoint, and which ones to keep.

    Raises:
        RunDirError: If another process holds it.
        OSError: If it can't be made.
    """

    saved: int
    """How many updates the last checkpoint is of; -1 if there is none."""

    def __init__(self, path: Path, options: CheckpointConfig) -> None:
        from filelock import FileLock, Timeout

        self.path, self.options, self.checkpoints = path, options, path / "checkpoints"
        path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path / ".lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunDirError(f"{path} is in use by another trainer") from None
        self.saved, self._saved_at = -1, time.monotonic()

    @classmethod
    def begin(cls, path: Path, options: CheckpointConfig, algorithm: Algorithm | RecurrentAlgorithm) -> Self:
        """Return the directory of a new run, with its config.yaml.

        Raises:
            RunDirError: If there are checkpoints in it.
        """
        run_dir = cls(path, options)
        if checkpoint.numbered(run_dir.checkpoints):
            run_dir.close()
            raise RunDirError(f"{path} holds checkpoints of a run: use Trainer.resume, or another directory")
        config = {
            "env": algorithm.env_cls,
            "algorithm": next(name for name, kind in ALGORITHMS.items() if isinstance(algorithm, kind)),
            "algorithm_config": describe(algorithm),
            "trainer": {"checkpoint_config": vars(options)},
        }
        write_file(path / _CONFIG, dump(config).encode())
        return run_dir

    def close(self) -> None:
        """Let another process have the directory."""
        self._lock.release()

    def is_due(self, updates: int) -> bool:
        """Return whether a checkpoint is to be written after so many updates."""
        every, seconds = self.options.every_updates, self.options.every_seconds
        if every is not None and updates % every == 0:
            return True
        return seconds is not None and time.monotonic() - self._saved_at >= seconds

    def put_off(self) -> None:
        """Wait `every_seconds` until a checkpoint is due again: the last one couldn't be written."""
        self._saved_at = time.monotonic()

    def keep(self, path: Path, stats: Stats) -> None:
        """Take a new checkpoint into the run, and remove those that needn't be kept.

        Args:
            path: The checkpoint.
            stats: Of its last update.
        """
        self.saved, self._saved_at = int(path.name.rpartition("-")[2]), time.monotonic()
        checkpoint.point(self.checkpoints, "latest", path)
        if self._is_best(stats):
            checkpoint.point(self.checkpoints, "best", path)
        checkpoint.prune(self.checkpoints, self.options.keep)

    def _is_best(self, stats: Stats) -> bool:
        value = stats.get(self.options.best, math.nan)
        if not math.isfinite(value):
            return False
        best = checkpoint.pointed(self.checkpoints, "best")
        try:
            before = None if best is None else checkpoint.manifest(best)["info"]["stats"][self.options.best]
        except (checkpoint.CheckpointError, KeyError, OSError):
            before = None
        if before is None:
            return True
        return value > before if self.options.best_is == "highest" else value < before


def describe(algorithm: Algorithm | RecurrentAlgorithm) -> dict[str, Any]:
    """Return the hyperparameters in use, all defaults resolved."""
    hparams = algorithm.hparams
    values = {field.name: getattr(hparams, field.name) for field in fields(hparams)}
    if hparams.model is None:
        values["model_config"] = algorithm.policy.model.config
    values["optimizer_config"] = {"lr": 1e-3, **(hparams.optimizer_config or {})}
    return {**values, "device": str(algorithm.device)}


def restore(algorithm: Algorithm | RecurrentAlgorithm, said: checkpoint.Checkpoint) -> None:
    """Let an algorithm go on from a checkpoint.

    Raises:
        CheckpointError: If it is of another algorithm or environment; this one is as it was.
    """
    if said.policy != json.loads(json.dumps(algorithm.policy.description)):
        raise checkpoint.CheckpointError(f"{said.path} is of another policy or environment than this one")
    before = copy.deepcopy(algorithm.state_dict())
    try:
        algorithm.load_state_dict(said.state)
    except Exception as error:
        algorithm.load_state_dict(before)
        message = f"{said.path} can't be used: {type(error).__name__}: {error}"
        raise checkpoint.CheckpointError(message) from error


def read_config(path: Path) -> dict[str, Any]:
    """Return what a run's config.yaml says.

    Raises:
        RunDirError: If there is none.
        ConfigError: If it isn't what a run was made with.
    """
    file = path / _CONFIG
    if not file.is_file():
        raise RunDirError(f"{path} is not a run directory: there is no {_CONFIG} in it")
    said = parse(file.read_text(encoding="utf-8", errors="replace"), str(file))
    for key, kind in {"env": str, "algorithm": str, "algorithm_config": dict, "trainer": dict}.items():
        if not isinstance(said.get(key), kind):
            raise ConfigError(f"{file}: {key} is {said.get(key)!r:.60}, expected a {kind.__name__}")
    if said["algorithm"] not in ALGORITHMS:
        raise ConfigError(f"{file}: algorithm is {said['algorithm']}, expected {' or '.join(ALGORITHMS)}")
    return said
