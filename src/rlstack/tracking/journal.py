"""A run's metrics on disk: a line of JSON for each update, written before anything is sent anywhere.

    {"time": 1767225600000, "step": 4096, "metrics": {"returns/mean": 1.5, "losses/total": null}, "crc": …}

`time` is in milliseconds since 1970, `step` the environment steps so far; null is NaN or infinite; `crc` is
the CRC-32 of the line without it. A damaged line costs its own row and no other. Lines without a `crc`, which
earlier versions wrote, must have the same steps in their metrics.
"""

import json
import logging
import math
import os
import re
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, final

from ..common.metrics import ENV_TOTAL_STEPS
from .metric_rows import MetricQueue, MetricRow

JOURNAL: Final = "metrics.jsonl"
"""Its name in a run directory."""

_HEAD = re.compile(rb'\A\{"time": (\d{1,18}), "step": (\d{1,18}), "metrics": \{')

_TAIL = re.compile(rb', "crc": "([0-9a-f]{8})"\}\n?\Z')

_JOINED = re.compile(rb'(?<=\}).?(?=\{"time": )', re.S)
"""What is left of the end of a line, if that is damaged."""

_LONGEST_LINE: Final = 2**20
"""Bytes; more is no row."""

_MOST_AT_ONCE: Final = 4096
"""Metrics that are written at once."""

_MOST_WAITING: Final = 100_000
"""Rows that may wait in memory for a file that can't be written."""

_log = logging.getLogger(__name__)


class _Cursor(NamedTuple):
    """How far a file has been read."""

    lines: int = 0
    offset: int = 0
    """Bytes of these lines."""
    upto: int = -1
    """Environment steps up to which every row, to come or not, counts as read."""

    def after(self, length: int, rows: list[MetricRow]) -> "_Cursor":
        """Return how far it is after one more line, of so many bytes, with these rows."""
        return _Cursor(self.lines + 1, self.offset + length, max([self.upto, *(row.step for row in rows)]))


@final
class Journal:
    """Rows in a file, appended by the trainer and read again by what sends them.

    A row that can't be written waits in memory, and is written with a later one.

    Args:
        path: The file; what a killed process left half written at its end is cut off.

    Raises:
        OSError: If it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        path.touch()
        self._size, self._count = _complete(path)
        os.truncate(path, self._size)
        self._unwritten = MetricQueue(_MOST_WAITING)
        self._failed = False
        self._sent, self._peeked = _Cursor(), _Cursor()
        """How far rows have been sent, and how far they will have been."""
        self._damage_is_said = False

    def __len__(self) -> int:
        """Return how many rows haven't been sent."""
        return self._count + len(self._unwritten) - self._sent.lines

    @property
    def thinned(self) -> bool:
        """Whether a row has been dropped: only where for very long none could be written."""
        return self._unwritten.thinned

    def append(self, row: MetricRow) -> None:
        """Write a row; if that can't be, it waits."""
        with self._lock:
            self._unwritten.append(row)
            self._write()

    def _write(self, *, everything: bool = False) -> None:
        """Write the rows that wait, in their order."""
        while rows := self._unwritten.peek(_MOST_AT_ONCE, everything=everything):
            data = b"".join(map(_line, rows))
            try:
                if self._failed:
                    os.truncate(self.path, self._size)
                if self._put(data) != len(data):
                    raise OSError("there is no space left for a whole row")
            except OSError as error:
                if not self._failed:
                    _log.warning("%s can't be written, rows wait in memory: %s", self.path, error)
                self._failed = True
                return
            self._unwritten.done()
            self._size, self._count, self._failed = self._size + len(data), self._count + len(rows), False

    def _put(self, data: bytes) -> int:
        """Append bytes; return how many of them there was space for."""
        with self.path.open("ab", buffering=0) as file:
            return file.write(data)

    def sync(self) -> None:
        """Make sure that what has been written survives a crash.

        Raises:
            OSError: If that can't be.
        """
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        """Write what waits, if that can be."""
        with self._lock:
            self._write(everything=True)
            if waiting := len(self._unwritten):
                _log.warning("%d updates are not in %s: it can't be written", waiting, self.path)

    def cut(self, step: int) -> None:
        """Remove the rows after so many environment steps: a run goes on from there."""
        with self._lock:
            size = count = offset = 0
            damaged: list[int] = []
            for number, (line, length) in enumerate(_lines(self.path, 0, self._size), 1):
                offset += length
                damaged += [number] if _is_damaged(line) else []
                if any(found <= step for found in map(_step, _parts(line)) if found is not None):
                    size, count = offset, number
            os.truncate(self.path, size)
            self._size, self._count = size, count
            self._sent = self._peeked = _Cursor(upto=self._sent.upto)
            self._say_damaged([number for number in damaged if number <= count])

    def peek(self, most: int, *, everything: bool = True) -> list[MetricRow]:
        """Return the first rows that haven't been sent; they count as sent after `done`.

        Args:
            most: How many metrics at most, of one row at least.
            everything: Of no importance here: none is passed over.
        """
        with self._lock:
            size = self._size
        rows: list[MetricRow] = []
        metrics, upto, cursor = 0, self._sent.upto, self._sent
        for line, length in _lines(self.path, cursor.offset, size):
            if not self._damage_is_said and _is_damaged(line):
                every_line = enumerate(_lines(self.path, 0, size), 1)
                self._say_damaged([number for number, (other, _) in every_line if _is_damaged(other)])
            found = [row for row in _rows(line) if row.step > upto]
            metrics += sum(len(row.metrics) for row in found)
            if rows and metrics > most:
                break
            rows += found
            cursor = cursor.after(length, found)
            if not rows:
                # Nothing before it is left to send.
                self._sent = cursor
        self._peeked = cursor
        return rows

    def done(self) -> None:
        """Let the rows that `peek` returned last count as sent."""
        self._sent = self._peeked

    def skip(self, step: int) -> None:
        """Let the rows up to so many environment steps count as sent, those to come as well."""
        self._sent = self._sent._replace(upto=max(self._sent.upto, step))

    def rewind(self) -> None:
        """Let no row count as sent."""
        self._sent = self._peeked = _Cursor()

    def _say_damaged(self, numbers: list[int]) -> None:
        """Say once which lines are damaged."""
        if numbers and not self._damage_is_said:
            _say_damaged(self.path, numbers)
            self._damage_is_said = True


def read_rows(path: Path, *, most: int | None = None) -> Iterator[MetricRow]:
    """Yield the rows of a journal; damaged lines are left out, and said in the end.

    Args:
        path: The file.
        most: How many at most, taken evenly; the last one is among them. None is all of them.

    Raises:
        OSError: If it can't be read.
    """
    size, count = _complete(path)
    every = 1 if most is None else max(1, -(-count // most))
    damaged: list[int] = []
    for number, (line, _) in enumerate(_lines(path, 0, size), 1):
        if (count - number) % every == 0:
            damaged += [number] if _is_damaged(line) else []
            yield from _rows(line)
    if damaged:
        _say_damaged(path, damaged)


def _say_damaged(path: Path, numbers: list[int]) -> None:
    _log.warning("%s: %d damaged rows are left out, the first in line %d", path, len(numbers), numbers[0])


def _complete(path: Path) -> tuple[int, int]:
    """Return how many bytes of a file are whole lines, and how many these are."""
    size = count = 0
    with path.open("rb") as file:
        while data := file.read(2**20):
            count += data.count(b"\n")
            end = data.rfind(b"\n")
            if end >= 0:
                size = file.tell() - len(data) + end + 1
    return size, count


def _lines(path: Path, start: int, end: int) -> Iterator[tuple[bytes, int]]:
    """Yield the lines between two places of a file, only a part of one too long, and their lengths."""
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (line := file.readline(_LONGEST_LINE + 1)):
            part = line
            while part and not part.endswith(b"\n"):
                part = file.readline(_LONGEST_LINE)
            yield line, file.tell() - start
            start = file.tell()


def _line(row: MetricRow) -> bytes:
    metrics = {key: value if math.isfinite(value) else None for key, value in row.metrics.items()}
    body = json.dumps({"time": row.time, "step": row.step, "metrics": metrics}).encode()
    return body[:-1] + b', "crc": "%08x"}\n' % zlib.crc32(body)


def _rows(line: bytes) -> Iterator[MetricRow]:
    """Yield what a line says: one row; none if it is damaged, two if the end of a line was."""
    for part in _parts(line):
        if _step(part) is not None and (row := _row(part)) is not None:
            yield row


def _is_damaged(line: bytes) -> bool:
    """Return whether something of a line can't be read."""
    return any(_step(part) is None for part in _parts(line))


def _parts(line: bytes) -> list[bytes]:
    return [line] if _step(line) is not None else _JOINED.split(line)


def _step(line: bytes) -> int | None:
    """Return the environment steps of a line; None if it isn't what `_line` writes."""
    if len(line) > _LONGEST_LINE or (head := _HEAD.match(line)) is None:
        return None
    step = int(head[2])
    if tail := _TAIL.search(line):
        return step if zlib.crc32(line[: tail.start()] + b"}") == int(tail[1], 16) else None
    row = _row(line) if line.rstrip().endswith(b"}}") else None
    return step if row is not None and row.metrics.get(ENV_TOTAL_STEPS) == step else None


def _row(line: bytes) -> MetricRow | None:
    """Return what a line says, its checksum unseen; None if it is no row."""
    try:
        said = json.loads(line)
        metrics = {
            str(key): math.nan if value is None else float(value) for key, value in said["metrics"].items()
        }
        return MetricRow(int(said["time"]), int(said["step"]), metrics)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None
