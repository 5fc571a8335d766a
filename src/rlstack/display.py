"""What a training run shows: a live line on a terminal, plain lines elsewhere, a picture at the end."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .data import ENV_STEPS, ENV_TOTAL_STEPS, Stats

_SECONDS_PER_LINE = 2.0
"""Least time between two plain lines, s."""


class Display(Protocol):
    """Shows how training goes."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""

    def show(self, stats: Stats, share: float | None) -> None:
        """Show the statistics of an update, and the share of the run that is done if that is known."""


def make_display(console: Console, name: str) -> Display:
    """Return a live display if the console is a terminal, else one of plain lines."""
    return _Live(console, name) if console.is_terminal else _Lines(console, name)


@final
class _Live:
    def __init__(self, console: Console, name: str) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task(name, total=None, text="")
        self._rate = _Rate()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, stats: Stats, share: float | None) -> None:
        text = _text(stats, self._rate.take(stats[ENV_STEPS]))
        total = None if share is None else 1.0
        self._progress.update(self._task, text=text, completed=share or 0.0, total=total)


@final
class _Lines:
    def __init__(self, console: Console, name: str) -> None:
        self._console, self._name = console, name
        self._rate = _Rate()
        self._start = self._last = time.monotonic()
        self._pending: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pending is not None:
            self._print(self._pending)

    def show(self, stats: Stats, share: float | None) -> None:
        now = time.monotonic()
        self._pending = (
            f"{self._name}  {_text(stats, self._rate.take(stats[ENV_STEPS]))}  {now - self._start:.0f} s"
        )
        if now - self._last >= _SECONDS_PER_LINE:
            self._last = now
            self._print(self._pending)
            self._pending = None

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)


class _Rate:
    """Environment steps per second, smoothed over the last few updates."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._rate: float | None = None

    def take(self, env_steps: float) -> float:
        now = time.monotonic()
        rate = env_steps / max(now - self._last, 1e-9)
        self._last = now
        self._rate = rate if self._rate is None else 0.7 * self._rate + 0.3 * rate
        return self._rate


def _text(stats: Stats, rate: float) -> str:
    return (
        f"update {stats['algorithm/steps']:.0f}  {stats[ENV_TOTAL_STEPS]:,.0f} steps  {rate:,.0f} steps/s  "
        f"returns {stats['returns/mean']:.4g} ± {stats['returns/std']:.3g}  "
        f"losses policy {stats['losses/policy']:.3g} vf {stats['losses/vf']:.3g}"
    )


def plot_learning_curve(history: Sequence[Stats], title: str, path: Path) -> None:
    """Draw returns, losses and monitors over environment steps into a PNG file.

    Raises:
        ImportError: If matplotlib isn't installed; it comes with the extra `viz`.
    """
    from matplotlib.figure import Figure

    def column(key: str) -> list[float]:
        return [stats.get(key, math.nan) for stats in history]

    steps = column(ENV_TOTAL_STEPS)
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    returns, losses, monitors = figure.subplots(1, 3)
    mean, spread = column("returns/mean"), column("returns/std")
    low, high = zip(*((m - s, m + s) for m, s in zip(mean, spread, strict=True)), strict=True)
    returns.fill_between(steps, low, high, alpha=0.2, label="± std")
    returns.plot(steps, mean, label="mean")
    returns.set_title("returns (sum of rewards over a horizon)")
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
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
