"""Processes that a command starts: so many at once, told of its signals, and ended with it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ..common.device import cores
from ..training.interrupts import SAVING, Interrupt
from .signals import ENDS_WITH_PARENT

_PAUSE = 0.1
"""Time between two looks at them, s."""


@final
@dataclass(frozen=True)
class Child:
    """One `rlstack` command."""

    name: str
    """For whoever looks at it."""
    words: Sequence[str]
    """Of the command."""
    log: Path | None = None
    """Where its output goes; None is where this process's goes."""


def run_children(
    children: Sequence[Child], at_once: int, interrupt: Interrupt, ended: Callable[[Child, int], None]
) -> int | None:
    """Run commands, so many at once; return the signal that kept some from being run, None if none did.

    Each is in a session of its own: a Ctrl-C comes to it from here, once. When this process is killed, they
    get their SIGTERM all the same.

    Args:
        children: Which.
        at_once: How many.
        interrupt: What signals are noted in.
        ended: Is told of each that has ended, with its exit code.
    """
    interrupt.at_once = False
    waiting, running = [*children], list[tuple[Child, subprocess.Popen[bytes]]]()
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // at_once))
    told = False
    try:
        while running or (waiting and interrupt.signum is None):
            while waiting and len(running) < at_once and interrupt.signum is None:
                child = waiting.pop(0)
                running.append((child, _start(child, threads)))
            if interrupt.signum is not None and not told:
                told = True
                _tell(running, interrupt.signum)
            if interrupt.wants_checkpoint:
                interrupt.wants_checkpoint = False
                _tell(running, SAVING[0])
            for each in [each for each in running if each[1].poll() is not None]:
                running.remove(each)
                _let_go(each[1])
                ended(each[0], each[1].returncode)
            time.sleep(_PAUSE)
    except BaseException:
        # A second Ctrl-C, or a fault of this process: they don't finish their updates either.
        for _ in range(1 if told else 2):
            _tell(running, signal.SIGTERM)
        raise
    finally:
        for _, process in running:
            process.wait()
            _let_go(process)
    return interrupt.signum


def exit_code(codes: Iterable[int]) -> int:
    """Return what stands for some exit codes: 0 if all are, of one that was killed what shells say."""
    return max((code if code >= 0 else 128 - code for code in codes), default=0)


def _start(child: Child, threads: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "rlstack", *child.words]
    environment = {**os.environ, "OMP_NUM_THREADS": threads, ENDS_WITH_PARENT: "1"}
    how: dict[str, Any] = {"stdin": subprocess.PIPE, "start_new_session": True, "env": environment}
    if child.log is None:
        return subprocess.Popen(command, **how)
    with child.log.open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, **how)


def _let_go(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    process.stdin.close()


def _tell(running: "Sequence[tuple[Child, subprocess.Popen[bytes]]]", signum: int) -> None:
    for _, process in running:
        process.send_signal(signum)
