"""What Tab offers, through click's own completion."""

import inspect
import subprocess
import sys
from dataclasses import fields

import pytest
from click.shell_completion import ShellComplete

from rlstack.cli.app import main
from rlstack.cli.recipes import RECIPES
from rlstack.env import AcrobotV1, CartPole, CartPoleV1, MountainCar, Pendulum
from rlstack.hparams import Hparams, RecurrentHparams
from rlstack.models import ContinuousLSTM, ContinuousMLP, DiscreteLSTM, DiscreteMLP

NESTED = {"env_config", "model_config", "optimizer_config"}


def offered(*before, text=""):
    complete = ShellComplete(main, {}, "rlstack", "_RLSTACK_COMPLETE")
    return [item.value for item in complete.get_completions([*before], text)]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cartpole-20260101-1", "cartpole-20260101-2", "other"):
        (tmp_path / "runs" / name / "checkpoints" / "ckpt-000000050").mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").touch()
    (tmp_path / "runs" / "none").mkdir()
    (tmp_path / "x.yaml").touch()


def test_environments():
    assert offered("train", text="cart") == ["cartpole", "cartpole-v1", "cartpole-swingup"]
    for command in ("train", "check", "bench", "config"):
        assert offered(command)[: len(RECIPES)] == list(RECIPES)
    assert offered("eval", ".", "--env")[: len(RECIPES)] == list(RECIPES)


@pytest.mark.parametrize(
    ("options", "cls"), [([], Hparams), (["--algorithm", "recurrent"], RecurrentHparams)]
)
def test_every_hyperparameter(options, cls):
    names = {field.name for field in fields(cls)} - {"model"}
    keys = {key.rstrip("=") for key in offered("train", *options, "cartpole")}
    assert {key for key in keys if "." not in key} == names - NESTED
    assert {key.partition(".")[0] for key in keys} == names


@pytest.mark.parametrize(
    ("algorithm", "cls"),
    [("feedforward", (DiscreteMLP, ContinuousMLP)), ("recurrent", (DiscreteLSTM, ContinuousLSTM))],
)
def test_options_of_models(algorithm, cls):
    found = offered("train", "--algorithm", algorithm, "cartpole", "gamma=0.9", text="model_config.")
    options = {name for each in cls for name in inspect.signature(each).parameters}
    assert {text[13:-1] for text in found} == options - {"observation_spec", "action_spec"}


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("cartpole", CartPole),
        ("mountain-car", MountainCar),
        ("pendulum", Pendulum),
        ("cartpole-v1", CartPoleV1),
        ("acrobot-v1", AcrobotV1),
    ],
)
def test_options_of_environments(name, cls):
    assert {text[:-1] for text in offered("check", name)} == {*cls.defaults}
    assert {text[11:-1] for text in offered("train", name, text="env_config.")} == {*cls.defaults}
    assert offered("bench", "discrete-dummy", text="env_config.") == ["env_config.bounds="]
    assert "terminate_when_unhealthy=" in offered("check", "hopper")
    assert "ctrl_cost_weight=" in offered("check", "swimmer")
    assert offered("check", "reacher") == ["reward_control_weight=", "reward_dist_weight="]
    assert offered("check", "my_package.my_module:MyEnv") == []


def test_runs_and_checkpoints(runs):
    both = ["runs/cartpole-20260101-1", "runs/cartpole-20260101-2"]
    for command in ("eval", "inspect", "sync"):
        assert offered(command) == [*both, "runs/other"]
        assert offered(command, text="runs/c") == both
    assert offered("train", "--resume") == ["auto", *both, "runs/other"]
    assert offered("train", "--resume", text="a") == ["auto"]
    for command in ("eval", "inspect"):
        assert offered(command, text="runs/other/") == ["runs/other/checkpoints/ckpt-000000050"]
    assert "gamma=" in offered("train", "-f", "x.yaml", text="ga")


def test_nothing_heavy_is_loaded():
    code = """
import sys
from click.shell_completion import ShellComplete
from rlstack.cli.app import main
complete = ShellComplete(main, {}, "rlstack", "_RLSTACK_COMPLETE")
assert complete.get_completions(["train", "cartpole"], "model_config.")
assert not {"torch", "rich", "mlflow"} & {*sys.modules}
"""
    subprocess.run([sys.executable, "-c", code], check=True)
