"""Signals that come before `rlstack train` trains, and while its end is written."""

import os
import signal
import subprocess
import sys
import time
from itertools import product

import pytest
from click.testing import CliRunner

from rlstack import Policy
from rlstack.cli.app import main

ENDING = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
SAVING = [signal.SIGUSR1, signal.SIGUSR2]

STOPS = """
import os, sys
class Stops:
    def find_spec(self, name, path=None, target=None):
        if name in os.environ["STOPS"].split():
            os.write(2, f"at {name}\\n".encode())
            sys.stdin.readline()
sys.meta_path.insert(0, Stops())
"""
"""Stops wherever a module is first imported that the environment names, until a line is read."""

MINE = """
import read_first
from rlstack.env import DiscreteDummyEnv
class Mine(DiscreteDummyEnv.__base__):
    def __init__(self, *args, **options):
        import made_of
        super().__init__(*args, **options)
        self.action_spec = DiscreteDummyEnv(1).action_spec
    def _displacement(self, action):
        return 2 * action - 1
"""

BEFORE = ["torch", "read_first", "made_of"]
"""The first import, that of the environment's file, and the environment's construction."""

AFTER = ["matplotlib.figure", "mlflow.pytorch.pickle_module"]
"""The learning curve, and the model."""

COMMAND = (
    *("train", "mine.py:Mine", "num_envs=8", "horizon=4", "model_config.hiddens=[8]", "device=cpu"),
    *("--run-dir", "out", "--max-updates", "1"),
)


@pytest.fixture
def start(tmp_path, tracked):
    """Start trainings that stop at imports; what still runs in the end is killed."""
    (tmp_path / "mine.py").write_text(MINE)
    for module in BEFORE[1:]:
        (tmp_path / f"{module}.py").touch()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(STOPS)
    path = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH")]))
    started = []

    def begin(*stops):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(
            [sys.executable, "-m", "rlstack", *COMMAND],
            env={**os.environ, "PYTHONPATH": path, "STOPS": " ".join(stops), "PYTHONUNBUFFERED": "1"},
            text=True,
            **pipes,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def reach(process, stop):
    while (line := process.stderr.readline()) != f"at {stop}\n":
        assert line, process.stdout.read()


def go_on(process):
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.slow
def test_those_that_ask_for_a_checkpoint_kill_at_no_time(start, tmp_path):
    process = start(*BEFORE, *AFTER)
    for stop in (*BEFORE, *AFTER):
        reach(process, stop)
        for signum in SAVING:
            process.send_signal(signum)
        go_on(process)
    said, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "Tracked model:  models:/" in said
    assert said.splitlines()[-1] == "To go on:       rlstack train --resume out"


def each(*values):
    """Return what to try: all of it takes minutes."""
    quick = {signal.SIGTERM, "torch"}
    return [
        pytest.param(*each, marks=() if quick & {*each} else pytest.mark.slow) for each in product(*values)
    ]


@pytest.mark.parametrize(("signum", "stop"), each(ENDING, BEFORE))
def test_one_that_ends_does_so_at_once_before_training(signum, stop, start, tmp_path):
    process = start(stop)
    reach(process, stop)
    process.send_signal(signum)
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, said) == (ENDING[signum], "")
    assert errors == f"rlstack: {signum.name} came before training began\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("signum", each(ENDING))
def test_one_that_ends_lets_the_end_be_written(signum, start, tmp_path):
    process = start("matplotlib.figure")
    reach(process, "matplotlib.figure")
    process.send_signal(signum)
    go_on(process)
    said, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (ENDING[signum], "")
    assert "Learning curve: out/learning_curve.png" in said
    assert "Tracked model:  none, the run was interrupted" in said
    assert said.splitlines()[-1] == "To go on:       rlstack train --resume out"


@pytest.mark.slow
def test_the_second_one_ends_at_once_there_too(start, tmp_path):
    process = start("matplotlib.figure")
    reach(process, "matplotlib.figure")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors.startswith("rlstack: a second signal came before all was said and written")
    assert "To go on" not in said
    assert Policy.load(tmp_path / "out" / "policy.safetensors")


def test_one_that_an_environment_swallows_ends_it_all_the_same(tmp_path, tracked):
    swallows = "import contextlib, signal\nwith contextlib.suppress(BaseException):\n"
    (tmp_path / "swallows.py").write_text(f"{swallows}    signal.raise_signal(15)\n{MINE}")
    for module in BEFORE[1:]:
        (tmp_path / f"{module}.py").touch()
    result = CliRunner().invoke(main, ["train", "swallows.py:Mine", *COMMAND[2:], "--tracking", "off"])
    assert (result.exit_code, result.output) == (143, "rlstack: SIGTERM came before training began\n")
    assert not (tmp_path / "out" / "policy.safetensors").exists()
