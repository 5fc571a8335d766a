"""Ranks for tests: processes forked from one that has imported everything, so that they begin at once."""

import multiprocessing
import os
import tempfile
import traceback
from pathlib import Path

import torch
import torch.distributed as dist

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["rlstack", "rlstack.env", "tests.distributed.processes"])


def in_ranks(function, *arguments, count=2, timeout=240):
    """Return what a function of (rank, *arguments) returns in each of some processes that train together.

    What it raises instead is returned as its traceback.
    """
    with tempfile.TemporaryDirectory() as directory:
        ends, processes = [], []
        for rank in range(count):
            mine, theirs = CONTEXT.Pipe(duplex=False)
            place = f"file://{Path(directory) / 'store'}", rank, count
            process = CONTEXT.Process(target=_work, args=(theirs, place, function, arguments))
            process.start()
            theirs.close()
            ends.append(mine)
            processes.append(process)
        try:
            return [_result(end, timeout) for end in ends]
        finally:
            for process in processes:
                process.kill()
                process.join()


def _result(end, timeout):
    assert end.poll(timeout), "a rank has said nothing"
    try:
        return end.recv()
    except EOFError:
        return "the process has ended"


def _work(end, place, function, arguments):
    where, rank, count = place
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    if count > 1:
        dist.init_process_group("gloo", init_method=where, rank=rank, world_size=count)
    try:
        end.send(function(rank, *arguments))
    except BaseException:
        end.send(traceback.format_exc())
    if count > 1:
        # Nobody's connection breaks before all have said what they have found.
        dist.barrier()
