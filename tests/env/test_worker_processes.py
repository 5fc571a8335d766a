"""Worker processes: that they share memory, and how they end."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from rlstack.common.device import cores
from rlstack.common.errors import EnvError
from rlstack.env.dm_control.worker_processes import Workers

from .standin_worker import BAD, SLOW, SUICIDAL

FILE = Path(__file__).with_name("standin_worker.py")


def started(num_envs=5, processes=2, **arguments):
    workers = Workers("Counters", FILE, num_envs, processes, arguments)
    arrays = workers.share({"given": (np.int64, (num_envs,)), "sums": (np.float64, (num_envs,))})
    return workers, arrays


@pytest.fixture
def counters():
    workers, arrays = started()
    yield workers, arrays
    workers.close()


def ended(pid):
    """Return whether a process has ended, or is about to be forgotten by whoever has to."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def all_end(pids, within=5.0):
    end = time.monotonic() + within
    while time.monotonic() < end:
        if all(map(ended, pids)):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_each_process_steps_its_rows(processes):
    workers, arrays = started(processes=processes, start=10)
    assert [rows for rows in workers.rows if not rows] == []
    assert [row for rows in workers.rows for row in rows] == [0, 1, 2, 3, 4]
    assert [said["rows"] for said in workers.descriptions] == [(r.start, r.stop) for r in workers.rows]
    assert [said["pid"] for said in workers.descriptions] == workers.pids
    for number in (1, 5):
        arrays["given"][:] = number * np.arange(5)
        workers.step()
    assert arrays["sums"].tolist() == [10, 17, 24, 31, 38]
    means = workers.call("mean")
    assert np.dot(means, [len(rows) for rows in workers.rows]) == 120
    workers.close()
    assert workers.pids == []


def test_each_can_be_called_with_arguments_of_its_own(counters):
    workers, _ = counters
    assert workers.rows == [range(2), range(2, 5)]
    assert workers.call_each("mean", [(1.0, 0.0), (0.0, 0.0, 3.0)]) == [0.0, 4.0]


def test_they_are_in_no_terminals_group_and_use_one_thread(counters):
    for pid in counters[0].pids:
        assert os.getpgid(pid) != os.getpgrp()
        assert psutil.Process(pid).num_threads() == 1


def test_they_import_neither_torch_nor_rlstack(counters):
    for pid in counters[0].pids:
        maps = {mapped.path for mapped in psutil.Process(pid).memory_maps()}
        assert any("numpy" in path for path in maps)
        assert not any("torch" in path for path in maps)


def test_an_error_comes_out_with_its_text_and_where_it_was(counters):
    workers, arrays = counters
    pids = workers.pids
    arrays["given"][3] = BAD
    with pytest.raises(EnvError) as caught:
        workers.step()
    assert str(caught.value) == (
        "Counters: environment 3, in a worker process, raised ArithmeticError: it burst"
    )
    assert "standin_worker.py" in caught.value.__notes__[0]
    assert all_end(pids)
    with pytest.raises(EnvError, match="the worker processes of Counters have ended: reset it"):
        workers.step()


def test_what_can_not_be_made_says_why():
    with pytest.raises(EnvError) as caught:
        started(fault="no such thing")
    assert str(caught.value) == "Counters: a worker process raised RuntimeError: no such thing"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_process_is_named(counters, number):
    workers, _ = counters
    pids = workers.pids
    os.kill(pids[1], number)
    assert all_end([pids[1]])
    with pytest.raises(
        EnvError, match=rf"of environments 2 to 4 was killed by {number.name}.* last checkpoint"
    ):
        workers.step()
    assert all_end(pids)


def test_a_process_killed_in_the_middle_of_a_step_is_noticed_at_once(counters):
    workers, arrays = counters
    arrays["given"][0] = SLOW
    killer = threading.Timer(0.3, os.kill, (workers.pids[0], signal.SIGKILL))
    killer.start()
    start = time.monotonic()
    with pytest.raises(EnvError, match="of environments 0 to 1 was killed by SIGKILL"):
        workers.step()
    assert time.monotonic() - start < 5


def test_a_process_that_ends_itself_is_named(counters):
    workers, arrays = counters
    arrays["given"][0] = SUICIDAL
    with pytest.raises(EnvError, match="of environments 0 to 1 ended with exit status 7"):
        workers.step()


def test_an_interrupted_step_leaves_no_answers_behind(counters):
    workers, arrays = counters
    pids = workers.pids
    arrays["given"][4] = SLOW
    interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        workers.step()
    assert all_end(pids)
    with pytest.raises(EnvError, match="have ended"):
        workers.call("mean")


def test_they_end_with_who_started_them():
    workers, arrays = started()
    pids = workers.pids
    del workers, arrays
    gc.collect()
    assert all_end(pids)


def test_a_fork_does_not_end_them(counters):
    workers, _ = counters
    if (child := os.fork()) == 0:
        workers.close()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0
    workers.step()


SCRIPT = f"""
import sys, time
from pathlib import Path
from rlstack.env.dm_control.worker_processes import Workers
workers = Workers("Counters", Path({str(FILE)!r}), 4, 2, {{}})
print(*workers.pids, flush=True)
time.sleep(60)
"""


def test_they_end_with_a_parent_that_is_killed(tmp_path):
    # It has no guard: multiprocessing would import it again in each of them, and so without end.
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(map(ended, pids))
        parent.kill()
        assert parent.stdout.read() == ""
    assert all_end(pids)


def test_as_many_cores_as_may_be_used():
    assert 1 <= cores() <= os.cpu_count()
