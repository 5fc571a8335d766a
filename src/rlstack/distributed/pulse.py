"""Which ranks live, and what each of them is at: what names the one that the others wait for.

Each rank writes a line of JSON into the store that torch's processes meet in, once a second, from a thread,
and reads those of the others. A rank whose line stays the same is dead or stopped; one that says that it
failed is quoted; one whose call has the same number and another name has left the common way.
"""

import atexit
import json
import os
import socket
import threading
from typing import Any, Final, final

BEAT: Final = 1.0
"""Time between two lines of a rank, s."""

PATIENCE: Final = 60
"""Beats without a new line after which a rank is given up: some code holds Python's lock for long."""

DEAD: Final = 4
"""The same where a connection has broken."""

_FAREWELL: Final = 10.0
"""How long to wait at the end of the process for a beat that is under way, s."""


@final
class Pulse:
    """Says that this rank lives, and finds out which of the others don't.

    Beats are counted, not seconds: a machine that was frozen as a whole has missed none.

    Args:
        store: Where ranks meet, of this thread alone.
        index: This rank.
        count: How many there are.
    """

    def __init__(self, store: Any, index: int, count: int) -> None:
        self._store, self._index, self._count = store, index, count
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._said: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "update": 0}
        self._said |= {"beat": 0, "call": 0, "what": "", "failed": None, "left": False}
        self._others: list[dict[str, Any]] = [{} for _ in range(count)]
        self._silent = [0] * count
        self._lost: str | None = None
        self._beat()
        self._thread = threading.Thread(target=self._run, daemon=True, name="rlstack-pulse")
        self._thread.start()
        # A thread that comes back from the store while Python ends would abort the process.
        atexit.register(self._stop)

    @property
    def name(self) -> str:
        """This rank in words."""
        return self._name(self._index)

    def begin(self, what: str, update: int) -> None:
        """Note that this rank begins a call in which it waits for the others; nothing is sent at once."""
        self._said["call"] += 1
        self._said["what"], self._said["update"] = what, update

    def fail(self, why: str, update: int) -> None:
        """Tell the others at once that this rank has failed after an update."""
        self._said["update"] = update
        self._said["failed"] = self._said["failed"] or why[:2000]
        self._beat()

    def end(self) -> None:
        """Tell the others at once that this rank is done, and beat no more."""
        if not self._ended.is_set():
            self._ended.set()
            self._said["left"] = True
            self._beat()

    def _stop(self) -> None:
        self._ended.set()
        self._thread.join(_FAREWELL)

    def fault(self, patience: int = PATIENCE) -> str | None:
        """Return which rank the others wait for in vain and why; None if nothing is known against any.

        Args:
            patience: After how many silent beats a rank counts as gone.
        """
        others = [(rank, said) for rank, said in enumerate(self._others) if rank != self._index and said]
        for rank, said in others:
            if said["failed"]:
                return f"{self._name(rank)} failed after update {said['update']}: {said['failed']}"
        for rank, said in others:
            if said["left"]:
                return f"{self._name(rank)} has ended after update {said['update']}, this one goes on"
        for rank, said in others:
            if self._silent[rank] >= patience:
                return (
                    f"{self._name(rank)} is dead or stopped: nothing was heard from it for "
                    f"{self._silent[rank] * BEAT:.0f} s; the last update that it told of was {said['update']}"
                )
        mine = self._said["call"], self._said["what"]
        for rank, said in others:
            if said["call"] == mine[0] and said["what"] != mine[1]:
                return (
                    f"{self._name(rank)} is at {said['what']!r}, this one at {mine[1]!r} (update "
                    f"{self._said['update']}): all ranks must make the same calls in the same order"
                )
        return self._lost

    def wait(self) -> None:
        """Wait for a beat."""
        self._ended.wait(BEAT)

    def _name(self, rank: int) -> str:
        said = self._others[rank] if rank != self._index else self._said
        return f"rank {rank} (host {said.get('host', 'unknown')}, process {said.get('pid', 'unknown')})"

    def _run(self) -> None:
        while not self._ended.wait(BEAT):
            self._beat()

    def _beat(self) -> None:
        with self._lock:
            self._said["beat"] += 1
            try:
                self._store.set(str(self._index), json.dumps(self._said))
                for rank in range(self._count):
                    self._hear(rank)
                self._lost = None
            except RuntimeError as error:
                # It is in the process of rank 0, or in the launcher's.
                self._lost = f"the launcher or rank 0 is gone: {str(error).splitlines()[0]:.200}"

    def _hear(self, rank: int) -> None:
        if rank == self._index or not self._store.check([str(rank)]):
            return
        said = json.loads(self._store.get(str(rank)))
        same = said["beat"] == self._others[rank].get("beat")
        self._silent[rank] = self._silent[rank] + 1 if same else 0
        self._others[rank] = said
