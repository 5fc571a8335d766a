"""Simulators in worker processes: waiting for them, finding that one has died, and ending them.

It goes by what Gymnasium's AsyncVectorEnv has: `processes`, `parent_pipes`, and `step` and `reset` in halves.
"""

import signal
from collections.abc import Callable
from typing import Any, final

from ...common.errors import EnvError

_LOOK = 1.0
"""s. How often processes are looked at while one is waited for."""

_LOST = (EOFError, BrokenPipeError, ConnectionError)
"""What is raised where nobody is at the other end of a pipe."""


@final
class Simulator:
    """A vector environment that is called, and whose processes are watched.

    Args:
        vector: The vector environment.
        name: What to call it in an error.
    """

    # What is in it is nobody's to copy, or to put back: no recording is made of its steps.
    __slots__ = ("_name", "vector")

    def __init__(self, vector: Any, name: str) -> None:
        self.vector, self._name = vector, name

    def reset(self, **options: Any) -> Any:
        """Return what its `reset` returns."""
        return self._call("reset", **options)

    def step(self, actions: Any) -> Any:
        """Return what its `step` returns."""
        return self._call("step", actions)

    def close(self) -> None:
        """End it, and its processes if it has any. What has been ended stays so."""
        inner, processes = _inner(self.vector), _processes(self.vector)
        idle = getattr(getattr(inner, "_state", None), "value", "default") == "default"
        if all(process.is_alive() for process in processes) and idle:
            close: Callable[[], object] | None = getattr(self.vector, "close", None)
            if close is not None:
                close()
            return
        # Asked to end, one that has died wouldn't answer.
        for process in processes:
            process.kill()
            process.join()
        for pipe in inner.parent_pipes:
            if pipe is not None:
                pipe.close()
        inner.closed = True

    def _call(self, name: str, *values: Any, **options: Any) -> Any:
        """Return what a method returns; of one in halves the answers are waited for in between.

        Raises:
            EnvError: If a process has died.
        """
        try:
            if "parent_pipes" not in vars(self.vector):
                return getattr(self.vector, name)(*values, **options)
            getattr(self.vector, f"{name}_async")(*values, **options)
            for pipe in self.vector.parent_pipes:
                while not pipe.poll(_LOOK):
                    self._check_alive()
            return getattr(self.vector, f"{name}_wait")()
        except _LOST as error:
            for process in _processes(self.vector):
                process.join(_LOOK / 10)
            self._check_alive()
            raise EnvError(f"{self._name}: a worker process doesn't answer any more") from error

    def _check_alive(self) -> None:
        """Refuse to go on without a process.

        Raises:
            EnvError: If one has died, and of what.
        """
        processes = _processes(self.vector)
        for number, process in enumerate(processes):
            if code := process.exitcode:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"has exited with {code}"
                hint = " (has memory run out?)" if code == -signal.SIGKILL else ""
                raise EnvError(
                    f"{self._name}: worker process {number} of {len(processes)} {how}{hint}: its simulation "
                    "is lost, go on from the last checkpoint"
                )


def _inner(vector: Any) -> Any:
    """Return what wrappers are around."""
    return getattr(vector, "unwrapped", vector)


def _processes(vector: Any) -> list[Any]:
    return list(getattr(_inner(vector), "processes", ()))


def deaf_to_interrupts() -> Callable[[Any], Any]:
    """Return a wrapper of single environments: their process leaves Ctrl-C to the one that trains."""

    # Pickled by its contents, as it has no name: a worker needn't import rlstack, and torch with it.
    def wrapper(env: Any) -> Any:
        import multiprocessing
        import signal

        if multiprocessing.parent_process() is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return env

    return wrapper
