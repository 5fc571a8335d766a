"""Finite rewards that float32 can't sum, and rewards far beyond all others."""

import copy
import logging
import math

import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm, NonFiniteError, RecurrentAlgorithm, Trainer, specs
from rlstack.common.serialization import pack
from rlstack.env import Env
from rlstack.ppo import estimates

from ..helpers import SMALL, update
from ..standin import record

BASE = {"num_envs": 8, "horizon": 4, "seed": 0, "device": "cpu", "model_config": SMALL}
LSTM = {"model_config": {"hidden_size": 8}, "seq_len": 2}
MOST = torch.finfo(torch.float32).max


class Spiky(Env):
    """Rewards of about `unit`, and `rewards` at (reset, step, environment) instead."""

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec, self.action_spec = specs.Unbounded((2,)), specs.Categorical(2, shape=(1,))
        self.resets = -1

    def reset(self, *, config=None):
        self.resets, self.steps = self.resets + 1, -1
        return torch.randn(self.num_envs, 2)

    def step(self, action):
        self.steps += 1
        rewards = self.config.get("unit", 1.0) * torch.randn(self.num_envs, 1)
        for (resets, step, env), value in self.config.get("rewards", {}).items():
            if (self.resets, self.steps) == (resets, step):
                rewards[env] = value
        return TensorDict({"obs": torch.randn(self.num_envs, 2), "rewards": rewards}, self.num_envs)


def make(rewards, cls=Algorithm, unit=1.0, **changes):
    return cls(Spiky, **{**BASE, "env_config": {"rewards": rewards, "unit": unit}, **changes})


def learned(algorithm):
    """Return all state but that of generators and of where the environments are."""
    state = {
        key: value for key, value in algorithm.state_dict().items() if key not in ("random", "collector")
    }
    plain, tensors = pack(copy.deepcopy(state), "state")
    return plain, tensors


@pytest.mark.parametrize(("cls", "options"), [(Algorithm, {}), (RecurrentAlgorithm, LSTM)])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("bad", [{(1, 1, 3): MOST, (1, 2, 3): MOST}, {(1, 2, 3): -1e30}])
def test_rewards_whose_moments_leave_float32_are_refused_and_change_nothing(cls, options, normalize, bad):
    algorithm = make(bad, cls, normalize_rewards=normalize, normalize_observations=True, **options)
    update(algorithm)
    before = learned(algorithm)
    (_, step, env), value = next(iter(bad.items()))
    message = f"reward of environment {env} from Spiky is {value:.3g} in step {step} of the horizon"
    with pytest.raises(NonFiniteError, match=message.replace("+", r"\+")):
        algorithm.collect()
    plain, tensors = learned(algorithm)
    assert plain == before[0]
    assert tensors.keys() == before[1].keys()
    assert all(torch.equal(tensors[key], before[1][key]) for key in tensors)
    # The next horizon is an ordinary one, and so is the update.
    stats = update(algorithm)
    assert all(math.isfinite(value) for value in stats.values())
    assert algorithm.advantages.return_moments.count == 2 * 32


def test_a_horizon_with_a_nan_changes_no_statistic_either():
    algorithm = make({(1, 2, 5): math.nan}, normalize_observations=True)
    update(algorithm)
    before = learned(algorithm)[1]
    with pytest.raises(NonFiniteError, match="rewards of environment 5 from Spiky is NaN"):
        algorithm.collect()
    assert all(torch.equal(value, before[key]) for key, value in learned(algorithm)[1].items())


def test_large_rewards_within_float32s_moments_count():
    algorithm = make({}, unit=1e17)
    for _ in range(3):
        stats = update(algorithm)
        assert all(math.isfinite(value) for value in stats.values())
    assert algorithm.advantages.return_moments.var.item() > 1e33
    assert stats["losses/vf"] < 10


def test_statistics_of_a_horizon_are_right_where_float32_sums_overflow():
    algorithm = make({(0, step, 2): 3e38 for step in range(4)}, unit=0.0)
    stats = algorithm.eval()
    assert stats["returns/max"] == pytest.approx(1.2e39)
    assert stats["returns/mean"] == pytest.approx(1.2e39 / 8)
    assert stats["rewards/mean"] == pytest.approx(3e38 / 8)
    assert stats["rewards/std"] == pytest.approx(3e38 * math.sqrt(1 / 8 * 7 / 8))


def test_formulas_hold_where_squares_leave_float32():
    values = 1e25 * torch.randn(64, 4)
    normalized = estimates.normalize(values)
    assert normalized.dtype == torch.float32
    assert torch.allclose(normalized, estimates.normalize(values * 1e-25), atol=1e-5)
    explained = estimates.explained_variance(0.5 * values, values)
    assert explained.item() == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("horizon", [0, 3])
def test_one_spike_is_named_once(horizon, caplog):
    algorithm = make({(horizon, 2, 6): 1e9, (horizon + 1, 1, 1): 1e18})
    with caplog.at_level(logging.WARNING):
        for _ in range(6):
            update(algorithm)
    [said] = [record.getMessage() for record in caplog.records]
    assert "reward of environment 6 from Spiky is 1e+09 in step 2 of the horizon" in said


@pytest.mark.parametrize(
    ("rewards", "unit"),
    [
        ({(2, 2, 6): 1e4}, 1.0),  # large, but not out of all proportion
        ({(3, 1, 1): 1.0}, 0.0),  # the first success of a sparse task
        ({(0, 1, 1): 1e7}, 0.0),
        ({}, 1e-9),
    ],
)
def test_ordinary_rewards_are_not_named(rewards, unit, caplog):
    algorithm = make(rewards, unit=unit)
    for _ in range(5):
        update(algorithm)
    assert not caplog.records


@pytest.mark.parametrize("resets", [1, -1])
def test_recorded_sums_are_refused_and_accepted_alike(resets):
    bad = {(5, 1, 0): 1e30} if resets == 1 else {}
    plain = make(bad, engine="eager", horizons_per_env_reset=resets)
    recorded = record(make, bad, engine="eager", horizons_per_env_reset=resets)
    for number in range(8):
        # The environment counts its steps in Python, so the horizons themselves are not recorded.
        for algorithm in (plain, recorded):
            torch.manual_seed(number)
            if bad and number == 5:
                with pytest.raises(NonFiniteError, match="reward of environment 0"):
                    algorithm.collect()
            else:
                algorithm.collect()
                algorithm.step()
        mine, other = (algorithm.advantages.state_dict() for algorithm in (plain, recorded))
        assert torch.equal(mine["discounted"], other["discounted"])
        assert all(torch.equal(v, other["return_moments"][k]) for k, v in mine["return_moments"].items())
    assert recorded._executor._sums.graphs._known


def test_a_trainer_that_skips_goes_on():
    config = {**BASE, "env_config": {"rewards": {(1, 0, 0): 1e30}}}
    trainer = Trainer(Spiky, algorithm_config=config, on_nonfinite="skip", track=False)
    for _ in range(3):
        stats = trainer.step()
    assert stats["algorithm/collects"] == 3
    assert math.isfinite(stats["losses/vf"])
