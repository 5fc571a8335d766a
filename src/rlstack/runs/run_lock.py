"""Who has a run directory: one process at a time, and in it one trainer, which makes way for a later one.

In a notebook a cell that makes a trainer is run twice while the trainer of the first time is still there, by
its name or in a traceback. So a trainer at rest is closed, with nothing lost, when another one of the same
process asks for its directory; one at work is not.
"""

import os
from pathlib import Path
from typing import Any, Protocol, final
from weakref import WeakMethod, WeakValueDictionary

from ..common.errors import RunDirError

_held: WeakValueDictionary[Path, "RunLock"] = WeakValueDictionary()
"""The locks of this process."""


class MakeWay(Protocol):
    """Lets another trainer of this process have a run directory, with nothing lost.

    Args:
        anew: Whether that one is to begin anew.

    Raises:
        RunDirError: If this can't be.
    """

    def __call__(self, *, anew: bool) -> None: ...  # noqa: D102


@final
class RunLock:
    """The lock of a run directory, held from the start; it dies with the process.

    Args:
        path: The directory.
        anew: Whether its next trainer begins anew; None lets no trainer make way.
        by_another: Whether another rank of this training holds it, which alone writes there.

    Raises:
        RunDirError: If another process has the directory, or a trainer of this one that doesn't make way.
    """

    def __init__(self, path: Path, *, anew: bool | None, by_another: bool = False) -> None:
        from filelock import FileLock

        self._path, self._pid = path, os.getpid()
        self._owner: WeakMethod[MakeWay] | None = None
        self._lost: str | None = None
        self._lock: Any = None
        if by_another:
            return
        self._lock = FileLock(path / ".lock", thread_local=False)
        key = path.resolve()
        other = _held.get(key)
        if other is not None and (other._lost or other._pid != self._pid):
            other = None
        taken = self._take()
        if other is not None and not taken:
            other._make_way(anew)
            taken = self._take()
        elif other is not None:
            other._lost = "was removed, and is another trainer's now"
        if not taken:
            raise RunDirError(f"{path} is in use by another trainer")
        _held[key] = self

    def _take(self) -> bool:
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def owned_by(self, make_way: MakeWay) -> None:
        """Ask a trainer, by this method of it, when another one of this process wants the directory."""
        self._owner = WeakMethod(make_way)

    def check(self) -> None:
        """Refuse to write into a directory that isn't held any more.

        Raises:
            RunDirError: With why that is, and what to do.
        """
        if self._lost:
            raise RunDirError(f"{self._path} {self._lost}")

    @property
    def is_held(self) -> bool:
        """Whether the directory may be written into."""
        return self._lost is None and self._pid == os.getpid()

    def release(self, why: str = "was closed by this trainer: go on with Trainer.resume") -> None:
        """Let another trainer have the directory; in a forked process this does nothing.

        Args:
            why: What to say of the directory to whoever goes on all the same.
        """
        if self.is_held:
            self._lost = why
            if self._lock is not None:
                self._lock.release()

    def _make_way(self, anew: bool | None) -> None:
        if anew is None or self._owner is None:
            raise RunDirError(f"{self._path} is in use by another trainer of this process: close() that one")
        if make_way := self._owner():
            make_way(anew=anew)
        self.release()
