"""Recipes: both kinds of policies learn the same tasks."""

import json
import re

import pytest
from click.testing import CliRunner

from rlstack import Algorithm, RecurrentAlgorithm
from rlstack.cli import main
from rlstack.names import resolve
from rlstack.recipes import RECIPES
from rlstack.run_options import ALGORITHMS

from .helpers import update


@pytest.mark.parametrize("name", RECIPES)
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
    before = recipe.score(made.policy)
    update(made, 5)
    assert recipe.score(made.policy) >= recipe.target > before


@pytest.mark.parametrize("name", ["cartpole", "mountain-car", "pendulum"])
def test_recurrent_ones_improve(name):
    recipe = RECIPES[name]
    env_cls, hyperparameters = resolve(name, {"seed": 0, "device": "cpu"}, "recurrent")
    made = RecurrentAlgorithm(env_cls, **hyperparameters)
    first = update(made)["rewards/mean"]
    assert update(made, 4)["rewards/mean"] > first
    assert recipe.score(made.policy) <= max(recipe.target, 1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", RECIPES)
def test_recurrent_ones_solve(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [
        "train",
        name,
        "--algorithm",
        "recurrent",
        "--seed",
        "0",
        "--max-time",
        "6m",
        "--tracking",
        "off",
    ]
    result = CliRunner().invoke(main, [*command, "--run-dir", "out"])
    assert result.exit_code == 0, result.output
    assert re.search(r"^Solved: ", result.output, re.MULTILINE)
    # The run's policy goes on solving it, loaded from its file and in other environments.
    found = json.loads(CliRunner().invoke(main, ["eval", "out", "--json"]).output)
    assert found["updates"] <= 150
