"""Two ranks with n environments each learn as one process with 2n does, from the same data."""

import pytest
import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch import nn

from rlstack import Algorithm, RecurrentAlgorithm
from rlstack.env import Env
from rlstack.ppo import executor
from rlstack.specs import Categorical, Composite, Unbounded

from .processes import in_ranks

NUM_ENVS, HORIZON = 12, 8


class Recorded(Env):
    """Returns what was drawn once for all environments, whatever the actions; each rank has its part."""

    max_horizon = None

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec = Composite(near=Unbounded(3, device=device), far=Unbounded(2, device=device))
        self.action_spec = Categorical(3, shape=(1,), device=device)
        count = dist.get_world_size() if dist.is_initialized() else 1
        first = dist.get_rank() * num_envs if dist.is_initialized() else 0
        source = torch.Generator().manual_seed(5)

        def draw(*shape):
            return torch.randn(40, num_envs * count, *shape, generator=source)[:, first : first + num_envs]

        # Ranks that see as different things as these would each learn otherwise alone.
        scale = 1.0 + torch.arange(num_envs * count)[first : first + num_envs, None]
        self.near, self.far, self.rewards = draw(3) * scale, draw(2), draw(1) * scale
        self.chance = draw(3, 1).abs()
        self.endings, self.t = (config or {}).get("endings", False), 0

    def obs(self):
        return self.seen(self.t)

    def seen(self, t):
        return TensorDict({"near": self.near[t], "far": self.far[t]}, batch_size=self.num_envs)

    def reset(self, *, config=None):
        return self.obs()

    def step(self, action):
        self.t += 1
        said = {"obs": self.obs(), "rewards": self.rewards[self.t]}
        if self.endings:
            terminated, truncated, invalid = (self.chance[self.t] < 0.3).unbind(1)
            said |= {"terminated": terminated, "truncated": truncated & ~terminated, "valid": ~invalid}
            said["final_obs"] = self.seen(-self.t)
        return said


def parts(total, size, *, shuffle, device):
    """Yield minibatches in an order that the ranks together and the one alone agree about."""
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    envs = NUM_ENVS // ranks
    steps, first = total // envs, (dist.get_rank() if dist.is_initialized() else 0) * envs
    order = torch.randperm(steps * NUM_ENVS // 2, generator=torch.Generator().manual_seed(3))
    # Pairs of one sequence from each half of the environments.
    step, env = order // (NUM_ENVS // 2), order % (NUM_ENVS // 2)
    for chunk in range(0, len(order), size * ranks // 2):
        s, e = (each[chunk : chunk + size * ranks // 2] for each in (step, env))
        if ranks == 1:
            yield torch.cat([s * NUM_ENVS + e, s * NUM_ENVS + e + NUM_ENVS // 2])
        else:
            yield s * envs + e
    assert first in (0, NUM_ENVS // 2)


def train(rank, recurrent, changes, whole):
    """Return what two updates leave of what there is to compare: gradients before each step, and the rest."""
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    torch.manual_seed(0)
    cls = RecurrentAlgorithm if recurrent else Algorithm
    config = {"hidden_size": 16} if recurrent else {"hiddens": [16]}
    algorithm = cls(
        Recorded,
        num_envs=NUM_ENVS // ranks,
        horizon=HORIZON,
        horizons_per_env_reset=-1,
        seed=0,
        device="cpu",
        model_config=config,
        optimizer_cls=torch.optim.SGD,
        optimizer_config={"lr": 0.01},
        **changes,
    )
    if not whole:
        executor.minibatches = parts
    gradients, apply = [], algorithm.learner.apply

    def keep(losses):
        flat = nn.utils.parameters_to_vector([each.grad for each in algorithm.learner.parameters])
        gradients.append(torch.cat([flat.to(torch.float32), losses]).tolist())
        return apply(losses)

    algorithm.learner.apply = keep
    stats = [algorithm.collect(deterministic=True) | algorithm.step() for _ in range(2)]
    algorithm.collect(deterministic=True)
    algorithm._absorb_observations()
    normalizer = algorithm.policy.normalizer
    return {
        "gradients": gradients,
        "stats": [{key: each[key] for key in each if not key.startswith("profiling/")} for each in stats],
        "scale": [each.tolist() for each in algorithm.advantages.return_moments.buffers()],
        "observations": [each.flatten().tolist() for each in normalizer.buffers()] if normalizer else [],
        "parameters": nn.utils.parameters_to_vector(algorithm.policy.parameters()).tolist(),
        "env_steps": algorithm.env_steps,
    }


def close(one, other, tolerance):
    one, other = torch.tensor(one, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)
    return float((one - other).norm()) <= tolerance * float(other.norm())


ENDINGS = {"env_config": {"endings": True}, "normalize_observations": True}

CASES = {
    "whole": (False, {"num_sgd_iters": 2, "normalize_observations": True}, True),
    "minibatches": (False, {"num_sgd_iters": 2, "sgd_minibatch_size": 24}, False),
    "endings": (False, ENDINGS | {"sgd_minibatch_size": 24}, False),
    "accumulated": (False, {"accumulate_grads": True, "sgd_minibatch_size": 24, "engine": "eager"}, True),
    "recurrent": (True, ENDINGS | {"seq_len": 4}, True),
    "recurrent, minibatches": (True, {"seq_len": 4, "sgd_minibatch_size": 4, "engine": "eager"}, False),
    "16 bits": (False, {"enable_amp": True, "normalize_observations": True, "num_sgd_iters": 2}, True),
}


def compare(rank):
    """Return what every case leaves."""
    before = executor.minibatches
    found = {}
    for name, (recurrent, changes, whole) in CASES.items():
        changes = dict(changes)
        if dist.is_initialized() and "sgd_minibatch_size" in changes:
            changes["sgd_minibatch_size"] //= 2
        found[name] = train(rank, recurrent, changes, whole)
        executor.minibatches = before
    return found


@pytest.fixture(scope="module")
def results():
    [alone] = in_ranks(compare, count=1)
    return alone, in_ranks(compare)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_learn_as_one(results, name):
    alone, ranks = results
    assert isinstance(alone, dict), alone
    tolerance = 1e-2 if name == "16 bits" else 1e-6
    for rank in ranks:
        assert isinstance(rank, dict), rank
        got, want = rank[name], alone[name]
        assert got["env_steps"] == want["env_steps"]
        assert len(got["gradients"]) == len(want["gradients"])
        # Later ones are of parameters that have other last bits.
        assert close(got["gradients"][0], want["gradients"][0], tolerance)
        assert close(got["gradients"][-1], want["gradients"][-1], 10 * tolerance)
        for one, other in zip(got["stats"], want["stats"], strict=True):
            assert one == pytest.approx(other, rel=1e-4 if tolerance < 1e-4 else 0.05, abs=1e-5)
        for key in ("scale", "observations"):
            for one, other in zip(got[key], want[key], strict=True):
                assert one == pytest.approx(other, rel=1e-12)
    assert len({str(rank[name]["parameters"]) for rank in ranks}) == 1
