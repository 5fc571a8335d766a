"""What signals ask of a training: to end after the update at hand, or to write a checkpoint and go on.

SIGINT (Ctrl-C), SIGTERM and SIGHUP (a lost terminal) end it. The second one doesn't wait for the update, but
a second SIGHUP does: a lost terminal often sends two. SIGUSR1 and SIGUSR2, with which schedulers announce the
end of their patience, ask for a checkpoint. Standard library only: it is there before torch is loaded.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, final


def _present(*names: str) -> tuple[int, ...]:
    """Return the signals that this system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


_ENDING = _present("SIGINT", "SIGTERM", "SIGHUP")

SAVING = _present("SIGUSR1", "SIGUSR2")

_PATIENT = _present("SIGHUP")


@final
class Interrupt:
    """What one was asked for since it began."""

    signum: int | None = None
    """The signal that asked to stop; None as long as there was none."""
    wants_checkpoint: bool = False
    """Whether a checkpoint is asked for; whoever writes it sets this back."""
    error: BaseException | None = None
    """What a handler that was there before has raised: to be raised once all is saved."""
    at_once: bool = False
    """Whether the first one to stop raises KeyboardInterrupt, too; a training that begins sets this back."""

    @property
    def is_over(self) -> bool:
        """Whether to make no further update."""
        return self.signum is not None or self.error is not None


_running: list[Interrupt] = []

_before: dict[int, Any] = {}
"""Handlers that were there before the first of those that are running."""


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Return what signals are noted in; a second one that asks to stop raises KeyboardInterrupt.

    Handlers that were there before are called, too, but Python's own for SIGINT. A signal that was ignored,
    as `nohup` ignores SIGHUP, stays so. Outside of the main thread there are no signals to handle.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    _running.append(interrupt)
    try:
        for each in _running:
            each.at_once = False
        if _running == [interrupt]:
            _install()
        yield interrupt
    finally:
        if _running == [interrupt]:
            _restore()
        _running.remove(interrupt)


def _install() -> None:
    for signum in (*_ENDING, *SAVING):
        # None is a handler that Python knows nothing of, and couldn't put back.
        if signal.getsignal(signum) not in (signal.SIG_IGN, None):
            _before[signum] = signal.signal(signum, _handle)


def _restore() -> None:
    for signum, handler in _before.items():
        if signal.getsignal(signum) is _handle:
            signal.signal(signum, handler)
    _before.clear()


def _handle(signum: int, frame: FrameType | None) -> None:
    ends = signum in _ENDING
    first = all(each.signum is None for each in _running)
    again = ends and signum not in _PATIENT and not first
    at_once = ends and first and any(each.at_once for each in _running)
    for each in _running:
        if not ends:
            each.wants_checkpoint = True
        elif each.signum is None:
            each.signum = signum
    before = _before.get(signum)
    if callable(before) and before is not signal.default_int_handler:
        try:
            before(signum, frame)
        except BaseException as error:
            # It is to end the process, as `sys.exit` does: after the update and its checkpoint.
            if again or at_once:
                raise
            for each in _running:
                each.error = each.error or error
    if again or at_once:
        raise KeyboardInterrupt
