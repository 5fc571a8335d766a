"""Probes of endings: tasks whose values are known, and what other ways to bootstrap make of them."""

import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm, specs
from rlstack.env import Env
from rlstack.models import Model


class Table(Model):
    """A value for each entry of a one-hot observation; actions don't matter."""

    def __init__(self, observation_spec, action_spec, /):
        super().__init__(observation_spec, action_spec)
        self.values = torch.nn.Linear(observation_spec.shape[0], 1, bias=False)
        self.logits = torch.nn.Parameter(torch.zeros(1, 2))

    def forward(self, obs):
        return TensorDict({"logits": self.logits.expand(len(obs), 1, 2)}, len(obs)), self.values(obs)


class Ring(Env):
    """A place that moves on by one with each step, as a one-hot observation."""

    places: int

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec = specs.Unbounded((self.places,))
        self.action_spec = specs.Categorical(2, shape=(1,))

    def obs(self, place):
        return torch.nn.functional.one_hot(place.squeeze(-1), self.places).float()


class Corridor(Ring):
    """A reward of 1 at the end of the corridor, where the episode terminates."""

    places = 6

    def reset(self, *, config=None):
        self.place = torch.randint(self.places, (self.num_envs, 1))
        return self.obs(self.place)

    def step(self, action):
        over = self.place == self.places - 1
        final = self.obs(self.place)
        self.place = torch.where(over, 0, self.place + 1)
        said = {"obs": self.obs(self.place), "rewards": over.float(), "terminated": over, "final_obs": final}
        return TensorDict(said, self.num_envs)


class Phase(Ring):
    """A reward in one of five phases, broken off after 7 steps and put back to a random phase."""

    places, limit = 5, 7

    def reset(self, *, config=None):
        self.place = torch.randint(self.places, (self.num_envs, 1))
        self.age = torch.randint(self.limit, (self.num_envs, 1))
        return self.obs(self.place)

    def step(self, action):
        rewards = (self.place == 0).float()
        self.place, self.age = (self.place + 1) % self.places, self.age + 1
        final, truncated = self.obs(self.place), self.age == self.limit
        self.place = torch.where(truncated, torch.randint(self.places, self.place.shape), self.place)
        self.age = torch.where(truncated, 0, self.age)
        obs = self.obs(self.place)
        said = {"obs": obs, "rewards": rewards, "truncated": truncated, **self.said(final, obs)}
        return TensorDict(said, self.num_envs)

    def said(self, final, obs):
        return {"final_obs": final}


class ValueOfTheStateBefore(Phase):
    def said(self, final, obs):
        return {}


class ValueAfterTheReset(Phase):
    def said(self, final, obs):
        return {"final_obs": obs}


def learned_values(env_cls, gamma):
    """Values of all places after training, the last updates with a small learning rate."""
    torch.manual_seed(0)
    algorithm = Algorithm(
        env_cls,
        model_cls=Table,
        num_envs=256,
        horizon=14,
        horizons_per_env_reset=-1,
        gamma=gamma,
        gae_lambda=0.3,
        vf_clip_param=None,
        normalize_rewards=False,
        lr_schedule=[(0, 0.1), (230_000, 2e-3)],
        lr_schedule_kind="interp",
    )
    for _ in range(80):
        algorithm.collect()
        algorithm.step()
    return algorithm.policy.model.values.weight.detach().flatten()


def test_a_reward_at_the_end_is_worth_its_discount_by_the_steps_to_it():
    values = learned_values(Corridor, 0.8)
    expected = 0.8 ** torch.arange(5, -1, -1)
    torch.testing.assert_close(values, expected, rtol=0.02, atol=0)


@pytest.fixture(scope="module")
def phase_values():
    """Of each phase, for a task that is never broken off: the sum over γᵏ of its rewards."""
    steps = torch.arange(200)
    return torch.stack([(0.7**steps * ((phase + steps) % 5 == 0)).sum() for phase in range(5)])


def test_a_time_limit_with_the_true_next_observation_gives_the_values_of_a_task_without(phase_values):
    torch.testing.assert_close(learned_values(Phase, 0.7), phase_values, rtol=0.01, atol=0)


@pytest.mark.parametrize("env_cls", [ValueOfTheStateBefore, ValueAfterTheReset])
def test_other_bootstraps_miss_them(env_cls, phase_values):
    error = (learned_values(env_cls, 0.7) / phase_values - 1).abs().max()
    assert error > 0.05
