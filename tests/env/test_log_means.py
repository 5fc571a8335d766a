"""What simulators log becomes metrics of a horizon."""

import pytest
import torch

from rlstack import Algorithm, EnvError
from rlstack.env.vec_env import from_vec_env
from rlstack.env.vec_env.log_means import metric_name

from ..helpers import SMALL
from . import vec_forms
from .vec_forms import made
from .walk import CONFIG, walked


def test_logs_are_means_over_a_horizon():
    env = made("IsaacLab23", init_at_random_ep_len=False)(5)
    _, truth = walked(env)
    ended = [(rewards[lost | late], (lost | late).any()) for _, _, rewards, lost, late in truth]
    # Each log counts once, also where it stays in `extras` for steps after.
    means = torch.stack([rewards.mean() for rewards, any_ in ended if any_])
    assert 1 < len(means) < len(truth)
    said = env.metrics()
    assert said.keys() == {"Episode_Reward/near", "Curriculum/level"}
    torch.testing.assert_close(float(said["Episode_Reward/near"]), float(means.mean()))
    assert said["Curriculum/level"] == 2
    assert env.metrics() == {}


def test_logs_keep_what_the_simulator_writes_over():
    class Writes(vec_forms.IsaacLab23):
        """Writes into one tensor in one dictionary."""

        def step(self, actions):
            *out, extras = super().step(actions)
            extras["log"] = self.__dict__.setdefault("log", {"Metrics/n": torch.zeros(())})
            extras["log"]["Metrics/n"] += 1
            return *out, extras

    env = from_vec_env(Writes)(2)
    env.reset()
    for _ in range(3):
        env.step(torch.zeros(2, 1))
    assert float(env.metrics()["Metrics/n"]) == 2


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("Genesis", {"env/Episode/rew_near", "env/Episode/share_"}),
        ("LeggedGym", {"env/Episode/rew_near", "env/Episode/max_command_x"}),
        ("Playground", {"env/reward/near", "env/Episode/success"}),
        ("Mjlab", {"env/Episode_Termination/time_out"}),
    ],
)
def test_logs_are_statistics(form, names):
    stats = Algorithm(made(form), **CONFIG, model_config=SMALL).collect()
    own = {name for name in stats if name.startswith("env/")} - {"env/steps", "env/resets"}
    assert own == names


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("/a/b", "a/b"),
        ("//a//b/", "a/b"),
        ("steps", "Episode/steps"),
        ("/../a/ß", "a/ß"),
        ("x" * 400, f"Episode/{'x' * 192}"),
    ],
)
def test_names_of_logs_are_made_such_that_mlflow_takes_them(key, name):
    assert metric_name(key) == name


def test_a_log_that_is_no_number_is_named():
    class Odd(vec_forms.Playground):
        def step(self, actions):
            *out, extras = super().step(actions)
            return *out, extras | {"log": {"stage": "two"}}

    env = from_vec_env(Odd, init_at_random_ep_len=False)(2)
    env.reset()
    with pytest.raises(EnvError, match="Odd logs stage as 'two', expected a number or a tensor of them"):
        env.step(torch.zeros(2, 1))


def test_nan_is_left_out_of_means_and_a_reset_forgets():
    class Says(vec_forms.Playground):
        def step(self, actions):
            *out, extras = super().step(actions)
            return *out, extras | {"log": said.pop(0)}

    nan, tensor = float("nan"), torch.tensor
    said = [
        {"a/float": nan, "a/tensor": tensor([nan, nan]), "a/both": 1, "a/none": tensor(nan)},
        {"a/float": 2.0, "a/tensor": tensor([1.0, 3.0]), "a/both": tensor([4.0, 6.0])},
        {"a/float": 3.0, "a/tensor": tensor([4, 4]), "a/both": nan, "a/true": True},
        {"a/float": 7.0},
    ]
    env = from_vec_env(Says, init_at_random_ep_len=False)(2)
    env.reset()
    for _ in range(3):
        env.step(torch.zeros(2, 1))
    means = {name: float(value) for name, value in env.metrics().items()}
    assert means.pop("a/none") != means.get("a/none")
    assert means == {"a/float": 2.5, "a/tensor": 3.0, "a/both": 3.0, "a/true": 1.0}
    env.step(torch.zeros(2, 1))
    env.reset()
    assert env.metrics() == {}
