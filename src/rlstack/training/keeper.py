"""What is kept of a training: how far it is, its metrics and its checkpoints."""

import atexit
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from ..algorithm import Algorithm, RecurrentAlgorithm
from ..common import metrics
from ..common.errors import RankError, RunDirError, StatisticError, told
from ..common.types import Stats
from ..runs import checkpoint
from ..runs.rank_states import write_together
from ..runs.restore import restore
from ..runs.run_dir import RunDir
from ..runs.saved_config import facts
from ..tracking.mlflow_sender import MlflowSender
from .system_metrics import memory_stats, system_stats

_log = logging.getLogger(__name__)


@final
class Keeper:
    """Counts the updates of a training and writes them down, as long as that is this process's to do.

    Args:
        algorithm: What is trained.
        run_dir: Where checkpoints and metrics go; None keeps none.
        tracker: Takes the metrics.
        system_metrics: Whether the statistics have those of the machine too.
    """

    def __init__(
        self,
        algorithm: Algorithm | RecurrentAlgorithm,
        run_dir: RunDir | None,
        tracker: MlflowSender,
        *,
        system_metrics: bool,
    ) -> None:
        self._algorithm, self._run_dir, self._tracker = algorithm, run_dir, tracker
        self.ranks = algorithm.ranks
        self._system_metrics = system_metrics
        self.collects, self.steps = 0, 0
        """How many horizons have been collected, and how often the policy has been updated."""
        self.last: Stats = {}
        """Statistics of the last update; what is added to them before they are tracked counts too."""
        self._is_tracked = self._is_recorded = True
        """Whether they have been; whether all has been done that comes with it."""
        self.resumed = False
        """Whether no update has been made since a checkpoint was gone on from."""
        self.is_due = False
        """Whether a checkpoint is due that all ranks must write together."""
        self._pid = os.getpid()
        self._at_work = 0
        self._updates, self._is_tried = algorithm.learner.updates, False
        """The learner's number when the last update came to its end; whether its state could be written."""
        if run_dir is not None:
            run_dir.lock.owned_by(self._make_way)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Keep other trainers of this process out of the run directory meanwhile.

        Raises:
            RuntimeError: In another process than that which made this.
            RunDirError: If the run directory isn't this one's any more.
        """
        self._check()
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1

    def begin(self) -> None:
        """Say that an update begins.

        Raises:
            RuntimeError, RunDirError: As `at_work`, which it may have been said in long ago.
            StatisticError: As `record`, which it does if nobody else has.
        """
        self._check()
        self.record()
        self.resumed = False

    def count(self, stats: Stats, horizons: int) -> Stats:
        """Count an update that took so many horizons; return its statistics with the totals."""
        self.collects += horizons
        self.steps += 1
        self._updates = self._algorithm.learner.updates
        self._is_tracked = self._is_recorded = False
        device = self._algorithm.device
        self.last = {
            **stats,
            **memory_stats(device),
            **(system_stats(device) if self._system_metrics else {}),
            "algorithm/collects": float(self.collects),
            "algorithm/steps": float(self.steps),
            metrics.ENV_TOTAL_STEPS: float(self._algorithm.env_steps),
        }
        if self._tracker.enabled:
            # What begins before a loop's body sees the statistics is the run of whoever called.
            self._tracker.start()
        # After the tracker: what is registered last is called first.
        atexit.register(self._leave)
        return self.last

    def record(self) -> None:
        """Track the last update and write a checkpoint if one is due, unless that has been done.

        Raises:
            StatisticError: If something that was added to its statistics is no number; the rest is tracked.
        """
        if self._is_recorded or self._pid != os.getpid():
            return
        atexit.unregister(self._leave)
        self._is_recorded, faults = True, self._track()
        if self._run_dir is not None:
            if faults or self._run_dir.is_due(self.steps):
                # With several ranks not here: one of them may have been left by an error.
                self.is_due = self.ranks.many
                if not self.is_due:
                    self.try_to_save()
            elif not self._is_tried:
                self._try()
            self._is_tried = True
        if faults:
            raise StatisticError("; ".join(faults))

    def _leave(self) -> None:
        """Keep what a loop has done that is suspended when the process ends: later nothing can be."""
        if self._pid == os.getpid():
            self.record()
            if not self.ranks.many:
                self.try_to_save()

    def _track(self) -> list[str]:
        """Track the last update's statistics, unless that has been done; return what is wrong with them."""
        if self._is_tracked:
            return []
        self._is_tracked = True
        faults = metrics.refine(self.last)
        self._tracker.log(self.last)
        return faults

    def save(self, directory: Path | None) -> Path:
        """Write a checkpoint to a directory, None is the run's `checkpoints`; return where it is.

        Raises:
            ValueError: If there is neither, or the policy's description can't be JSON.
            RunDirError: If the run directory isn't this one's any more.
            StatisticError: As `record`.
            TypeError, EnvError, RuntimeError, OSError: As `checkpoint.write` and `Algorithm.state_dict`.
        """
        run_dir, algorithm = self._run_dir if directory is None else None, self._algorithm
        if run_dir is not None:
            self._check()
        elif directory is None:
            raise ValueError("there is no run_dir: name a directory for the checkpoint")
        if faults := self._track():
            raise StatisticError("; ".join(faults))
        info = {
            "collects": self.collects,
            "updates": self.steps,
            "stats": {key: value if math.isfinite(value) else None for key, value in self.last.items()},
            **facts(algorithm, self._run_dir and self._run_dir.path),
            "run": self._run_dir and self._run_dir.id,
            "training": self._run_dir.training if self._run_dir else {},
            "mlflow_run_id": self._tracker.run_id,
        }
        where = run_dir.sync_journal() if run_dir else Path(directory or "")

        def write(state: Mapping[str, Any], others: checkpoint.Others | None = None) -> Path:
            return checkpoint.write(where, self.steps, algorithm.policy, state, info, others)

        if self.ranks.many:
            path = write_together(self.ranks, write, algorithm.state_dict)
        else:
            path = write(algorithm.state_dict())
        if run_dir:
            run_dir.keep(path, self.last)
        return path

    def try_to_save(self) -> None:
        """Write a checkpoint if it isn't there; if that can't be, for whatever reason, training goes on."""
        run_dir, self.is_due = self._run_dir, False
        if run_dir is None or not run_dir.lock.is_held or self.steps == run_dir.saved:
            return
        try:
            self.save(None)
        except RankError:
            raise
        except Exception as error:
            why = str(error) if isinstance(error, OSError | TypeError) else told(error)
            _log.warning("no checkpoint could be written, training goes on: %s", why)
            run_dir.postpone()

    def go_on_from(self, said: checkpoint.Checkpoint) -> None:
        """Let the algorithm go on from a checkpoint.

        Raises:
            CheckpointError: If it is of another algorithm or environment; training is as it was.
            RuntimeError, RunDirError: As `at_work`.
        """
        self._check()
        self._track()
        restore(self._algorithm, said)
        self._is_recorded = True
        self.collects, self.steps = said.info["collects"], said.info["updates"]
        self.last = {key: math.nan if value is None else value for key, value in said.info["stats"].items()}
        self.resumed, self._updates = self.steps > 0, self._algorithm.learner.updates
        if self._run_dir is not None:
            # The metrics after it will come again.
            self._run_dir.cut_journal(self._algorithm.env_steps)

    def close(self, status: str | None = None) -> None:
        """Send what is left to MLflow, and let another trainer have the run directory.

        Args:
            status: MLflow's status of the run from now on; None is what was said before, or FINISHED.
        """
        if self._pid != os.getpid():
            return
        try:
            self.record()
        finally:
            self._tracker.close(status)
            if self._run_dir is not None:
                self._run_dir.close()

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError(
                f"this trainer is that of process {self._pid}, which goes on with it, not that of process "
                f"{os.getpid()}, forked from it: make another one here, with a run_dir of its own"
            )
        if self._run_dir is not None:
            self._run_dir.lock.check()

    def _make_way(self, *, anew: bool) -> None:
        """Close for another trainer of this process; what is learned is in a checkpoint then.

        Raises:
            RunDirError: If this one is at work, or what is learned would be lost.
        """
        run_dir = self._run_dir
        assert run_dir is not None
        name = f"{run_dir.path} is in use by another trainer of this process"
        if self._at_work:
            raise RunDirError(f"{name}, in the middle of run, updates or step: let that end, or close() it")
        if anew and (self.steps or run_dir.saved >= 0):
            raise RunDirError(
                f"{name}, at update {self.steps}: use Trainer.resume or another directory, or close() it"
            )
        # Half an update is no state: the last checkpoint is gone on from, as after a crash.
        is_whole = self._algorithm.learner.updates == self._updates
        if is_whole and self.steps not in (0, run_dir.saved):
            try:
                self.save(None)
            except Exception as error:
                raise RunDirError(
                    f"{name}, which can't save its update {self.steps} ({told(error)}): "
                    "close() it to give that up"
                ) from error
        self._tracker.close()
        run_dir.close_journal()
        run_dir.lock.release("was taken over by another trainer of this process: go on with that one")

    def _try(self) -> None:
        """Say after the first update, not only at the first checkpoint, what no checkpoint can hold."""
        try:
            checkpoint.check(self._algorithm.policy, self._algorithm.state_dict())
        except Exception as error:
            _log.warning("no checkpoint will be written: %s", told(error))
