"""A run as a directory: its configuration, its metrics and its checkpoints.

    runs/cartpole-20260101-1/
      config.yaml      every value that was used
      metrics.jsonl    as `rlstack.journal` tells
      tracking.json    as `rlstack.tracked_run` tells
      checkpoints/     as `rlstack.checkpoint` tells

A lock in it keeps a second trainer out.
"""

import copy
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, final

import torch

from . import checkpoint
from .algorithm import Algorithm, RecurrentAlgorithm
from .config import dump
from .data import Stats
from .files import write_file
from .journal import JOURNAL, Journal
from .nested import flatten
from .run_options import (
    ALGORITHMS,
    CONFIG,
    CheckpointConfig,
    RunDirError,
    config_file,
    describe,
    read_config,
)
from .spec_json import differences, from_json
from .tracked_run import forget_tracked_run


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
        self.path, self.options, self.checkpoints = path, options, path / "checkpoints"
        path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(path)
        self.journal = Journal(path / JOURNAL)
        self.saved, self._saved_at = -1, time.monotonic()

    @classmethod
    def begin(
        cls,
        path: Path,
        checkpoint_config: Mapping[str, Any],
        options: Mapping[str, Any],
        algorithm: Algorithm | RecurrentAlgorithm,
    ) -> Self:
        """Return the directory of a new run, with its config.yaml.

        Args:
            path: Where.
            checkpoint_config: Fields of `CheckpointConfig`, by name.
            options: Of the trainer, those beside.
            algorithm: What is trained.

        Raises:
            RunDirError: If there are checkpoints in it.
        """
        run_dir = cls(path, CheckpointConfig.parse(checkpoint_config))
        if checkpoint.numbered(run_dir.checkpoints):
            run_dir.close()
            raise RunDirError(f"{path} holds checkpoints of a run: use Trainer.resume, or another directory")
        config = {
            "env": algorithm.env_cls,
            "algorithm": next(name for name, kind in ALGORITHMS.items() if isinstance(algorithm, kind)),
            "algorithm_config": describe(algorithm),
            "trainer": {"checkpoint_config": vars(run_dir.options), **options},
        }
        # What a run without a checkpoint left here is none of this one's.
        run_dir.journal.cut(-1)
        forget_tracked_run(path)
        write_file(path / CONFIG, dump(config).encode())
        return run_dir

    def describe_anew(self, algorithm: Algorithm | RecurrentAlgorithm) -> None:
        """Let the config.yaml say what is used from now on."""
        said = read_config(self.path)
        said["algorithm_config"] = describe(algorithm)
        write_file(self.path / CONFIG, dump(said).encode())

    def make_ready(self) -> Path:
        """Make sure that the metrics up to a checkpoint survive what it survives; return where it goes.

        Raises:
            OSError: If that can't be.
        """
        self.journal.sync()
        return self.checkpoints

    def check_last(self, updates: int) -> None:
        """Refuse to go on from so many updates if there are checkpoints of later ones.

        Raises:
            RunDirError: With what to do.
        """
        later = checkpoint.numbered(self.checkpoints)[:1]
        if later and int(later[0].name.rpartition("-")[2]) > updates:
            raise RunDirError(
                f"{self.path} holds later checkpoints, like {later[0].name}: use another run_dir"
            )

    def close(self) -> None:
        """Let another process have the directory."""
        self.journal.close()
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


_log = logging.getLogger(__name__)

_FIXED = ("num_envs", "optimizer_cls")
"""Hyperparameters that a checkpoint is bound to, beside those in the policy's description."""


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Keep trainers out of a run directory meanwhile.

    Raises:
        RunDirError: If one is at work in it, or it is none.
    """
    config_file(path)
    lock = _lock(path)
    try:
        yield
    finally:
        lock.release()


def _lock(path: Path) -> Any:
    """Return the lock of a run directory, held; it dies with the process."""
    from filelock import FileLock, Timeout

    lock = FileLock(path / ".lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunDirError(f"{path} is in use by another trainer") from None
    return lock


def restore(algorithm: Algorithm | RecurrentAlgorithm, said: checkpoint.Checkpoint) -> None:
    """Let an algorithm go on from a checkpoint.

    Raises:
        CheckpointError: If it is of another algorithm or environment; this one is as it was.
    """
    mine, theirs = json.loads(json.dumps(algorithm.policy.description)), dict(said.policy)
    if "clip_actions" in mine:
        # Runs of rlstack 0.1.0 say nothing of it: their Normal was not clipped.
        mine["clip_actions"] = theirs.setdefault("clip_actions", False)
    made, making = said.info.get("params", {}), algorithm.params
    pairs = [(key, theirs.get(key), mine.get(key)) for key in {**theirs, **mine}]
    pairs += [(key, made.get(key, making[key]), making[key]) for key in _FIXED]
    if changed := [
        f"{what} is {one!s:.200} there and {other!s:.200} here"
        for key, there, here in pairs
        if there != here
        for what, one, other in _differences(key, there, here)
    ]:
        raise checkpoint.CheckpointError(
            f"{said.path} is of another policy or environment than this one: {'; '.join(changed)}; "
            "that can't be changed"
        )
    before, state = copy.deepcopy(algorithm.state_dict()), said.state
    if made and _options_of_env(made) != _options_of_env(making):
        _log.warning("env_config is not that of %s: the environments are reset", said.path)
        anew = {"env": None, "env_config": None, "horizons_since_reset": 0}
        state = {**state, "collector": {**state["collector"], **anew}, "eval_collector": None}
    try:
        algorithm.load_state_dict(state)
    except Exception as error:
        algorithm.load_state_dict(before)
        message = f"{said.path} can't be used: {type(error).__name__}: {error}"
        raise checkpoint.CheckpointError(message) from error
    algorithm.policy.clip_actions(mine.get("clip_actions", True))
    if algorithm.hparams.seed is not None and made.get("seed", making["seed"]) != making["seed"]:
        # Another seed means other random numbers from here on.
        torch.manual_seed(algorithm.hparams.seed)


def _differences(name: str, there: Any, here: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield what differs in two values that aren't the same, down to the option, or the part of a spec."""
    if name.endswith("_spec") and isinstance(there, str) and isinstance(here, str):
        with suppress(ValueError):  # Else it is no spec that this rlstack knows: both are shown as they are.
            yield from differences(name, from_json(there), from_json(here))
            return
    theirs, mine = flatten({name: there}), flatten({name: here})
    for key in dict.fromkeys([*theirs, *mine]):
        if theirs.get(key, "missing") != mine.get(key, "missing"):
            yield key, theirs.get(key, "missing"), mine.get(key, "missing")


def _options_of_env(params: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in params.items() if key.partition(".")[0] == "env_config"}
