"""A run as a directory: its configuration, its metrics and its checkpoints.

    runs/cartpole-20260101-1/
      config.yaml      every value that was used
      metrics.jsonl    as `rlstack.tracking.journal` tells
      tracking.json    as `rlstack.tracking.mlflow_run` tells
      checkpoints/     as `rlstack.runs.checkpoint` tells

A lock in it keeps a second trainer out. Of several ranks the first one holds it, and alone writes in it, but
for the states of the others in checkpoints.
"""

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, final
from uuid import uuid4

from ..algorithm import Algorithm, RecurrentAlgorithm
from ..common import errors
from ..common.atomic_files import write_file
from ..common.errors import RunDirError
from ..common.types import Stats
from ..distributed.ranks import join
from ..tracking.journal import JOURNAL, Journal
from ..tracking.mlflow_run import forget_tracked_run
from . import checkpoint, kept
from .options import CheckpointConfig
from .rank_states import found_by_first
from .run_lock import RunLock
from .saved_config import ALGORITHMS, CONFIG, check_config, config_file, describe, read_config, training
from .yaml_format import dump, plain_values, unwritten


@final
class RunDir:
    """The directory of one run, held by one process at a time.

    Args:
        path: Where; made if need be. It stays there, whatever becomes of the working directory.
        options: When to write a checkpoint, and which ones to keep.
        anew: Whether a run begins in it.

    Raises:
        RunDirError: If another process holds it, or a trainer of this one that doesn't make way.
        OSError: If it can't be made.
    """

    id: str
    """The run's identity, which its checkpoints have too; empty in runs that rlstack 0.1.0 began."""
    training: dict[str, str]
    """What its config.yaml says beside the algorithm, as texts by dotted name."""
    saved: int
    """How many updates the last checkpoint is of; -1 if there is none."""

    def __init__(self, path: Path, options: CheckpointConfig, *, anew: bool = False) -> None:
        path = path.absolute()
        self.path, self.options, self.checkpoints = path, options, path / "checkpoints"
        self.ranks = join()
        self.writes = self.ranks.index == 0
        """Whether this process is the one that does."""
        if self.writes:
            path.mkdir(parents=True, exist_ok=True)
        self.lock = RunLock(path, anew=anew, by_another=not self.writes)
        try:
            self.journal = Journal(path / JOURNAL) if self.writes else None
        except BaseException:
            self.lock.release()
            raise
        self.id, self.training = "", {}
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
        run_dir = cls(path, CheckpointConfig.parse(checkpoint_config), anew=True)
        with closed_on_error(run_dir):
            if not run_dir.writes:
                return run_dir
            if checkpoint.numbered(run_dir.checkpoints):
                raise RunDirError(
                    f"{path} holds checkpoints of a run: use Trainer.resume, on the command line --resume, "
                    "or another directory"
                )
            run_dir.id = uuid4().hex
            config = {
                "id": run_dir.id,
                "env": algorithm.env_cls,
                "algorithm": next(name for name, kind in ALGORITHMS.items() if isinstance(algorithm, kind)),
                "algorithm_config": describe(algorithm),
                "trainer": {"checkpoint_config": vars(run_dir.options), **options},
            }
            # What a run without a checkpoint left here is none of this one's.
            run_dir.cut_journal(-1)
            forget_tracked_run(run_dir.path)
            write_file(run_dir.path / CONFIG, dump(config, run_dir.path).encode())
            if said := unwritten(plain_values(config["algorithm_config"]), str(run_dir.path / CONFIG)):
                _log.warning("%s", said)
            run_dir.training = training(run_dir.path)
        return run_dir

    @classmethod
    def go_on(cls, path: Path, options: CheckpointConfig) -> Self:
        """Return the directory of a run that there is.

        Raises:
            RunDirError: If there is no such run, or another process holds it.
            ConfigError: If its config.yaml can't be used.
        """
        said = read_config(path)
        run_dir = cls(path, options)
        run_dir.id, run_dir.training = said.get("id", ""), training(path)
        return run_dir

    def read_latest(self) -> checkpoint.Checkpoint:
        """Return the run's last sound checkpoint, with this rank's state.

        Damaged ones and those of other runs are named in warnings.

        Raises:
            CheckpointError: If there is none.
        """
        return found_by_first(self.ranks, lambda: checkpoint.read_latest(self.checkpoints, self.id))

    def describe_anew(self, algorithm: Algorithm | RecurrentAlgorithm) -> None:
        """Let the config.yaml say what is used from now on."""
        if not self.writes:
            return
        said = read_config(self.path)
        said["algorithm_config"] = describe(algorithm)
        write_file(self.path / CONFIG, dump(said, self.path).encode())

    def describe_training(self, trainer: Mapping[str, Any], stop_conditions: Any) -> None:
        """Let the config.yaml say how it is trained, beside what the trainer knows itself."""
        if not self.writes:
            return
        said = read_config(self.path)
        said["trainer"] = {**trainer, **said["trainer"]}
        if stop_conditions is not None:
            said["stop_conditions"] = stop_conditions
        write_file(self.path / CONFIG, dump(said, self.path).encode())
        self.training = training(self.path)

    def sync_journal(self) -> Path:
        """Make sure that the metrics up to a checkpoint survive what it survives; return where it goes.

        Raises:
            OSError: If that can't be.
        """
        if self.journal is not None:
            self.journal.sync()
        return self.checkpoints

    def read_checked(
        self, algorithm: Algorithm | RecurrentAlgorithm, given: Iterable[str]
    ) -> checkpoint.Checkpoint:
        """Return the run's last sound checkpoint, with which its config.yaml has been compared.

        Args:
            algorithm: What goes on from it.
            given: Hyperparameters that aren't taken from the config.yaml.

        Raises:
            CheckpointError: If there is none.
            ConfigError: If the config.yaml has lost a value.
        """
        said = self.read_latest()
        check_config(self.path, algorithm, said, given)
        return said

    def check_last(self, said: checkpoint.Checkpoint) -> None:
        """Refuse to go on from a checkpoint if there are others of later updates; say if it is another run's.

        Raises:
            RunDirError: With what to do.
        """
        later = checkpoint.numbered(self.checkpoints)[:1]
        if later and int(later[0].name.rpartition("-")[2]) > said.info["updates"]:
            raise RunDirError(
                f"{self.path} holds later checkpoints, like {later[0].name}: use another run_dir"
            )
        if said.info.get("run") not in (None, self.id):
            _log.warning("%s is of another run than %s, which goes on from it", said.path, self.path)

    def close(self) -> None:
        """Let another trainer have the directory; this one may write into it no more."""
        if self.lock.is_held:
            self.close_journal()
            self.lock.release()

    def cut_journal(self, env_steps: int) -> None:
        """Drop the metrics after so many environment steps."""
        if self.journal is not None:
            self.journal.cut(env_steps)

    def close_journal(self) -> None:
        """Write no more metrics."""
        if self.journal is not None:
            self.journal.close()

    def is_due(self, updates: int) -> bool:
        """Return whether a checkpoint is to be written after so many updates."""
        every, seconds = self.options.every_updates, self.options.every_seconds
        if every is not None and updates % every == 0:
            return True
        return seconds is not None and time.monotonic() - self._saved_at >= seconds

    def postpone(self) -> None:
        """Wait `every_seconds` until a checkpoint is due again: the last one couldn't be written."""
        self._saved_at = time.monotonic()

    def keep(self, path: Path, stats: Stats) -> None:
        """Take a new checkpoint into the run, and remove those that needn't be kept.

        Args:
            path: The checkpoint.
            stats: Of its last update.
        """
        self.saved, self._saved_at = int(path.name.rpartition("-")[2]), time.monotonic()
        if not self.writes:
            return
        kept.point(self.checkpoints, "latest", path)
        if self._is_best(stats):
            kept.point(self.checkpoints, "best", path)
        kept.prune(self.checkpoints, self.options.keep, path)

    def _is_best(self, stats: Stats) -> bool:
        value = stats.get(self.options.best, math.nan)
        if not math.isfinite(value):
            return False
        best = kept.pointed(self.checkpoints, "best")
        try:
            before = None if best is None else checkpoint.manifest(best)["info"]["stats"][self.options.best]
        except (errors.CheckpointError, KeyError, OSError):
            before = None
        if before is None:
            return True
        return value > before if self.options.best_is == "highest" else value < before


_log = logging.getLogger(__name__)


@contextmanager
def closed_on_error(run_dir: RunDir | None) -> Iterator[None]:
    """Close a run directory if its trainer can't be made: nobody else could, and a traceback may keep it."""
    try:
        yield
    except BaseException:
        if run_dir is not None:
            run_dir.close()
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep trainers out of a run directory meanwhile.

    Raises:
        RunDirError: If one is at work in it, or it is none.
    """
    config_file(path)
    lock = RunLock(path, anew=None)
    try:
        yield
    finally:
        lock.release()
