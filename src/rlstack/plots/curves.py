"""Curves of several trainings in one picture."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from .figures import save

Curve = Sequence[tuple[float, float]]
"""Points, in order of the first numbers."""

_POINTS = 200
"""Of a band."""


def plot_curves(
    panels: Mapping[str, Mapping[str, Sequence[Curve]]], x_label: str, title: str, path: Path
) -> None:
    """Draw curves beside each other; of several under one name the median, and their range as an area.

    Args:
        panels: By what is drawn and by name, the curves of one training with several seeds.
        x_label: What the first numbers are.
        title: Above it.
        path: The file, a PNG or SVG by its name.

    Raises:
        ImportError: If matplotlib isn't installed; it comes with the extra `viz`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7 if len(panels) == 1 else 5 * len(panels), 4), layout="constrained")
    drawn = zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True)
    for axes, (what, groups) in drawn:
        for name, curves in groups.items():
            if len(curves) == 1:
                axes.plot(*zip(*curves[0], strict=True), label=name)
                continue
            at, low, middle, high = zip(*band(curves), strict=True)
            [line] = axes.plot(at, middle, label=f"{name}: median and range of {len(curves)}")
            axes.fill_between(at, low, high, alpha=0.2, color=line.get_color())
        axes.set_xlabel(x_label)
        axes.set_ylabel(what)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    save(figure, title, path)


def band(curves: Sequence[Curve]) -> list[tuple[float, float, float, float]]:
    """Return the least, middle and largest of curves, from where all have begun to where the last one ends.

    A curve that has ended goes on as it ended: a run that is solved would be no worse.

    Returns:
        Where, the minimum, the median and the maximum there.
    """
    start = max(curve[0][0] for curve in curves)
    end = max(curve[-1][0] for curve in curves)
    xs = [[at for at, _ in curve] for curve in curves]
    points = []
    for number in range(_POINTS):
        at = start + (end - start) * number / (_POINTS - 1)
        values = [curve[bisect_right(x, at) - 1][1] for curve, x in zip(curves, xs, strict=True)]
        points.append((at, min(values), median(values), max(values)))
    return points
