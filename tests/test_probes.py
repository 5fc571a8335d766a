"""Probe environments, each learnable by one part of the algorithm only, and a probe of memory.

After Andy Jones, "Debugging RL, Without the Agonizing Pain", restated for horizons that never end: a constant
reward r is worth r / (1 − γ).
"""

import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm, RecurrentAlgorithm, specs
from rlstack.env import Env

from .helpers import update

GAMMA = 0.5
BOTH = pytest.mark.parametrize("algorithm_cls", [Algorithm, RecurrentAlgorithm])
# What the others ask of a recurrent policy too.
SIMPLE = pytest.mark.parametrize(
    "algorithm_cls", [Algorithm, pytest.param(RecurrentAlgorithm, marks=pytest.mark.slow)]
)


class Probe(Env):
    """A bit as the observation, two actions; subclasses say what the bit does and what is rewarded."""

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec, self.action_spec = specs.Unbounded((1,)), specs.Categorical(2, shape=(1,))

    def reset(self, *, config=None):
        self.bit = self.first_bit()
        return self.obs()

    def step(self, action):
        rewards = self.reward(action)
        self.bit = self.next_bit()
        return TensorDict({"obs": self.obs(), "rewards": rewards}, self.num_envs)

    def obs(self):
        return 2 * self.bit - 1

    def random_bits(self):
        return torch.randint(2, (self.num_envs, 1)).float()

    def first_bit(self):
        return self.random_bits()

    def next_bit(self):
        return self.bit


class ConstantReward(Probe):
    """Value head: everything is worth 1 / (1 − γ)."""

    def reward(self, action):
        return torch.ones(self.num_envs, 1)


class RewardByObservation(Probe):
    """Input path: ±1 is worth ±1 / (1 − γ)."""

    def reward(self, action):
        return self.obs()


class DelayedReward(Probe):
    """Discounting: the bit flips at each step and 1 is paid; V(1) = 1 + γ V(0), V(0) = γ V(1)."""

    def reward(self, action):
        return self.bit

    def next_bit(self):
        return 1 - self.bit


class RewardByAction(Probe):
    """Policy gradient: action 1 is right."""

    def reward(self, action):
        return 2.0 * action - 1


class RewardByActionAndObservation(Probe):
    """All of it: the action has to be the bit."""

    def reward(self, action):
        return 2.0 * (action == self.bit) - 1

    def next_bit(self):
        return self.random_bits()


def train(env_cls, algorithm_cls, updates, **changes):
    model_config = {"hiddens": [32]} if algorithm_cls is Algorithm else {"hidden_size": 32}
    hyperparameters = {
        "num_envs": 128, "horizon": 16, "gamma": GAMMA, "normalize_rewards": False, "sgd_minibatch_size": 512,
        "optimizer_config": {"lr": 3e-3}, "seed": 0, "device": "cpu", "model_config": model_config,
    }  # fmt: skip
    if algorithm_cls is RecurrentAlgorithm:
        hyperparameters["sgd_minibatch_size"] = 128
    algorithm = algorithm_cls(env_cls, **{**hyperparameters, **changes})
    update(algorithm, updates)
    return algorithm


def values(algorithm, *observations):
    """Values that were collected for these observations late in the horizon, and their means."""
    algorithm.collect()
    buffer = algorithm.collector.buffer
    late = slice(8, 16)
    obs, got = buffer.obs[late], buffer.values[late]
    return [got[(obs - observation).abs() < 0.5].mean().item() for observation in observations]


@SIMPLE
def test_constant_reward(algorithm_cls):
    algorithm = train(ConstantReward, algorithm_cls, 60)
    assert values(algorithm, -1, 1) == pytest.approx([2, 2], abs=0.1)


@SIMPLE
def test_reward_by_observation(algorithm_cls):
    algorithm = train(RewardByObservation, algorithm_cls, 60)
    assert values(algorithm, -1, 1) == pytest.approx([-2, 2], abs=0.1)


@BOTH
def test_delayed_reward(algorithm_cls):
    algorithm = train(DelayedReward, algorithm_cls, 80)
    assert values(algorithm, -1, 1) == pytest.approx([2 / 3, 4 / 3], abs=0.1)


@SIMPLE
def test_reward_by_action(algorithm_cls):
    algorithm = train(RewardByAction, algorithm_cls, 60)
    assert algorithm.eval()["rewards/min"] == 1
    assert values(algorithm, -1, 1) == pytest.approx([2, 2], abs=0.25)


@BOTH
def test_reward_by_action_and_observation(algorithm_cls):
    algorithm = train(RewardByActionAndObservation, algorithm_cls, 60)
    assert algorithm.eval()["rewards/mean"] > 0.99
    assert values(algorithm, -1, 1) == pytest.approx([2, 2], abs=0.25)


class Memory(Probe):
    """A cue at the first step, nothing to see afterwards; the cue is what the later actions have to be."""

    def reset(self, *, config=None):
        self.cue, self.age = self.random_bits(), 0
        return 2 * self.cue - 1

    def step(self, action):
        rewards = torch.zeros(self.num_envs, 1) if self.age == 0 else 2.0 * (action == self.cue) - 1
        self.age += 1
        return TensorDict({"obs": torch.zeros(self.num_envs, 1), "rewards": rewards}, self.num_envs)


# The cue lies in the first of two sequences: in the second one, only the carried state knows it.
MEMORY = {"horizon": 8, "num_envs": 256, "gamma": 0.9, "optimizer_config": {"lr": 1e-2}}


def test_recurrent_policies_remember():
    algorithm = train(Memory, RecurrentAlgorithm, 60, **MEMORY, seq_len=4)
    assert algorithm.eval()["returns/mean"] > 6.8
    algorithm.eval()
    rewards = algorithm._eval_collector.buffer.rewards
    assert (rewards[4:] == 1).float().mean() > 0.98


def test_feedforward_policies_cannot():
    algorithm = train(Memory, Algorithm, 60, **MEMORY)
    # Guessing is worth 0 on average over cues, whatever the guess; 256 environments, 7 rewards that agree.
    assert abs(algorithm.eval()["returns/mean"]) < 7 * 5 / 256**0.5
