"""Environments with endings, against Gymnasium's own."""

import gymnasium
import numpy as np
import pytest
import torch

from rlstack.env import AcrobotV1, CartPoleV1, EnvChecks

PAIRS = {"CartPole-v1": (CartPoleV1, 2), "Acrobot-v1": (AcrobotV1, 3)}


class TestCartPoleV1(EnvChecks):
    env_cls = CartPoleV1
    steps = 64


class TestAcrobotV1(EnvChecks):
    env_cls = AcrobotV1


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.usefixtures("float64")
def test_as_gymnasiums(name):
    """From the same states, under the same actions, to the end of episodes."""
    cls, choices = PAIRS[name]
    theirs, mine = gymnasium.make(name).unwrapped, cls(4)
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(3):
        theirs.reset(seed=int(rng.integers(1000)))
        if name == "Acrobot-v1":
            theirs.state = rng.uniform(-2.5, 2.5, 4)
        mine.reset()
        for _ in range(200):
            action = int(rng.integers(choices))
            mine.state = torch.tensor(np.asarray(theirs.state, dtype=np.float64)).expand(4, -1)
            out = mine.step(torch.full((4, 1), action))
            obs, reward, terminated, _, _ = theirs.step(action)
            np.testing.assert_allclose(out["final_obs"][2].numpy(), obs, rtol=1e-6, atol=1e-6)
            assert out["rewards"].tolist() == [[reward]] * 4
            assert out["terminated"].tolist() == [[terminated]] * 4
            if terminated:
                ends += 1
                assert not torch.equal(out["obs"][2], out["final_obs"][2])
                break
    assert ends > 0


@pytest.mark.parametrize("cls", [CartPoleV1, AcrobotV1])
def test_an_episode_is_broken_off_at_its_limit(cls):
    env = cls(3, config={"time_limit": 5})
    env.reset()
    for step in range(1, 11):
        out = env.step(torch.ones(3, 1, dtype=torch.int64))
        assert out["truncated"].all() == (step % 5 == 0)
        assert not out["terminated"].any()
        if step % 5 == 0:
            assert (out["obs"] != out["final_obs"]).any(1).all()
            assert not env.age.any()
        else:
            assert torch.equal(out["obs"], out["final_obs"])
