"""Several runs in one picture, read from their journals."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from ..common.errors import RunDirError, StatisticError
from ..common.metrics import ENV_TOTAL_STEPS, EPISODE_STATS, EPISODES
from ..common.types import Stats
from ..common.validation import did_you_mean
from ..runs.saved_config import CONFIG, read_config
from ..tracking.journal import JOURNAL, read_rows
from .curves import Curve, plot_curves

Axis = Literal["steps", "updates", "seconds"]

AXES: dict[Axis, str] = {
    "steps": "environment steps",
    "updates": "updates",
    "seconds": "seconds of collecting and updating",
}
"""What curves may be drawn over."""

_MOST = 1000
"""Points of a curve; of more updates every second, or third, and so on, is drawn."""


def plot_runs(
    runs: Iterable[str | Path],
    path: str | Path,
    *,
    stats: Sequence[str] = (),
    x: Axis = "steps",
    title: str = "",
) -> dict[str, list[Path]]:
    """Draw statistics of runs into one picture; of runs that differ in their seeds alone, median and range.

    Args:
        runs: Run directories, or directories of them, such as `rlstack train --seeds` leaves.
        path: The picture: a PNG or SVG by its name.
        stats: Names of statistics, each in a panel of its own; none draws the mean return, that of episodes
            where all runs have some that ended.
        x: What to draw over.
        title: Above it.

    Returns:
        What was drawn: runs by the name that their curve has.

    Raises:
        RunDirError: If a directory is neither a run nor holds any, or a run hasn't made an update yet.
        StatisticError: If a run has no such statistic.
        ValueError: If the picture is to be of another kind.
        ImportError: If matplotlib isn't installed; it comes with the extra `viz`.
    """
    if Path(path).suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"the picture is {path}, expected a name that ends in .png or .svg")
    groups = _groups(_found(Path(run) for run in runs))
    rows = {run: _rows(run) for members in groups.values() for run in members}
    if not stats:
        ended = all(any(EPISODE_STATS[0] in row for row in history) for history in rows.values())
        stats = [f"{EPISODES}/returns/mean" if ended else "returns/mean"]
    panels = {
        stat: {name: [_curve(run, rows[run], stat, x) for run in members] for name, members in groups.items()}
        for stat in stats
    }
    plot_curves(panels, AXES[x], title, Path(path))
    return groups


def _found(paths: Iterable[Path]) -> list[Path]:
    """Return the runs that are meant, each once."""
    found = dict[Path, Path]()
    for path in paths:
        inside = sorted(each.parent for each in path.glob(f"*/{JOURNAL}"))
        runs = [path] if (path / JOURNAL).is_file() else inside
        if not runs:
            raise RunDirError(f"{path} is no run: neither it nor a directory in it has a {JOURNAL}")
        for run in runs:
            found.setdefault(run.resolve(), run)
    return [*found.values()]


def _groups(runs: Sequence[Path]) -> dict[str, list[Path]]:
    """Return runs by names: those that differ in nothing but their seed have one together."""
    alike = dict[str, list[Path]]()
    for run in runs:
        alike.setdefault(_made_with(run), []).append(run)
    groups = dict[str, list[Path]]()
    for members in alike.values():
        parents = {run.resolve().parent for run in members}
        together = len(members) > 1 and len(parents) == 1 and len(runs) > len(members)
        name = (parents.pop() if together else members[0].resolve()).name
        groups[name if name not in groups else str(members[0])] = members
    return groups


def _made_with(run: Path) -> str:
    """Return what a run is made with, but for its seed, as a text; without a configuration, which it is."""
    if not (run / CONFIG).is_file():
        return str(run.resolve())
    said = read_config(run)
    config: dict[str, Any] = {key: said[key] for key in ("env", "algorithm", "algorithm_config")}
    config["algorithm_config"] = {**config["algorithm_config"], "seed": None}
    return json.dumps(config, sort_keys=True, default=str)


def _rows(run: Path) -> list[Stats]:
    rows = [row.metrics for row in read_rows(run / JOURNAL)]
    if not rows:
        raise RunDirError(f"{run} has not made an update yet: there is nothing to draw")
    return rows


def _curve(run: Path, rows: Sequence[Stats], stat: str, x: Axis) -> Curve:
    """Return where and how large a statistic was, where it was a number."""
    points, seconds = [], 0.0
    for row in rows:
        seconds += (row.get("profiling/collect_ms", 0.0) + row.get("profiling/step_ms", 0.0)) / 1000
        at = {"steps": row[ENV_TOTAL_STEPS], "updates": row["algorithm/steps"], "seconds": seconds}[x]
        value = row.get(stat, math.nan)
        if not math.isnan(value):
            points.append((at, value))
    if not points:
        known = dict.fromkeys(key for row in rows for key in row)
        raise StatisticError(f"{run} has no statistic {stat}{did_you_mean(stat, known)}")
    every = -(-len(points) // _MOST)
    # The last one is among them.
    return points[::-1][::every][::-1]
