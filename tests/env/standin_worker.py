"""What a worker process of the tests runs: numbers that are counted up. Imports nothing of rlstack."""

import os
import time

import numpy as np

BAD, SLOW, SUICIDAL = -1, -2, -3
"""Numbers to add that mean something else."""


def make(rows, *, start=0, fault=None):
    if fault is not None:
        raise RuntimeError(fault)
    return Counters(rows, start)


class Counters:
    row = None

    def __init__(self, rows, start):
        self.rows, self.start = rows, start

    def describe(self):
        return {"rows": (self.rows.start, self.rows.stop), "pid": os.getpid()}

    def share(self, arrays):
        self.given, self.sums = arrays["given"], arrays["sums"]
        self.sums[:] = self.start + np.arange(self.rows.start, self.rows.stop)

    def step(self):
        for at, row in enumerate(self.rows):
            self.row = row
            match self.given[at]:
                case -1:
                    raise ArithmeticError("it\nburst")
                case -2:
                    time.sleep(60)
                case -3:
                    os._exit(7)
                case number:
                    self.sums[at] += number
        self.row = None

    def mean(self, *weights):
        return float(np.dot(self.sums, weights or np.ones(len(self.sums))) / len(self.sums))
