"""Advantages that are estimated anew before each SGD iteration, from the values as they are then."""

import copy
from functools import partial

import numpy as np
import pytest
import torch

from rlstack import Algorithm, HparamsError
from rlstack.env import CartPoleV1, Pendulum
from rlstack.hparams import RecurrentHparams

from ..helpers import parameters, update
from ..standin import like_on_a_gpu, record

BASE = {
    "num_envs": 8,
    "horizon": 32,
    "horizons_per_env_reset": -1,
    "seed": 1,
    "device": "cpu",
    "num_sgd_iters": 3,
    "sgd_minibatch_size": 64,
    "model_config": {"hiddens": [16]},
    "normalize_observations": True,
    "grad_block_size": 40,
}
WAYS = {
    "eager": lambda make, *args, **options: make(*args, **options, engine="eager"),
    "kernels": lambda make, *args, **options: make(*args, **options),
    "device": partial(like_on_a_gpu, engine="eager"),
    "recorded": partial(record, engine="eager"),
}


def make(way, env=CartPoleV1, **changes):
    return WAYS[way](Algorithm, env, **{**BASE, **changes})


def reference(algorithm, policy):
    """Return values, advantages and returns [T, B], of the horizon at hand by this policy, in float64."""
    buffer, hp = algorithm.collector.buffer, algorithm.hparams
    obs = policy.normalize(buffer.obs.flatten(0, 1))
    values = policy.double().model(obs.double())[1].detach().numpy().reshape(hp.horizon + 1, -1)
    rewards = (
        buffer.rewards.squeeze(-1).double().numpy() / algorithm.advantages.return_moments.var.sqrt().item()
    )
    cut, ends = np.zeros(rewards.shape, bool), np.zeros(rewards.shape)
    if buffer.endings is not None:
        cut, ends = buffer.endings.cut.squeeze(-1).numpy(), buffer.endings.values.squeeze(-1).double().numpy()
    advantages, after = np.zeros_like(rewards), np.zeros(hp.num_envs)
    for t in reversed(range(hp.horizon)):
        delta = rewards[t] + hp.gamma * np.where(cut[t], ends[t], values[t + 1]) - values[t]
        after = advantages[t] = delta + hp.gamma * hp.gae_lambda * np.where(cut[t], 0.0, after)
    returns = advantages + values[:-1]
    return values[:-1], (advantages - advantages.mean()) / advantages.std(), returns


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("env", [CartPoleV1, Pendulum])
def test_are_those_of_the_policy_as_it_is_then(env, way, monkeypatch):
    algorithm = make(way, env, recompute_advantages=True)
    update(algorithm, 2)
    algorithm.collect()
    executor, learner, seen = algorithm._executor, algorithm.learner, []
    iterate = executor.sgd_iteration

    def look(sequences, size):
        seen.append((copy.deepcopy(algorithm.policy), copy.deepcopy(sequences._columns)))
        iterate(sequences, size)

    monkeypatch.setattr(executor, "sgd_iteration", look)
    algorithm.step()
    assert len(seen) == 3
    assert len(learner.records()) == 3 * 4
    for policy, columns in seen:
        for got, expected in zip(columns[1:], reference(algorithm, policy), strict=True):
            np.testing.assert_allclose(got.view(32, 8).numpy(), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("way", WAYS)
def test_only_later_iterations_see_others(way):
    once, thrice = ({"num_sgd_iters": number} for number in (1, 3))
    ended = {}
    for number, changes in ((1, once), (3, thrice)):
        for anew in (False, True):
            algorithm = make(way, **changes, recompute_advantages=anew)
            update(algorithm, 3)
            ended[number, anew] = parameters(algorithm)
    assert torch.equal(ended[1, False], ended[1, True])
    assert not torch.allclose(ended[3, False], ended[3, True], atol=1e-5)


def test_are_not_asked_of_a_recurrent_policy():
    with pytest.raises(HparamsError, match="recompute_advantages is for feedforward policies: leave it out"):
        RecurrentHparams(recompute_advantages=True)
