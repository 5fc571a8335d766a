"""Signals around a training: while what it needs is imported and made, and while its end is written.

Standard library and click only: they are answered before torch is loaded.
"""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ..training.interrupts import SAVING, Interrupt

ENDS_WITH_PARENT = "RLSTACK_ENDS_WITH_PARENT"
"""A variable that is set for a process whose standard input its parent holds open as long as it lives."""


def ends_with_parent() -> None:
    """Send this process SIGTERM once the one that started it is gone, if it was started to end with it."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    if os.environ.pop(ENDS_WITH_PARENT, None) is not None:
        threading.Thread(target=wait, name="rlstack-parent", daemon=True).start()


@contextmanager
def ended_by(interrupt: Interrupt) -> Iterator[None]:
    """Let a signal end the process: the first one at once before training begins, a second one at any time.

    Once training has begun, the first one lets it be ended, and what it leaves behind be written.
    """
    interrupt.at_once = True
    try:
        yield
    except BaseException as error:
        # What was interrupted before training may have made another error of it.
        if interrupt.signum is None or not (interrupt.at_once or isinstance(error, KeyboardInterrupt)):
            raise
        first = f"{signal.Signals(interrupt.signum).name} came before training began"
        second = "a second signal came before all was said and written: the rest is left out"
        click.echo(f"rlstack: {first if interrupt.at_once else second}", err=True)
        sys.exit(128 + interrupt.signum)


def ignored_at_exit() -> None:
    """Let signals that ask for a checkpoint come to nothing while Python ends, after all is written."""
    for signum in SAVING:
        atexit.register(signal.signal, signum, signal.SIG_IGN)
