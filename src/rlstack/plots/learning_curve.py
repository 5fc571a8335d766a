"""The learning curve of a run."""

import math
from collections.abc import Sequence
from pathlib import Path

from ..common.metrics import ENV_TOTAL_STEPS, EPISODE_STATS, EPISODES
from ..common.types import Stats
from .figures import save


def plot_learning_curve(history: Sequence[Stats], title: str, path: Path) -> None:
    """Draw returns, losses and monitors over environment steps into a PNG file.

    Where episodes end, the returns are theirs.

    Raises:
        ImportError: If matplotlib isn't installed; it comes with the extra `viz`.
    """
    from matplotlib.figure import Figure

    def column(key: str) -> list[float]:
        return [stats.get(key, math.nan) for stats in history]

    steps = column(ENV_TOTAL_STEPS)
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    returns, losses, monitors = figure.subplots(1, 3)
    ends = any(EPISODE_STATS[0] in stats for stats in history)
    group = f"{EPISODES}/returns" if ends else "returns"
    columns = zip(steps, column(f"{group}/mean"), column(f"{group}/std"), strict=True)
    # Without the updates in which no episode ended: a curve has no gaps.
    drawn = [(at, mean, mean - spread, mean + spread) for at, mean, spread in columns if not math.isnan(mean)]
    at, mean, low, high = zip(*drawn, strict=True) if drawn else ((), (), (), ())
    returns.fill_between(at, low, high, alpha=0.2, label="± std")
    returns.plot(at, mean, label="mean")
    returns.set_title(f"returns (sum of rewards over {'an episode' if ends else 'a horizon'})")
    for key in ("losses/policy", "losses/vf"):
        losses.plot(steps, column(key), label=key)
    losses.set_yscale("symlog", linthresh=1e-3)
    losses.set_title("losses")
    for key in ("losses/entropy", "monitors/explained_variance"):
        monitors.plot(steps, column(key), label=key)
    monitors.set_title("monitors")
    for axes in (returns, losses, monitors):
        axes.set_xlabel("environment steps")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    save(figure, title, path)
