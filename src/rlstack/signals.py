"""Ctrl-C and SIGTERM: the first one lets an update be finished, the second one doesn't."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, final

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@final
class Interrupt:
    """Whether, and by what, one was asked to stop."""

    signum: int | None = None
    """The signal; None as long as there was none."""


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Return what the first signal is noted in; a second one raises KeyboardInterrupt.

    Outside of the main thread there are no signals to handle.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if interrupt.signum is not None:
            raise KeyboardInterrupt
        interrupt.signum = signum

    before: list[Any] = [signal.signal(number, handle) for number in _SIGNALS]
    try:
        yield interrupt
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)
