"""What came of a sweep: its trials, best first, and what mattered."""

import csv
import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, final

from ..common.atomic_files import write_file
from ..common.nested import unflatten
from .attempt import FAULT, SEED, root
from .options import Choices, SweepConfig
from .study import Sweep

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

TABLE = "trials.csv"

_ENDS = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial of a sweep, all attempts at it taken together."""

    trial: int
    state: str
    """`complete`, `pruned`, `failed`, `interrupted`, `running` or `waiting`."""
    value: float | None
    """Mean over its seeds; of a pruned one that of the last part before."""
    seeds: dict[int, float]
    """Values of the seeds that were trained to the end."""
    params: dict[str, Any]
    """What was tried, by dotted name."""
    fault: str
    """Why it failed."""
    attempts: int

    @property
    def values(self) -> dict[str, Any]:
        """What was tried, nested as hyperparameters are set."""
        return unflatten(self.params)


def rows(sweep: Sweep) -> list[Row]:
    """Return the trials: complete ones first, the best of them before all, then those that were pruned."""
    attempts: dict[int, list[FrozenTrial]] = {}
    for trial in sweep.trials():
        attempts.setdefault(root(trial), []).append(trial)
    sign = -1 if sweep.config.direction == "maximize" else 1
    found = [_row(number, each, sweep.config) for number, each in attempts.items()]

    def place(row: Row) -> tuple[int, float, int]:
        order = ["complete", "pruned"]
        where = order.index(row.state) if row.state in order else len(order)
        return where, math.inf if row.value is None else sign * row.value, row.trial

    return sorted(found, key=place)


def row_of(sweep: Sweep, trial: int) -> Row:
    """Return one trial."""
    return _row(trial, [each for each in sweep.trials() if root(each) == trial], sweep.config)


def _row(number: int, attempts: "Sequence[FrozenTrial]", config: SweepConfig) -> Row:
    last, search = attempts[-1], config.dimensions()
    labels = {name: of.labels for name, of in search.items() if isinstance(of, Choices)}
    fault = last.user_attrs.get(FAULT, "")
    return Row(
        trial=number,
        state="interrupted" if last.state.name == "FAIL" and not fault else _ENDS[last.state.name],
        value=last.value,
        seeds={
            int(key.removeprefix(SEED)): value
            for key, value in last.user_attrs.items()
            if key.startswith(SEED)
        },
        params={
            name: labels[name][last.params[name]] if name in labels else last.params[name]
            for name in search
            if name in last.params
        },
        fault=fault,
        attempts=len(attempts),
    )


def write_table(found: Sequence[Row], config: SweepConfig, path: Path) -> None:
    """Write the trials as comma-separated values, a column for each seed and each hyperparameter.

    Raises:
        OSError: If that can't be.
    """
    text = io.StringIO()
    names = [*config.dimensions()]
    seeds = [f"seed {seed}" for seed in config.seeds]
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["trial", "state", config.metric, *seeds, *names, "attempts", "fault"])
    for row in found:
        values = [row.seeds.get(seed, "") for seed in config.seeds]
        params = [row.params.get(name, "") for name in names]
        value = "" if row.value is None else row.value
        table.writerow([row.trial, row.state, value, *values, *params, row.attempts, row.fault])
    write_file(path, text.getvalue().encode())


def importances(sweep: Sweep) -> dict[str, float]:
    """Return how much each hyperparameter mattered, by dotted name: shares of 1, most first.

    By PED-ANOVA (Watanabe et al. 2023), over the trials that are complete; empty where those say nothing.
    """
    import optuna

    values = {row.value for row in rows(sweep) if row.state == "complete"}
    if len(values) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(sweep.study)


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation over seeds, of a sample; NaN of less than two."""
    if len(values) < 2:
        return math.nan
    mean = fmean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
