"""Processes that step simulations of one environment, a part of the rows each, over shared memory."""

import math
import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from itertools import pairwise
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, final

import numpy as np

from ...common.errors import EnvError
from . import worker_main

_ALIGNED = 64
"""Bytes from which on an array may begin: two processes never write into one cache line."""

_FAREWELL = 5.0
"""How long to wait for the exit status of a process that has hung up, s."""


class _Worker(NamedTuple):
    process: subprocess.Popen[bytes]
    connection: Connection
    rows: range


@final
class Workers:
    """Worker processes, each with a part of the rows of one environment.

    What they run is a file of its own that imports nothing of rlstack. Its function `make(rows, **arguments)`
    returns an object with `describe()`, whose value is said at the start, `share(arrays)`, which is handed
    its rows of the arrays in shared memory, `step()`, and whatever else is to be called by `call`. Its
    attribute `row`, if it has one, is named in errors.

    A process that ends, or raises an error, ends them all, with an EnvError. They end with their parent,
    however that ends, and with this object.

    Args:
        name: Of the environment, for errors.
        file: What they run.
        num_envs: How many rows there are, B.
        processes: How many processes; at most as many as rows.
        arguments: What `make` takes beside the rows; plain values.

    Raises:
        EnvError: If one of them can't be started.
    """

    def __init__(
        self, name: str, file: Path, num_envs: int, processes: int, arguments: Mapping[str, Any]
    ) -> None:
        self._name = name
        self._workers: list[_Worker] = []
        self._memory = _memory_file()
        # They hold no state that has to be saved: killed is closed.
        self._finalizer = weakref.finalize(self, _end, self._workers, self._memory, os.getpid())
        edges = [num_envs * part // processes for part in range(processes + 1)]
        try:
            for first, last in pairwise(edges):
                self._start(file, range(first, last), arguments)
            self.descriptions: list[Any] = [self._receive(worker) for worker in self._workers]
            """What each of them said of its part."""
        except BaseException:
            self.close()
            raise

    def share(self, arrays: Mapping[str, tuple[Any, tuple[int, ...]]]) -> dict[str, np.ndarray]:
        """Return arrays that all of them share, zeros, by name.

        Args:
            arrays: The dtype of each and its shape, [B, ...].
        """
        layout, end = {}, 0
        for name, (dtype, shape) in arrays.items():
            layout[name] = (np.dtype(dtype).str, shape, end)
            size = math.prod(shape) * np.dtype(dtype).itemsize
            end += math.ceil(size / _ALIGNED) * _ALIGNED
        end = max(end, 1)
        os.ftruncate(self._memory.fileno(), end)
        memory = mmap.mmap(self._memory.fileno(), end)
        self.call("share", end, layout)
        return {
            name: np.ndarray(shape, dtype, memory, offset) for name, (dtype, shape, offset) in layout.items()
        }

    def step(self) -> None:
        """Let each of them step its part, and wait for all.

        Raises:
            EnvError: If one of them fails, or has ended.
        """
        self._exchange([worker_main.STEP] * len(self._workers))

    def call(self, method: str, *args: Any) -> list[Any]:
        """Return what each of them returns when a method of its part is called.

        Raises:
            EnvError: If one of them fails, or has ended.
        """
        return self._exchange([pickle.dumps((method, args))] * len(self._workers))

    def call_each(self, method: str, args: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Return what each of them returns when a method of its part is called with arguments of its own.

        Raises:
            EnvError: If one of them fails, or has ended.
        """
        return self._exchange([pickle.dumps((method, values)) for values in args])

    @property
    def rows(self) -> list[range]:
        """Whose rows are whose."""
        return [worker.rows for worker in self._workers]

    @property
    def pids(self) -> list[int]:
        """Of the processes; empty once they have ended."""
        return [worker.process.pid for worker in self._workers]

    def close(self) -> None:
        """End them all."""
        self._finalizer()
        self._workers.clear()

    def _start(self, file: Path, rows: range, arguments: Mapping[str, Any]) -> None:
        ours, theirs = Pipe()
        with theirs:
            handed = (theirs.fileno(), self._memory.fileno())
            # A session of their own: what a terminal sends is for the parent to answer.
            process = subprocess.Popen(
                [sys.executable, "-P", str(worker_main.__file__), *map(str, handed)],
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=handed,
                start_new_session=True,
            )
        worker = _Worker(process, ours, rows)
        self._workers.append(worker)
        start = {"parent": os.getpid(), "path": sys.path, "file": str(file), "rows": (rows.start, rows.stop)}
        self._send(worker, pickle.dumps({**start, "arguments": dict(arguments)}))

    def _exchange(self, messages: list[bytes]) -> list[Any]:
        if not self._workers:
            raise EnvError(
                f"the worker processes of {self._name} have ended: reset it, which starts new ones"
            )
        try:
            for worker, message in zip(self._workers, messages, strict=True):
                self._send(worker, message)
            return [self._receive(worker) for worker in self._workers]
        except BaseException:
            # Answers that nobody waited for would be taken for those to the next question.
            self.close()
            raise

    def _send(self, worker: _Worker, message: bytes) -> None:
        try:
            worker.connection.send_bytes(message)
        except OSError:
            self._lost(worker)

    def _receive(self, worker: _Worker) -> Any:
        try:
            answer = worker.connection.recv_bytes()
        except (EOFError, OSError):
            self._lost(worker)
        if not answer:
            return None
        ok, said = pickle.loads(answer)
        if ok:
            return said
        text, row, trace = said
        where = "a worker process" if row is None else f"environment {row}, in a worker process,"
        error = EnvError(f"{self._name}: {where} raised {text}")
        error.add_note(f"In the worker process:\n{trace}")
        raise error

    def _lost(self, worker: _Worker) -> NoReturn:
        """Say how a process has ended that no longer answers."""
        try:
            status = worker.process.wait(_FAREWELL)
        except subprocess.TimeoutExpired:
            how = "hung up"
        else:
            how = f"ended with exit status {status}"
            if status < 0:
                number = -status
                known = number in {int(one) for one in signal.Signals}
                how = f"was killed by {signal.Signals(number).name if known else f'signal {number}'}"
                if number == signal.SIGKILL:
                    how += ", for want of memory perhaps"
        first, last = worker.rows.start, worker.rows.stop - 1
        raise EnvError(
            f"{self._name}: the worker process of environments {first} to {last} {how}: resume from the last "
            "checkpoint, or reset the environment, which starts new ones"
        ) from None


def _memory_file() -> Any:
    """Return a file in memory that has no name: it goes with the last process that holds it open."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("rlstack"), "r+b")
    return tempfile.TemporaryFile()


def _end(workers: list[_Worker], memory: Any, owner: int) -> None:
    """End all processes, unless this is a fork of the one that they belong to."""
    memory.close()
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.process.kill()
        worker.connection.close()
    for worker in workers:
        worker.process.wait()
