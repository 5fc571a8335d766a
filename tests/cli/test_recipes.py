"""Recipes: both kinds of policies learn the same tasks."""

import re

import pytest
from click.testing import CliRunner

from rlstack import Algorithm, RecurrentAlgorithm, RecurrentPolicy
from rlstack.cli.app import main
from rlstack.cli.recipes import RECIPES
from rlstack.cli.resolve_env import resolve
from rlstack.runs.saved_config import ALGORITHMS

from ..helpers import OWN_RECIPES, update


@pytest.mark.parametrize("name", OWN_RECIPES)
def test_recurrent_ones_differ_in_what_they_must(name):
    env_cls, feedforward = resolve(name, {})
    _, recurrent = resolve(name, {}, "recurrent")
    assert {key for key in recurrent if recurrent[key] != feedforward[key]} == {
        "model_config",
        "sgd_minibatch_size",
    }
    one, two = Algorithm(env_cls, **feedforward), RecurrentAlgorithm(env_cls, **recurrent)
    # As many transitions in a minibatch, of as many in a buffer.
    steps = two.hparams.sequence_length
    assert two.hparams.sgd_minibatch_size * steps == one.hparams.sgd_minibatch_size
    assert two.hparams.horizon % steps == 0


@pytest.mark.parametrize("name", ["discrete-dummy", "continuous-dummy"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_few_updates_are_enough_for_the_smallest(name, algorithm):
    recipe = RECIPES[name]
    env_cls, hyperparameters = resolve(name, {"seed": 0, "device": "cpu"}, algorithm)
    made = ALGORITHMS[algorithm](env_cls, **hyperparameters)
    update(made, 5)
    assert recipe.score(made.policy) >= recipe.target


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cartpole", "mountain-car", "pendulum"])
def test_recurrent_ones_improve(name):
    fewer = {"num_envs": 256, "sgd_minibatch_size": 128, "seed": 0, "device": "cpu"}
    env_cls, hyperparameters = resolve(name, fewer, "recurrent")
    made = RecurrentAlgorithm(env_cls, **hyperparameters)
    first = update(made)["rewards/mean"]
    assert update(made, 7)["rewards/mean"] > first


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OWN_RECIPES)
def test_recurrent_ones_solve(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["train", name, "--algorithm", "recurrent", "--seed", "0", "--max-updates", "150"]
    result = CliRunner().invoke(main, [*command, "--tracking", "off", "--run-dir", "out"])
    assert result.exit_code == 0, result.output
    assert re.search(r"^Solved: .* after \d+ updates", result.output, re.MULTILINE)
    assert RECIPES[name].score(RecurrentPolicy.load("out/policy.safetensors")) >= RECIPES[name].target
