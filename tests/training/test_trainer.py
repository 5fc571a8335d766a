import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from rlstack import RecurrentAlgorithm, Trainer
from rlstack.conditions import Condition, HitsUpperBound, Plateaus, TimesOut
from rlstack.env import CartPole, ContinuousDummyEnv, DiscreteDummyEnv

from ..helpers import SMALL, parameters

CONFIG = {"num_envs": 4, "horizon": 4, "device": "cpu", "seed": 0, "model_config": SMALL}


@pytest.fixture(autouse=True)
def _untracked(monkeypatch):
    """Most of these tests are about other things than MLflow: `test_tracking` starts the real one."""
    monkeypatch.setattr("rlstack.tracking.mlflow_sender.MlflowSender._start", lambda self: None)


def make(env_cls=DiscreteDummyEnv, **options):
    return Trainer(env_cls, algorithm_config=CONFIG, **options)


def after(updates):
    return HitsUpperBound("algorithm/steps", updates)


def test_totals():
    trainer = make()
    stats = [trainer.step() for _ in range(3)]
    assert [s["algorithm/collects"] for s in stats] == [1, 2, 3]
    assert [s["algorithm/steps"] for s in stats] == [1, 2, 3]
    assert [s["env/total_steps"] for s in stats] == [16, 32, 48]
    assert all(0 < s["memory/free"] < s["memory/total"] and 0 < s["memory/percent"] < 100 for s in stats)
    assert all(type(value) is float for value in stats[-1].values())


def test_run_stops_as_soon_as_any_condition_holds():
    stats = make(stop_conditions=[after(5), TimesOut(600)]).run()
    assert stats["algorithm/steps"] == 5


def test_conditions_of_a_run_go_before_the_trainers():
    trainer = make(stop_conditions=[after(2)])
    assert trainer.run(stop_conditions=[after(4)])["algorithm/steps"] == 4
    assert trainer.run()["algorithm/steps"] == 5


def test_conditions_begin_anew_with_every_run():
    condition = Plateaus("coefficients/lr", patience=3)
    trainer = make(stop_conditions=[condition])
    assert trainer.run()["algorithm/steps"] == 4
    assert trainer.run()["algorithm/steps"] == 8


def test_updates_yields_every_one():
    assert [s["algorithm/steps"] for s in make().updates(stop_conditions=[after(4)])] == [1, 2, 3, 4]


def test_recurrent():
    trainer = Trainer(
        DiscreteDummyEnv,
        algorithm_cls=RecurrentAlgorithm,
        algorithm_config={**CONFIG, "model_config": {"hidden_size": 8}},
    )
    assert isinstance(trainer.algorithm, RecurrentAlgorithm)
    assert trainer.step()["env/steps"] == 16


def test_environment_config_reaches_the_environment():
    trainer = make(ContinuousDummyEnv)
    trainer.run(env_config={"bounds": 0.25}, stop_conditions=[after(1)])
    assert trainer.algorithm.env.config == {"bounds": 0.25}


def test_evaluations_during_a_run():
    trainer = make(CartPole)
    history = list(
        trainer.updates(steps_per_eval=2, eval_env_config={"start_x": 0.0}, stop_conditions=[after(5)])
    )
    assert ["eval/returns/mean" in stats for stats in history] == [False, True, False, True, False]
    assert trainer.algorithm._eval_collector.env.config["start_x"] == 0
    assert trainer.algorithm.env.config["start_x"] == 2


def test_evaluations_do_not_disturb_training():
    def train(**options):
        trainer = make(CartPole)
        trainer.run(stop_conditions=[after(4)], **options)
        trainer.eval(deterministic=False)
        trainer.step()
        return parameters(trainer.algorithm)

    assert torch.equal(train(), train(steps_per_eval=1, eval_env_config={"start_theta": 0.0}))


@pytest.mark.parametrize("value", [0, True, 1.5])
def test_steps_per_eval_must_be_a_positive_integer(value):
    with pytest.raises(ValueError, match=f"steps_per_eval is {value}"):
        make().run(steps_per_eval=value)


class Interrupts(Condition):
    """Presses Ctrl-C once a number of updates is reached."""

    def __init__(self, at):
        self.at = at

    def __call__(self, stats):
        if stats["algorithm/steps"] == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return False


def test_ctrl_c_ends_an_endless_run_with_its_last_statistics():
    trainer = make(stop_conditions=[Interrupts(3)])
    before = signal.getsignal(signal.SIGINT)
    stats = trainer.run()
    assert stats["algorithm/steps"] == trainer.steps == 3
    assert trainer.interrupted
    assert signal.getsignal(signal.SIGINT) is before
    trainer.run(stop_conditions=[after(4)])
    assert not trainer.interrupted


def test_a_second_ctrl_c_does_not_wait_for_the_update():
    class Slow(DiscreteDummyEnv.__mro__[1]):
        def __init__(self, num_envs, /, **kwargs):
            super().__init__(num_envs, **kwargs)
            self.action_spec = DiscreteDummyEnv(1).action_spec
            self.steps = 0

        def _displacement(self, action):
            self.steps += 1
            if self.steps == 6:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return action

    trainer = make(Slow)
    stats = trainer.run()
    assert stats["algorithm/steps"] == 1
    assert trainer.interrupted
    assert trainer.algorithm.env.steps == 6


def test_ctrl_c_while_mlflow_is_waited_for():
    trainer = make(stop_conditions=[after(2)])

    def close(status):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    trainer.tracker.close = close
    assert trainer.run()["algorithm/steps"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop_conditions": after(1)}, "stop_conditions is a HitsUpperBound, expected a list"),
        ({"stop_conditions": [lambda stats: True]}, "derive it from Condition"),
        ({"algorithm_config": [1]}, "expected hyperparameters by name"),
        ({"algorithm_cls": "ppo"}, "expected Algorithm or RecurrentAlgorithm"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(TypeError, match=message):
        Trainer(DiscreteDummyEnv, **options)


def test_runs_in_other_threads_too():
    trainer, results = make(), []
    thread = threading.Thread(target=lambda: results.append(trainer.run(stop_conditions=[after(2)])))
    thread.start()
    thread.join(60)
    assert results[0]["algorithm/steps"] == 2


def test_leaving_the_updates_early_is_fine():
    trainer = make()
    for stats in trainer.updates():
        if stats["algorithm/steps"] == 2:
            break
    assert trainer.steps == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_errors_of_the_environment_come_through():
    class Bad(ContinuousDummyEnv.__mro__[1]):
        def __init__(self, num_envs, /, **kwargs):
            super().__init__(num_envs, **kwargs)
            self.action_spec = ContinuousDummyEnv(1).action_spec

        def _displacement(self, action):
            raise RuntimeError("stuck")

    with pytest.raises(ValueError, match="stuck"):
        make(Bad).run()


ENDLESS = """
from rlstack import Trainer
from rlstack.conditions import Condition
from rlstack.env import DiscreteDummyEnv
trainer = Trainer(DiscreteDummyEnv, algorithm_config={"num_envs": 4, "horizon": 4})
class Says(Condition):
    def __call__(self, stats):
        print("update", flush=True)
        return False
stats = trainer.run(stop_conditions=[Says()])
print("ended with", stats["algorithm/steps"], bool(trainer.interrupted))
"""


def test_ctrl_c_on_a_real_process(tracked, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    for _ in range(3):
        assert process.stdout.readline() == "update\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert rest.splitlines()[-1].startswith("ended with")
    assert rest.splitlines()[-1].endswith("True")
