"""Threads that share jobs, and torch's own threads meanwhile."""

import os
import threading
import time

import pytest
import torch

from rlstack.common.device import one_thread
from rlstack.engine.thread_pool import Workers


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("jobs", [0, 1, 2, 17])
def test_every_job_is_done_once(count, jobs):
    done = []
    Workers(count).run(lambda thread, job: done.append((thread, job)), jobs)
    assert sorted(job for _, job in done) == list(range(jobs))
    assert {thread for thread, _ in done} <= set(range(count))


def test_jobs_run_at_the_same_time():
    meet = threading.Barrier(2, timeout=10)
    arrived = []
    Workers(2).run(lambda thread, job: arrived.append(meet.wait()), 2)
    assert sorted(arrived) == [0, 1]


def test_torch_leaves_the_cores_alone_meanwhile():
    seen = []
    workers = Workers(2)
    with one_thread():
        workers.run(lambda thread, job: seen.append((torch.get_num_threads(), torch.is_grad_enabled())), 4)
    assert {threads for threads, _ in seen} == {1}
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), one_thread():
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("guilty", [0, 1])
def test_a_fault_ends_all_and_comes_out(guilty):
    begun = []

    def work(thread, job):
        begun.append(job)
        if thread == guilty:
            raise KeyboardInterrupt
        time.sleep(0.02)

    with pytest.raises(KeyboardInterrupt):
        Workers(2).run(work, 1000)
    assert len(begun) < 20


def test_a_forked_process_has_threads_of_its_own():
    Workers(2).run(lambda thread, job: None, 4)
    child = os.fork()
    if child == 0:
        done = []
        Workers(2).run(lambda thread, job: done.append(job), 4)
        os._exit(0 if sorted(done) == [0, 1, 2, 3] else 1)
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.05)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
