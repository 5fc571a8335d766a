"""One trial of a sweep: a run for each seed, with a report after each part of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol, final

from ..common.errors import (
    CheckpointError,
    ConfigError,
    RunDirError,
    StatisticError,
    StoppedError,
    TrialError,
    told,
)
from ..common.metrics import ENV_TOTAL_STEPS
from ..common.types import Stats
from ..conditions import Condition, HitsUpperBound, statistic
from ..tracking.journal import JOURNAL, read_rows
from .attempt import Attempt
from .options import SweepConfig


class Train(Protocol):
    """Begins or goes on with the run in a directory, trains until a condition holds, and closes it.

    Args:
        values: Hyperparameters, the seed among them, that differ from those of the sweep.
        run_dir: The run's directory.
        stop_conditions: When to stop.

    Returns:
        Whether it was interrupted.
    """

    def __call__(  # noqa: D102
        self, values: Mapping[str, Any], run_dir: Path, stop_conditions: Sequence[Condition]
    ) -> bool: ...


def run_dir_of(directory: Path, trial: int, seed: int) -> Path:
    """Return where a sweep's trial is trained with a seed."""
    return directory / f"trial-{trial}-seed-{seed}"


def run_trial(attempt: Attempt, config: SweepConfig, directory: Path, train: Train) -> float | None:
    """Train once with each seed; return the mean of their values, None if it was stopped before the end.

    Seeds that attempts before have trained to the end aren't trained again.

    Args:
        attempt: What is tried.
        config: How long, and by which measure.
        directory: Of the sweep.
        train: Trains a run.

    Raises:
        TrialError: If training fails for what has to do with the trial.
        StoppedError: If training was interrupted.
        ConfigError: If there is no such statistic.
        RunDirError, CheckpointError, OSError: If the run can't be begun, gone on with or written.
    """
    for number, seed in enumerate(config.seeds):
        if str(seed) in attempt.seeds:
            continue
        run_dir = run_dir_of(directory, attempt.number, seed)
        reports = Reports(config, run_dir / JOURNAL, attempt.report, first=number * config.reports)
        over = HitsUpperBound(*config.budget)
        try:
            interrupted = train({**attempt.values, "seed": seed}, run_dir, [reports, over])
        except StatisticError as error:
            # No other trial has it either.
            raise ConfigError(str(error)) from error
        except (OSError, RunDirError, CheckpointError):
            raise
        except Exception as error:
            raise TrialError(told(error)) from error
        if attempt.pruned or attempt.lost:
            return None
        if interrupted:
            raise StoppedError
        if reports.value is None:
            raise TrialError(f"{config.metric} was there after no update")
        attempt.keep(seed, reports.value)
    return fmean(attempt.seeds.values())


@final
class Reports(Condition):
    """Holds when a trial is to be stopped; reports the mean of a statistic over each part of a run.

    A run that is gone on with has been through some parts: they are read from its journal.

    Args:
        config: Which statistic, and how long a run and its parts are.
        journal: Of the run.
        report: Is told the number of a part and its value; returns whether to stop.
        first: Number of the run's first part.
    """

    def __init__(
        self, config: SweepConfig, journal: Path, report: Callable[[int, float], bool], *, first: int
    ) -> None:
        self._config, self._journal, self._report, self._first = config, journal, report, first
        self._forget()

    @property
    def value(self) -> float | None:
        """Of the last part, of what there is of it if the run has ended early; None if there is nothing."""
        return fmean(self._values) if self._values else self._last

    def _forget(self) -> None:
        self._last: float | None = None
        self._values, self._parts = list[float](), 0
        self._env_steps, self._stops = -math.inf, False

    def reset(self) -> None:
        """Forget everything but what is in the run's journal."""
        self._forget()
        if self._journal.exists():
            for row in read_rows(self._journal):
                self._take(row.metrics)

    def __call__(self, stats: Stats) -> bool:
        """Return whether to stop now."""
        self._take(stats)
        return self._stops

    def _take(self, stats: Stats) -> None:
        if stats[ENV_TOTAL_STEPS] <= self._env_steps:
            # A run that goes on shows its last update again.
            return
        self._env_steps = stats[ENV_TOTAL_STEPS]
        value = statistic(stats, self._config.metric)
        if value is not None:
            self._values.append(value)
        measure, end = self._config.budget
        parts = min(int(self._config.reports * stats[measure] / end), self._config.reports)
        if parts > self._parts:
            self._parts = parts
            if self._values:
                self._last, self._values = fmean(self._values), []
                self._stops = self._report(self._first + parts - 1, self._last)
