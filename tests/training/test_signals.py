"""What signals ask of a training, and what becomes of handlers that were there before."""

import importlib.util
import os
import pty
import signal
import sys
import time

import pytest

from rlstack import Trainer
from rlstack.conditions import Condition, HitsUpperBound
from rlstack.env import DiscreteDummyEnv
from rlstack.runs import checkpoint
from rlstack.training import interrupts
from rlstack.training.interrupts import interruptible

from ..helpers import SMALL

CONFIG = {"num_envs": 4, "horizon": 4, "device": "cpu", "seed": 0, "model_config": SMALL}
ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SAVING = [signal.SIGUSR1, signal.SIGUSR2]


class Sends(Condition):
    """Sends signals to its own process after the second update, and ends after the fourth."""

    def __init__(self, *signals):
        self.signals = signals

    def __call__(self, stats):
        if stats["algorithm/steps"] == 2:
            for each in self.signals:
                signal.raise_signal(each)
        return stats["algorithm/steps"] == 4


@pytest.fixture
def handled(monkeypatch):
    """Set handlers for the time of a test."""
    before = {}

    def handle(signum, handler):
        before[signum] = signal.signal(signum, handler)

    yield handle
    for signum, handler in before.items():
        signal.signal(signum, handler)


def make(run_dir=None, **options):
    return Trainer(DiscreteDummyEnv, algorithm_config=CONFIG, run_dir=run_dir, track=False, **options)


def kept(directory):
    return [int(path.name[5:]) for path in checkpoint.numbered(directory / "run" / "checkpoints")]


@pytest.mark.parametrize("signum", ENDING)
def test_the_first_one_ends_the_run_with_a_checkpoint(signum, tmp_path):
    with make(tmp_path / "run") as trainer:
        before = signal.getsignal(signum)
        stats = trainer.run(stop_conditions=[Sends(signum)])
        assert signal.getsignal(signum) is before
        assert (trainer.interrupted, stats["algorithm/steps"]) == (signum, 2)
        assert kept(tmp_path) == [2]


def test_the_second_hang_up_waits_for_the_update_too(tmp_path):
    with make(tmp_path / "run") as trainer:
        trainer.run(stop_conditions=[Sends(signal.SIGHUP, signal.SIGHUP)])
        assert trainer.interrupted == signal.SIGHUP
        assert kept(tmp_path) == [2]


def test_another_one_after_it_does_not():
    with interruptible() as interrupt:
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert interrupt.signum == signal.SIGHUP


@pytest.mark.parametrize("signum", SAVING)
def test_a_checkpoint_is_written_and_training_goes_on(signum, tmp_path):
    with make(tmp_path / "run") as trainer:
        before = signal.getsignal(signum)
        stats = trainer.run(stop_conditions=[Sends(signum)])
        assert signal.getsignal(signum) is before
        # Signals are seen after the update in which they came.
        assert (trainer.interrupted, stats["algorithm/steps"], kept(tmp_path)) == (None, 4, [4, 3])


def test_without_a_directory_it_does_nothing():
    assert make().run(stop_conditions=[Sends(*SAVING)])["algorithm/steps"] == 4


@pytest.mark.parametrize("signum", [*ENDING, *SAVING])
def test_handlers_that_were_there_before_are_called_too(signum, handled, tmp_path):
    said = []

    def own(signum, frame):
        said.append((signum, frame is not None))

    handled(signum, own)
    with make(tmp_path / "run") as trainer:
        trainer.run(stop_conditions=[Sends(signum)])
        assert trainer.interrupted == (signum if signum in ENDING else None)
        assert 2 in kept(tmp_path) if signum in ENDING else kept(tmp_path)
    assert said == [(signum, True)]
    assert signal.getsignal(signum) is own


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_one_that_ends_the_process_does_so_after_the_checkpoint(signum, handled, tmp_path):
    handled(signum, lambda *_: sys.exit(7))
    with make(tmp_path / "run") as trainer:
        with pytest.raises(SystemExit) as end:
            trainer.run(stop_conditions=[Sends(signum)])
        assert end.value.code == 7
        assert kept(tmp_path) == [2]


def test_the_second_time_it_does_so_at_once(handled):
    handled(signal.SIGTERM, lambda *_: sys.exit(7))
    with interruptible() as interrupt:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
    assert interrupt.signum == signal.SIGINT


@pytest.mark.parametrize("signum", [*ENDING, *SAVING])
def test_what_was_ignored_stays_ignored(signum, handled):
    handled(signum, signal.SIG_IGN)
    trainer = make()
    stats = trainer.run(stop_conditions=[Sends(signum)])
    assert (trainer.interrupted, stats["algorithm/steps"]) == (None, 4)
    assert signal.getsignal(signum) is signal.SIG_IGN


def test_trainings_side_by_side_leave_no_handler_behind():
    one, other = (make(stop_conditions=[HitsUpperBound("algorithm/steps", n)]) for n in (2, 5))
    before = signal.getsignal(signal.SIGINT)
    for _ in zip(one.updates(), other.updates(), strict=False):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    loops = [make().updates() for _ in range(2)]
    for loop in loops:
        next(loop)
    signal.raise_signal(signal.SIGTERM)
    assert [next(loop, "over") for loop in loops] == ["over", "over"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_set_meanwhile_stays(handled):
    handled(signal.SIGUSR2, signal.SIG_DFL)
    with interruptible():
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN


def test_systems_without_some_of_them(monkeypatch):
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2"):
        monkeypatch.delattr(signal, name)
    place = importlib.util.spec_from_file_location("signals_elsewhere", interrupts.__file__)
    there = importlib.util.module_from_spec(place)
    place.loader.exec_module(there)
    before = signal.getsignal(signal.SIGTERM)
    with there.interruptible() as interrupt:
        signal.raise_signal(signal.SIGTERM)
    assert interrupt.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


COMMAND = (
    *("train", "cartpole", "num_envs=8", "horizon=8", "sgd_minibatch_size=16", "model_config.hiddens=[16]"),
    *("device=cpu", "env_config.gravity=500.0", "--tracking", "off", "--run-dir"),
)


@pytest.mark.slow
def test_a_lost_terminal_costs_nothing(tmp_path):
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, "-m", "rlstack", *COMMAND, str(tmp_path / "run")])
    said = b""
    while b"update" not in said:
        said += os.read(terminal, 1000)
    time.sleep(0.1)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129
    assert kept(tmp_path)
    assert (tmp_path / "run" / "policy.safetensors").exists()
