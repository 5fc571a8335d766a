"""Pictures of a sweep: what mattered, and which values were good."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .figures import save


def plot_importances(shares: Mapping[str, float], title: str, path: Path) -> None:
    """Draw how much each hyperparameter mattered into a PNG file.

    Args:
        shares: Shares of 1 by name, most first.
        title: Above it.
        path: The file.

    Raises:
        ImportError: If matplotlib isn't installed; it comes with the extra `viz`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.2 + 0.35 * len(shares)), layout="constrained")
    axes = figure.subplots()
    names = [*shares][::-1]
    bars = axes.barh(names, [shares[name] for name in names])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0, 1.1)
    axes.set_xlabel("share of the importance")
    save(figure, title, path)


def plot_slices(
    points: Mapping[str, Sequence[tuple[Any, float, bool]]],
    logarithmic: Sequence[str],
    metric: str,
    title: str,
    path: Path,
) -> None:
    """Draw the trials' values over each hyperparameter into a PNG file.

    Args:
        points: By name, what was tried, how good it was, and whether it was trained to the end.
        logarithmic: Names of those that are drawn on a logarithmic axis.
        metric: What the values are of.
        title: Above it.
        path: The file.

    Raises:
        ImportError: If matplotlib isn't installed; it comes with the extra `viz`.
    """
    from matplotlib.figure import Figure

    columns = min(len(points), 4)
    lines = math.ceil(len(points) / columns)
    figure = Figure(figsize=(3.2 * columns, 0.6 + 2.8 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(points) :]:
        axes.set_visible(False)
    for axes, (name, tried) in zip(grid.flat, points.items(), strict=False):
        is_number = all(isinstance(at, int | float) and not isinstance(at, bool) for at, *_ in tried)
        for ended, label, marker in ((True, "complete", "o"), (False, "pruned", "x")):
            drawn = [(at if is_number else str(at), value) for at, value, end in tried if end == ended]
            if drawn:
                axes.scatter(*zip(*drawn, strict=True), label=label, marker=marker, alpha=0.8)
        if name in logarithmic:
            axes.set_xscale("log")
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    grid[0, 0].set_ylabel(metric)
    grid[0, 0].legend(fontsize="small")
    save(figure, title, path)
