"""Values at the end of horizons that nothing trains: measured by every update, named where they run away."""

import math
from operator import call

import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm, RecurrentAlgorithm
from rlstack.env import CartPole
from rlstack.models import Model

from ..helpers import parameters, update
from ..standin import record
from ..test_algorithm import Counter

BASE = {"num_envs": 4, "horizon": 4, "normalize_rewards": False, "seed": 0, "device": "cpu"}
KEY = "monitors/bootstrap_gap"


class Untrained(Model):
    """Values that are learned up to `known` steps after a reset, and `beyond` later: nothing trains these."""

    def __init__(self, observation_spec, action_spec, /, *, beyond=1000.0, known=4):
        super().__init__(observation_spec, action_spec, beyond=beyond, known=known)
        self.beyond, self.known = beyond, known
        self.table = torch.nn.Parameter(torch.zeros(()))

    def forward(self, obs):
        values = torch.where(obs < self.known, self.table * obs, torch.full_like(obs, self.beyond))
        return TensorDict({"logits": torch.zeros(len(obs), 1, 2)}, len(obs)), values


class Still(Counter):
    """Every step brings nothing."""

    def step(self, action):
        out = super().step(action)
        return out.set("rewards", torch.zeros_like(out["rewards"]))


def expected_gap(algorithm):
    """What the definition says, from the horizon that was collected."""
    values = algorithm.collector.buffer.values.squeeze(-1).double()
    rewards = algorithm.collector.buffer.rewards.squeeze(-1).double()
    hp, advantage, returns = algorithm.hparams, torch.zeros(values.shape[1]).double(), []
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + hp.gamma * values[t + 1] - values[t]
        advantage = delta + hp.gamma * hp.gae_lambda * advantage
        returns.append(advantage + values[t])
    return ((values[-1].mean() - values[:-1].mean()) / torch.stack(returns).std(correction=0)).item()


@pytest.mark.parametrize("algorithm_cls", [Algorithm, RecurrentAlgorithm])
@pytest.mark.parametrize("recorded", [False, True])
def test_every_update_measures_the_gap(algorithm_cls, recorded):
    algorithm = (record if recorded else call)(algorithm_cls, CartPole, **BASE)
    gaps = []
    for _ in range(4):
        algorithm.collect()
        gap = expected_gap(algorithm)
        gaps.append(gap)
        assert algorithm.step()[KEY] == pytest.approx(gap, rel=1e-3, abs=1e-4)
    assert len(set(gaps)) == 4


def test_the_unit_is_the_spread_of_the_returns():
    # V is 0, 0, 0, 0 and then 10; γλ = ½ and γ = 1 make the returns 10/8, 10/4, 10/2 and 10.
    algorithm = Algorithm(
        Still, **BASE, gamma=1.0, gae_lambda=0.5, model_cls=Untrained, model_config={"beyond": 10.0}
    )
    returns = torch.tensor([1.25, 2.5, 5.0, 10.0])
    assert update(algorithm)[KEY] == pytest.approx(10 / returns.std(correction=0).item(), rel=1e-5)


def test_it_is_0_where_the_returns_do_not_vary():
    algorithm = Algorithm(Still, **BASE, model_cls=Untrained, model_config={"beyond": 0.0})
    assert update(algorithm)[KEY] == 0


def watched(caplog, updates, env_config=None, known=4, **changes):
    options = {
        "env_config": env_config,
        "model_cls": Untrained,
        "model_config": {"known": known},
        "num_sgd_iters": 1,
    }
    algorithm = Algorithm(Counter, **BASE, **options, **changes)
    update(algorithm, updates)
    return [entry.getMessage() for entry in caplog.records if KEY in entry.getMessage()]


def test_values_that_run_away_are_named_once(caplog):
    assert watched(caplog, 19) == []
    [said] = watched(caplog, 45)
    assert "simulations are reset after 4 steps" in said
    assert said.endswith("set horizons_per_env_reset=8")


def test_only_what_comes_before_a_reset_counts(caplog):
    # The second horizon trains the last value of the first; its own is trained by none.
    assert watched(caplog, 25, horizons_per_env_reset=-1) == []
    assert watched(caplog, 39, known=8, horizons_per_env_reset=2) == []
    [said] = watched(caplog, 40, known=8, horizons_per_env_reset=2)
    assert "reset after 8 steps" in said


@pytest.mark.parametrize(
    ("max_horizon", "advice"),
    [(12, "set horizons_per_env_reset=3"), (7, "the environment's max_horizon is 7, enlarge it")],
)
def test_the_advice_is_one_that_the_environment_allows(caplog, max_horizon, advice):
    [said] = watched(caplog, 20, {"max_horizon": max_horizon})
    assert said.endswith(advice)


def test_what_is_counted_is_no_part_of_the_state(caplog):
    options = {"model_cls": Untrained, "num_sgd_iters": 1}
    algorithm, other = (Algorithm(Counter, **BASE, **options) for _ in range(2))
    update(algorithm, 19)
    other.load_state_dict(algorithm.state_dict())
    update(other, 19)
    assert KEY not in caplog.text
    update(other)
    assert KEY in caplog.text
    caplog.clear()
    # However long it has counted: the same bits.
    update(algorithm, 20)
    one, two = (str(each.state_dict()["optimizer"]) for each in (algorithm, other))
    assert one == two
    assert torch.equal(parameters(algorithm), parameters(other))


class Rising(Model):
    """Values that rise by `slope` in every step."""

    def __init__(self, observation_spec, action_spec, /, *, slope):
        super().__init__(observation_spec, action_spec, slope=slope)
        self.slope, self.unused = slope, torch.nn.Parameter(torch.zeros(()))

    def forward(self, obs):
        values = self.slope * obs + 0 * self.unused
        return TensorDict({"logits": torch.zeros(len(obs), 1, 2)}, len(obs)), values


@pytest.mark.parametrize("slope", [-3.0, 3.0])
@pytest.mark.parametrize("horizon", [1, 2, 4, 32])
def test_values_that_rise_or_fall_steadily_are_nothing_to_warn_of(caplog, slope, horizon):
    # Without discount and rewards, λ = 0 makes the returns the next values: they rise as steadily.
    options = {"gamma": 1.0, "gae_lambda": 0.0, "model_cls": Rising, "model_config": {"slope": slope}}
    algorithm = Algorithm(Still, **{**BASE, "horizon": horizon}, **options, num_sgd_iters=1)
    gaps = [update(algorithm)[KEY] for _ in range(22)]
    steady = (3 * (horizon + 1) / (horizon - 1)) ** 0.5 if horizon > 1 else 0
    assert gaps == pytest.approx(22 * [math.copysign(steady, slope)], rel=1e-4)
    assert KEY not in caplog.text
