"""Tables and pictures of the suites' runs: in `docs/results.md` in full, in the README in short."""

import re
from pathlib import Path
from typing import Any

import numpy as np

import suites
from suites import Task

ROOT = Path(__file__).parents[1]

_PLANNED = 3
"""Seeds of each task."""


def put(text: str, name: str, lines: list[str]) -> str:
    """Return a page with these lines between `<!-- name -->` and `<!-- end name -->`.

    Raises:
        ValueError: If the page has no such place.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"there is no {begin.strip()} with an {end} after it: write both into the page")
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: "\n".join([begin.rstrip(), *lines, end]), text, count=1, flags=re.S)


def number(value: float) -> str:
    """Return a return as tables have it."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}"


def score(runs: list[dict[str, Any]]) -> str:
    """Return the mean over seeds of the runs' scores, and their range."""
    if not runs:
        return "not run yet"
    means = [run["mean"] for run in runs]
    if len(means) == 1:
        return f"{number(means[0])} (1 seed)"
    seeds = f"{len(means)} seeds"
    return f"{number(float(np.mean(means)))} ({number(min(means))} to {number(max(means))}, {seeds})"


def verdict(task: Task, runs: list[dict[str, Any]]) -> str:
    """Return whether the mean over seeds is what was to be reached; by fewer seeds nothing is decided."""
    if not runs:
        return "–"
    reached = "yes" if np.mean([run["mean"] for run in runs]) >= task.target else "no"
    return reached if len(runs) >= _PLANNED else f"{reached}, so far"


def row(*cells: str) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def short_table(found: list[dict[str, Any]]) -> list[str]:
    """Return a row for each task that has been run."""
    lines = [row("task", "transitions", "rlstack", "published", "to reach", "reached"), "|---" * 6 + "|"]
    for task, runs in _by_task(found):
        if runs:
            to_reach, reached = f"≥ {number(task.target)}", verdict(task, runs)
            lines.append(
                row(task.name, f"{task.env_steps:,}", score(runs), task.published, to_reach, reached)
            )
    return lines


def full_table(suite: str, found: list[dict[str, Any]]) -> list[str]:
    """Return a row for each task of a suite with what it is beside, and one for each of its runs."""
    lines = [row("task", "rlstack", "published", "to reach", "reached"), "|---" * 5 + "|"]
    for task in suites.SUITES[suite]:
        runs = _runs(task, found)
        to_reach, reached = f"≥ {number(task.target)}", verdict(task, runs)
        lines.append(row(task.name, score(runs), task.published, to_reach, reached))
    head = row("command", "transitions", "return", "worst episode", "wall time", "measured")
    lines += ["", head, "|---" * 6 + "|"]
    for task in suites.SUITES[suite]:
        for run in _runs(task, found):
            mean = f"{number(run['mean'])} ± {number(run['std'])} in {run['episodes']}"
            measured = [run["date"], *(f"{package} {which}" for package, which in run["versions"].items())]
            seconds, worst = f"{run['seconds']:,.0f} s", number(run["worst"])
            steps = f"{run['env_steps']:,}"
            lines.append(row(f"`{run['command']}`", steps, mean, worst, seconds, ", ".join(measured)))
    return lines


def draw(suite: str, found: list[dict[str, Any]], path: Path) -> None:
    """Draw the learning curves of a suite's tasks: median and range over seeds."""
    from matplotlib.figure import Figure

    tasks = [(task, runs) for task in suites.SUITES[suite] if (runs := _runs(task, found))]
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    for place, (task, runs) in enumerate(tasks, 1):
        axes = figure.add_subplot(rows, columns, place)
        curves = [np.array(run["curve"]).T for run in runs]
        begin, end = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
        steps = np.linspace(begin, end, 100)
        returns = np.stack([np.interp(steps, *curve) for curve in curves])
        axes.fill_between(steps, returns.min(0), returns.max(0), alpha=0.2)
        axes.plot(steps, np.median(returns, 0))
        axes.set_title(f"{task.name} ({len(runs)} seed{'s' if len(runs) > 1 else ''})", fontsize="medium")
        axes.set_xlabel("transitions")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def write() -> None:
    """Write what is known of the runs into `docs/results.md`, its pictures, and the README."""
    found = suites.records()
    page, readme = ROOT / "docs" / "results.md", ROOT / "README.md"
    text = page.read_text()
    for suite in suites.SUITES:
        text = put(text, suite, full_table(suite, found))
        if any(_runs(task, found) for task in suites.SUITES[suite]):
            draw(suite, found, ROOT / "docs" / f"results_{suite}.png")
    page.write_text(text)
    readme.write_text(put(readme.read_text(), "results", short_table(found)))


def _by_task(found: list[dict[str, Any]]) -> list[tuple[Task, list[dict[str, Any]]]]:
    return [(task, _runs(task, found)) for tasks in suites.SUITES.values() for task in tasks]


def _runs(task: Task, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of a task, by seed."""
    return sorted((each for each in found if each["task"] == task.name), key=lambda run: int(run["seed"]))
