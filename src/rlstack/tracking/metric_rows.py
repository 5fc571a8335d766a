"""The metrics of updates, row by row, and rows that wait in memory."""

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, final

from ..common.metrics import ENV_TOTAL_STEPS
from ..common.types import Stats

_MOST: Final = 4096
"""Rows that may wait; beyond that every other one is dropped, and of those to come as well."""


class MetricRow(NamedTuple):
    """The metrics of one update."""

    time: int
    """When, ms since 1970."""
    step: int
    """Environment steps so far."""
    metrics: Stats

    @classmethod
    def now(cls, stats: Stats) -> "MetricRow":
        """Return the row of an update that has just been made."""
        return cls(time.time_ns() // 1_000_000, int(stats[ENV_TOTAL_STEPS]), dict(stats))


@final
class MetricQueue:
    """Rows in memory, thinned evenly when too many wait; the last one always stays.

    Args:
        most: How many may wait.
    """

    thinned = False
    """Whether any has been dropped."""

    def __init__(self, most: int = _MOST) -> None:
        self._most, self._rows, self._lock = most, list[MetricRow](), threading.Lock()
        self._count, self._stride = 0, 1
        self._passed_over: MetricRow | None = None
        self._upto = -1
        """Environment steps up to which every row counts as sent."""
        self._taken: list[MetricRow] = []

    def __len__(self) -> int:
        return len(self._rows) + (self._passed_over is not None)

    def append(self, row: MetricRow) -> None:
        """Take a row in."""
        with self._lock:
            if row.step <= self._upto:
                return
            self._count += 1
            kept = self._count % self._stride == 0
            self._passed_over = None if kept else row
            if kept:
                self._rows.append(row)
            if len(self._rows) > self._most:
                del self._rows[::2]
                self._stride, self.thinned = 2 * self._stride, True

    def peek(self, most: int, *, everything: bool = True) -> list[MetricRow]:
        """Return the first rows; they stay until `done`.

        Args:
            most: How many metrics at most, of one row at least.
            everything: Whether the last row counts even if it was passed over.
        """
        with self._lock:
            if everything and self._passed_over is not None:
                self._rows.append(self._passed_over)
                self._passed_over = None
            self._taken = list(_first(self._rows, most))
            return list(self._taken)

    def done(self) -> None:
        """Drop the rows that `peek` returned last."""
        with self._lock:
            # Thinning may have removed some of them meanwhile; the rest are still there.
            taken = set(map(id, self._taken))
            self._rows = [row for row in self._rows if id(row) not in taken]
            if len(self._rows) < self._most // 8:
                self._stride = 1

    def skip(self, step: int) -> None:
        """Drop the rows up to so many environment steps, those to come as well."""
        with self._lock:
            self._upto = max(self._upto, step)
            self._rows = [row for row in self._rows if row.step > step]

    def rewind(self) -> None:
        """Let rows of any step be sent; what has been sent isn't here any more."""
        self._upto = -1


def _first(rows: Iterable[MetricRow], most: int) -> Iterator[MetricRow]:
    """Yield the first rows, of together so many metrics at most, but one row at least."""
    total = 0
    for row in rows:
        total += len(row.metrics)
        if total > most and total > len(row.metrics):
            return
        yield row
