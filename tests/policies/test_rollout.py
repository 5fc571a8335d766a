"""One loop judges policies, whoever asks."""

import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm, Env, EnvError, RecurrentAlgorithm, specs
from rlstack.policies.rollout import rollout


class Sum(Env):
    """Adds actions up; writes into the tensors that it has returned."""

    observation_spec = specs.Unbounded((1,))
    action_spec = specs.Unbounded((1,))

    def reset(self, *, config=None):
        self.x = torch.linspace(-1, 1, self.num_envs)[:, None]
        return self.x

    def step(self, action):
        self.x += action
        return TensorDict(obs=self.x, rewards=self.x)


class Broken(Sum):
    def step(self, action):
        return super().step(action).select("obs")


CLASSES = (Algorithm, RecurrentAlgorithm)


@pytest.mark.parametrize("cls", CLASSES)
def test_observations_follow_from_the_deterministic_actions(cls):
    policy = cls(Sum, num_envs=4, horizon=8, seed=0).policy
    obs, state = torch.linspace(-1, 1, 4)[:, None], None
    moments = list(rollout(policy, Sum(4), num_envs=4, steps=3))
    assert len(moments) == 3
    for seen, rewards, ending in moments:
        assert ending is None
        step = policy.act(obs, state, deterministic=True)
        obs, state = obs + step.actions, step.state
        assert torch.equal(seen, obs)
        assert torch.equal(rewards, obs)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_algorithm_judges_itself_the_same(cls):
    algorithm = cls(Sum, num_envs=4, horizon=8, seed=0)
    rewards = torch.stack([r for _, r, _ in rollout(algorithm.policy, Sum(4), num_envs=4, steps=8)])
    stats = algorithm.eval()
    assert stats["rewards/mean"] == pytest.approx(rewards.mean().item(), rel=1e-4, abs=1e-6)
    assert stats["returns/max"] == pytest.approx(rewards.sum(0).max().item(), rel=1e-4, abs=1e-5)


def test_what_breaks_the_contract_is_named():
    policy = Algorithm(Sum, num_envs=4, horizon=8).policy
    with pytest.raises(EnvError, match=r"Broken.step returned .* expected a TensorDict"):
        next(rollout(policy, Broken(4), num_envs=4, steps=1))


class Seldom(Sum):
    def step(self, action):
        out, self.steps = super().step(action), getattr(self, "steps", 0) + 1
        return out if self.steps < 2 else out.set("terminated", self.x > 0)


def test_a_step_that_says_other_things_of_endings_is_named():
    policy = Algorithm(Sum, num_envs=4, horizon=8).policy
    with pytest.raises(EnvError, match=r"Seldom.step .step 1. returned terminated, and the first step did"):
        list(rollout(policy, Seldom(4), num_envs=4, steps=3))
