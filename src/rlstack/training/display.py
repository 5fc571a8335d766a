"""What a training run shows: a live line on a terminal or in a notebook, plain lines elsewhere."""

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, Protocol, Self, final

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..common.errors import told
from ..common.metrics import ENV, ENV_OWN, ENV_STEPS, ENV_TOTAL_STEPS, EPISODE_STATS, EPISODES
from ..common.types import Stats
from ..conditions import Condition

_log = logging.getLogger(__name__)

_SECONDS_PER_LINE = 2.0
"""Least time between two plain lines, s."""

_SECONDS_PER_CHANGE = 0.2
"""Least time between two changes of a notebook's line, s."""

_BAR, _AROUND = 20, 32
"""Cells of a live line's bar, and of that with spinner, time and the spaces between them."""

_LEAST, _ENOUGH = 12, 36
"""Cells that the name gets at least, and that the rest of the line gets if the name is longer."""


@final
class Screen:
    """Where a run says what happens. Once that can't be written any more, it says so and the run goes on.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._works, self._quiet = True, console.quiet

    def say(self, text: str) -> None:
        """Print a text as it is."""
        self.attempt(
            lambda: self.console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)
        )

    def attempt(self, action: Callable[[], object]) -> None:
        """Do something that writes."""
        if not self._works:
            return
        try:
            action()
            if self.console.quiet != self._quiet:
                # That is how rich goes on after a reader has gone away.
                raise BrokenPipeError("nobody reads it")
        # rich ends the process if a reader has gone away.
        except (Exception, SystemExit) as error:
            self._works = False
            why = "BrokenPipeError: nobody reads it" if isinstance(error, SystemExit) else told(error)
            _log.warning("there is no more display, training goes on: %s", why)
            if isinstance(error, OSError | SystemExit) and self.console.file is sys.stdout:
                _let_go(sys.stdout)


def _let_go(stream: IO[str]) -> None:
    """Let what is left in a stream go nowhere: Python would fail on it when it ends."""
    # Streams that have no descriptor are nobody's to read.
    with suppress(OSError):
        own, errors = stream.fileno(), sys.stderr.fileno()
        # Of a terminal that is gone, both.
        lost = {own, errors} if os.path.sameopenfile(own, errors) else {own}
        nothing = os.open(os.devnull, os.O_WRONLY)
        for descriptor in lost:
            os.dup2(nothing, descriptor)
        os.close(nothing)


def shown(
    updates: Iterable[Stats], name: str, stop: Condition, screen: Screen | None = None
) -> Iterator[Stats]:
    """Yield the statistics of updates, and show them.

    Args:
        updates: What happens.
        name: What is trained.
        stop: When it ends, of which a bar shows how near that is.
        screen: Where to; None is standard output, or the cell of a notebook.
    """
    with Display(screen or Screen(Console()), name) as display:
        for stats in updates:
            display.show(stats, stop.share(stats))
            yield stats


class _Display(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...

    def show(self, stats: Stats, share: float | None) -> None: ...


@final
class Display:
    """Shows how training goes: a live line if the screen is a terminal, else plain lines.

    Args:
        screen: Where to.
        name: What is trained.
    """

    def __init__(self, screen: Screen, name: str) -> None:
        self._screen = screen
        kind: type[_Cell | _Live | _Lines] = _Live if screen.console.is_terminal else _Lines
        kind = _Cell if screen.console.is_jupyter else kind
        self._display: _Display = kind(screen.console, name)

    def __enter__(self) -> Self:
        self._screen.attempt(self._display.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.attempt(self._display.stop)

    def show(self, stats: Stats, share: float | None) -> None:
        """Show the statistics of an update, and the share of the run that is done if that is known."""
        self._screen.attempt(lambda: self._display.show(stats, share))


@final
class _Live:
    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = _shortened(name, max(_LEAST, console.width - _AROUND - _ENOUGH))
        self._progress = Progress(
            SpinnerColumn("dots" if _can_write("\u2807", console) else "line"),
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=_BAR),
            TextColumn("{task.fields[text]}", markup=False),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task(self._name, total=None, text="")
        self._words = _Words(console)

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def show(self, stats: Stats, share: float | None) -> None:
        parts = self._words.parts(stats)
        room = self._console.width - cell_len(self._name) - _AROUND
        # What fits, the most telling first.
        kept: set[int] = set()
        for number in (3, 0, *range(5, len(parts)), 2, 1, 4):
            if sum(len(parts[n]) + 2 for n in {*kept, number}) - 2 <= room:
                kept.add(number)
        text = "  ".join(parts[n] for n in sorted(kept))
        total = None if share is None else 1.0
        self._progress.update(self._task, text=text, completed=share or 0.0, total=total)


@final
class _Lines:
    def __init__(self, console: Console, name: str) -> None:
        self._console, self._name = console, name
        self._words = _Words(console)
        self._start = self._last = time.monotonic()
        self._pending: str | None = None

    def start(self) -> None:
        pass

    def stop(self) -> None:
        if self._pending is not None:
            self._print(self._pending)

    def show(self, stats: Stats, share: float | None) -> None:
        now = time.monotonic()
        text = "  ".join(self._words.parts(stats))
        self._pending = f"{self._name}  {text}  {now - self._start:.0f} s"
        if now - self._last >= _SECONDS_PER_LINE:
            self._last = now
            self._print(self._pending)
            self._pending = None

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)


@final
class _Cell:
    """A line below a cell of a notebook, which changes."""

    def __init__(self, console: Console, name: str) -> None:
        self._name, self._words = name, _Words(console)
        self._start, self._last, self._text = time.monotonic(), -math.inf, ""
        self._handle: Any = None

    def start(self) -> None:
        # There is a notebook, so there is IPython.
        from IPython.display import display

        self._handle = display(  # type: ignore[no-untyped-call]
            {"text/plain": self._name}, raw=True, display_id=True
        )

    def stop(self) -> None:
        self._write()

    def show(self, stats: Stats, share: float | None) -> None:
        done = "" if share is None else f"  {share:.0%}"
        seconds = time.monotonic() - self._start
        self._text = f"{self._name}{done}  {'  '.join(self._words.parts(stats))}  {seconds:.0f} s"
        if seconds - self._last >= _SECONDS_PER_CHANGE:
            self._last = seconds
            self._write()

    def _write(self) -> None:
        self._handle.update({"text/plain": self._text or self._name}, raw=True)


class _Words:
    """Puts updates into words."""

    def __init__(self, console: Console) -> None:
        self._between = "±" if _can_write("±", console) else "+/-"
        self._last = time.monotonic()
        self._rate: float | None = None
        self._episodes = "no episode has ended"

    def parts(self, stats: Stats) -> list[str]:
        """Return what there is to show of an update, in the order in which it is shown."""
        own = [name for name in stats if name.startswith(ENV) and name not in ENV_OWN]
        return [
            f"update {stats['algorithm/steps']:.0f}",
            f"{stats[ENV_TOTAL_STEPS]:,.0f} steps",
            f"{self._take(stats[ENV_STEPS]):,.0f} steps/s",
            self._returns(stats),
            f"losses policy {stats['losses/policy']:.3g} vf {stats['losses/vf']:.3g}",
            *(f"{name.removeprefix(ENV)} {stats[name]:.4g}" for name in own if not math.isnan(stats[name])),
        ]

    def _returns(self, stats: Stats) -> str:
        """Return how large returns are: of the episodes that ended last, where there are any."""
        group = f"{EPISODES}/returns" if EPISODE_STATS[0] in stats else "returns"
        if f"{group}/mean" not in stats:
            return self._episodes
        said = f"{group} {stats[f'{group}/mean']:.4g} {self._between} {stats[f'{group}/std']:.3g}"
        if group != "returns":
            self._episodes = said
        return said

    def _take(self, env_steps: float) -> float:
        """Return the environment steps per second, smoothed over the last few updates."""
        now = time.monotonic()
        rate = env_steps / max(now - self._last, 1e-9)
        self._last = now
        self._rate = rate if self._rate is None else 0.7 * self._rate + 0.3 * rate
        return self._rate


def _shortened(name: str, room: int) -> str:
    """Return a name, of which the end tells most, in so many cells."""
    if cell_len(name) <= room:
        return name
    while cell_len(name) > room - 3:
        name = name[1:]
    return f"...{name}"


def _can_write(text: str, console: Console) -> bool:
    try:
        text.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
