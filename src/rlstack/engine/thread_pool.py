"""Threads that share the rows of a minibatch among them."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from typing import final

import torch


@final
class Workers:
    """Runs a function on several threads at once, each computing by itself.

    torch splits single operations among its threads and waits for the slowest after each; whole blocks of
    rows are split with one wait in all.

    Args:
        count: How many threads, the calling one included.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def run(self, function: Callable[[int, int], None], jobs: int) -> None:
        """Call `function(thread, job)` for the jobs 0 … jobs − 1, each on whichever thread is free.

        What it raises comes out here, after all threads have ended; jobs that haven't begun are dropped then.
        """
        numbers, failed = count(), False

        def work(thread: int) -> None:
            nonlocal failed
            try:
                while not failed and (job := next(numbers)) < jobs:
                    function(thread, job)
            except BaseException:
                failed = True
                raise

        others = [_pool(self.count).submit(_alone, work, n) for n in range(1, min(self.count, jobs))]
        try:
            work(0)
        finally:
            faults = [other.exception() for other in others]
        for fault in faults:
            if fault is not None:
                raise fault


def _alone(function: Callable[[int], None], number: int) -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        function(number)


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    """Return the threads beside the calling one; they are made once and wait until they are needed."""
    return ThreadPoolExecutor(size - 1, thread_name_prefix="rlstack")


# A forked process has none of the threads, and makes its own.
os.register_at_fork(after_in_child=_pool.cache_clear)
