"""The learning curves of one training with many seeds."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from .figures import save

_POINTS = 200
"""Of the median's curve."""


def plot_seeds(
    curves: Mapping[int, Sequence[tuple[float, float]]], label: str, title: str, path: Path
) -> None:
    """Draw a curve for each seed, and their median, into a PNG file.

    Args:
        curves: By seed, environment steps and values, in order of the steps.
        label: What the values are.
        title: Above it.
        path: The file.

    Raises:
        ImportError: If matplotlib isn't installed; it comes with the extra `viz`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for seed, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), alpha=0.4, linewidth=1, label=f"seed {seed}")
    axes.plot(*zip(*median_curve([*curves.values()]), strict=True), color="black", label="median")
    axes.set_xlabel("environment steps")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=1 + len(curves) // 12)
    save(figure, title, path)


def median_curve(curves: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Return the median of curves, from where all have begun to where the last one ends.

    A curve that has ended goes on as it ended: a run that is solved would be no worse.

    Args:
        curves: Environment steps and values of each, in order of the steps.
    """
    start = max(curve[0][0] for curve in curves)
    end = max(curve[-1][0] for curve in curves)
    steps = [[at for at, _ in curve] for curve in curves]
    points = []
    for number in range(_POINTS):
        at = start + (end - start) * number / (_POINTS - 1)
        values = [curve[bisect_right(x, at) - 1][1] for curve, x in zip(curves, steps, strict=True)]
        points.append((at, median(values)))
    return points
