"""A sweep as an Optuna study: whose turn it is, what is tried, and what came of it.

    runs/sweep/
      sweep.yaml              what was asked for
      study.db                the study, with a heartbeat of each trial at work
      trial-7-seed-0/         the run of trial 7 with seed 0
      .alive/                 a lock for each attempt, which dies with its process

A trial of a sweep is one or more of Optuna's, its attempts. A process that is killed leaves one behind that
seems to run for ever; it is told to have failed, and Optuna's callback for stale trials lets another one with
the same values wait in its place. All of them count as the first one, and train in its directories.
"""

import copy
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ..common.errors import HparamsError, StoppedError, TrialError
from ..common.validation import check_options
from ..tracking.uris import sqlite_uri
from .attempt import FAULT, Attempt, root
from .options import SweepConfig

if TYPE_CHECKING:
    import optuna
    from filelock import BaseFileLock
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, Trial

STUDY = "study.db"

_HEARTBEAT, _GRACE = 10, 60
"""Time between two heartbeats of a trial at work, and after the last one until it counts as dead, s."""

_PATIENCE = 120
"""How long to wait for another process that writes into the database, s."""

_PAUSE = 0.5
"""Time between two looks for something to do, s."""


@final
class Sweep:
    """A sweep on disk, at which any number of processes may work.

    Args:
        directory: Where; made if need be.
        config: What is searched.

    Raises:
        HparamsError: If its pruner or sampler can't be made.
        ModuleNotFoundError: If Optuna isn't installed; it comes with the extra `sweep`.
    """

    def __init__(self, directory: Path, config: SweepConfig) -> None:
        import optuna
        from filelock import FileLock

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # Heartbeats and retries are.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self.directory, self.config, self._search = directory, config, config.dimensions()
        pruner: optuna.pruners.BasePruner = _made(optuna.pruners, "pruner", config.pruner)
        self._sampler(0)
        (directory / ".alive").mkdir(parents=True, exist_ok=True)
        self._turn = FileLock(directory / ".lock", thread_local=False)
        with self._turn:
            if not (directory / STUDY).exists():
                self._make()
        storage = _storage(directory / STUDY)
        self.study = optuna.load_study(study_name="sweep", storage=storage, pruner=pruner)

    def _make(self) -> None:
        """Make the database, whole or not at all."""
        import optuna

        partial = self.directory / f".{STUDY}"
        partial.unlink(missing_ok=True)
        storage = _storage(partial)
        optuna.create_study(study_name="sweep", storage=storage, direction=self.config.direction)
        storage.remove_session()
        storage.engine.dispose()
        partial.replace(self.directory / STUDY)

    def _sampler(self, trial: int) -> "optuna.samplers.BaseSampler":
        """Return a sampler for a trial: what it draws depends on that trial and those before it alone."""
        import optuna

        [(name, options)] = self.config.sampler.items()
        options = {**options, "seed": (self.config.seed * 1_000_003 + trial) % 2**32}
        return _made(optuna.samplers, "sampler", {name: options})

    def reserve(self) -> None:
        """Let as many trials wait as there are to be; those that there are already count."""
        with self._turn:
            there = len({root(trial) for trial in self.trials()})
            for _ in range(there, self.config.trials):
                self.study.enqueue_trial({})

    def trials(self) -> "list[FrozenTrial]":
        """Return all attempts at all trials, in their order."""
        return self.study.get_trials(deepcopy=False)

    def work(
        self,
        run: Callable[[Attempt], float | None],
        *,
        is_over: Callable[[], bool],
        said: Callable[[int], None],
    ) -> None:
        """Try what is left to try, until all of it is over; other processes may do the same meanwhile.

        Args:
            run: Tries a point and returns its value; that of a pruned one doesn't count. If it raises
                `StoppedError`, this ends, and the trial will be gone on with.
            is_over: Whether to stop before.
            said: Is told which trial an attempt has been made at.

        Raises:
            Exception: Whatever `run` raises but `TrialError`; the trial will be gone on with.
        """
        while not is_over():
            with self._turn:
                waiting, others = self._settle()
                try:
                    if waiting:
                        self._try(waiting[0], run)
                except StoppedError:
                    return
            if waiting:
                said(root(waiting[0]))
            elif others:
                # They may yet be killed.
                time.sleep(_PAUSE)
            else:
                return

    def _settle(self) -> "tuple[list[FrozenTrial], bool]":
        """Let wait again what dead processes have left; return what waits, and whether others are at work."""
        import optuna
        from optuna.storages import RetryHeartbeatStaleTrialCallback as Retry
        from optuna.trial import TrialState

        # Whose heartbeat has stopped: on another machine, say.
        optuna.storages.fail_stale_trials(self.study)
        others = False
        for trial in self.trials():
            if trial.state == TrialState.RUNNING:
                if self._is_alive(trial):
                    others = True
                else:
                    # Not if it has come to its end just now.
                    self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        trials = self.trials()
        retried = {number for trial in trials for number in Retry.retry_history(trial)}
        retry = Retry(inherit_intermediate_values=True)
        for trial in trials:
            if (
                trial.state == TrialState.FAIL
                and FAULT not in trial.user_attrs
                and trial.number not in retried
            ):
                if self._is_alive(trial):
                    # It was stopped for long, and may go on: in its run directory there is room for one.
                    others = True
                else:
                    retry(self.study, copy.deepcopy(trial))
        return self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)), others

    def _is_alive(self, trial: "FrozenTrial") -> bool:
        """Return whether the process that makes an attempt is there."""
        from filelock import Timeout

        try:
            with self._life(trial.number).acquire(timeout=0):
                return False
        except Timeout:
            return True

    def _life(self, number: int) -> "BaseFileLock":
        """Return the lock that an attempt is made under."""
        from filelock import FileLock

        return FileLock(self.directory / ".alive" / str(number), thread_local=False)

    def _try(self, waiting: "FrozenTrial", run: Callable[[Attempt], float | None]) -> None:
        """Make an attempt at a trial that waits; called when it is this process's turn, and ends that."""
        import optuna

        attempts: list[Attempt] = []

        def objective(trial: "Trial") -> float:
            self._turn.release()
            attempts.append(attempt := Attempt(trial, waiting, self._search))
            try:
                value = run(attempt)
            except TrialError as fault:
                attempt.give_up(str(fault))
                raise
            if attempt.lost:
                raise TrialError("another process has taken it over")
            if attempt.pruned or value is None:
                raise optuna.TrialPruned
            return value

        self.study.sampler = self._sampler(root(waiting))
        with self._life(waiting.number):
            try:
                self.study.optimize(objective, n_trials=1, catch=(TrialError,))
            except ValueError:
                # What Optuna says of a trial that is over already.
                if not any(attempt.lost for attempt in attempts):
                    raise


def _storage(path: Path) -> "RDBStorage":
    from optuna.storages import RDBStorage

    return RDBStorage(
        sqlite_uri(path),
        engine_kwargs={"connect_args": {"timeout": _PATIENCE}},
        heartbeat_interval=_HEARTBEAT,
        grace_period=_GRACE,
    )


def _made(module: Any, key: str, said: Mapping[str, Any]) -> Any:
    """Return what `{Name: {argument: value}}` means of a module of Optuna's.

    Raises:
        HparamsError: If it can't be made.
    """
    [(name, options)] = said.items()
    cls = getattr(module, name)
    check_options(options, cls, f"sweep.{key}.{name}")
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise HparamsError(f"sweep.{key}.{name}: {error}") from None
