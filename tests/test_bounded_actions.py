"""Actions within bounds: what was drawn is kept, squashed or clipped on its way to the environment."""

import json
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm, HparamsError, Policy, RecurrentAlgorithm, Trainer, specs
from rlstack.distributions import Distribution, Normal, SquashedNormal
from rlstack.env import Env, Pendulum
from rlstack.models import ContinuousMLP

from .helpers import SMALL, parameters, update

DATA = Path(__file__).parent / "data"
BASE = {"num_envs": 32, "horizon": 8, "seed": 3, "device": "cpu"}
LSTM = {"model_config": {"hidden_size": 16}}
KINDS = [(Algorithm, {"model_config": SMALL}), (RecurrentAlgorithm, LSTM)]


class Signs(Env):
    """Reward for actions in [-1, 1] that have the signs of what is observed."""

    action_spec = specs.Bounded(-1.0, 1.0, (4,))

    def __init__(self, num_envs, /, **kwargs):
        super().__init__(num_envs, **kwargs)
        self.observation_spec = specs.Unbounded((4,))
        self.seen = []

    def reset(self, *, config=None):
        self.obs = 2 * torch.rand(self.num_envs, 4) - 1
        return self.obs

    def step(self, action):
        self.seen.append(action)
        rewards = (self.within(action) * self.obs.sign()).sum(1, keepdim=True).float()
        return TensorDict({"obs": self.reset(), "rewards": rewards}, self.num_envs)

    def within(self, action):
        return action


class TangentInside(Signs):
    """The same task for a policy that is a Normal: the environment takes the tangent."""

    action_spec = specs.Unbounded((4,))

    def within(self, action):
        return action.tanh()


class Wide(Signs):
    """Bounds that are not those of the unit cube."""

    low, high = torch.tensor([-2.0, 0.0, -5.0, 1.0]), torch.tensor([2.0, 10.0, -4.0, 9.0])
    action_spec = specs.Bounded(low, high, (4,))


def saturated(cls, env_cls, mean=7.0, **options):
    """An algorithm whose policy is far out in the tangent's tails."""
    algorithm = cls(env_cls, **{**BASE, **options})
    head = algorithm.policy.model.policy
    head = head if cls is RecurrentAlgorithm else head[-1]
    with torch.no_grad():
        head.linear.bias.copy_(mean * torch.tensor([1.0, -1.0, 1.5, -2.0]))
    return algorithm


@pytest.mark.parametrize("engine", ["auto", "eager"])
@pytest.mark.parametrize(("cls", "options"), KINDS)
def test_a_saturated_policy_learns_as_a_normal_one_does(cls, options, engine):
    options = {**options, "engine": engine, "optimizer_config": {"lr": 3e-3}}
    results = []
    for env_cls in (Signs, TangentInside):
        algorithm = saturated(cls, env_cls, **options)
        results.append(([update(algorithm) for _ in range(6)], algorithm))
    (all_mine, squashed), (all_theirs, normal) = results
    for mine, theirs in zip(all_mine, all_theirs, strict=True):
        for key in ("rewards/mean", "losses/policy", "monitors/grad_norm", "monitors/kl_div"):
            assert mine[key] == pytest.approx(theirs[key], rel=0.02, abs=2e-4), key
        assert mine["monitors/kl_div"] < 0.1
    assert torch.allclose(parameters(squashed), parameters(normal), atol=2e-3)


@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_a_saturated_policy_in_16_bits_has_a_ratio_of_1_at_first(half, engine):
    stats = update(saturated(Algorithm, Signs, engine=engine, enable_amp=True, num_sgd_iters=1))
    assert stats["monitors/kl_div"] < 1e-6


@pytest.mark.parametrize("spec_cls", [specs.Bounded, specs.Unbounded])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("cls", "options"), KINDS)
def test_actions_of_another_dtype_are_rated_as_they_were_drawn(cls, options, dtype, spec_cls):
    bounds = (-1.0, 1.0) if spec_cls is specs.Bounded else ()

    class Other(Signs):
        action_spec = spec_cls(*bounds, (4,), dtype=dtype)

    algorithm = saturated(cls, Other, mean=1.0, num_sgd_iters=1, **options)
    stats = update(algorithm)
    assert stats["monitors/kl_div"] < 1e-6
    assert {action.dtype for action in algorithm.env.seen} == {dtype}


@pytest.mark.parametrize("distribution_cls", [None, Normal])
def test_act_returns_what_evaluate_takes(distribution_cls, tmp_path):
    policy = saturated(Algorithm, Wide, distribution_cls=distribution_cls, model_config=SMALL).policy
    obs = torch.randn(50, 4)
    step = policy.act(obs)
    unit = step.drawn.clamp(-1, 1) if distribution_cls is Normal else step.drawn.tanh()
    middle, half_width = (Wide.high + Wide.low) / 2, (Wide.high - Wide.low) / 2
    assert torch.allclose(step.actions, middle + half_width * unit, atol=1e-5)
    assert torch.allclose(policy.evaluate(obs.unsqueeze(1), step.drawn, None).logp, step.logp, atol=1e-4)
    policy.save(tmp_path / "policy.safetensors")
    copy = Policy.load(tmp_path / "policy.safetensors")
    mine, theirs = (each.act(obs, deterministic=True).actions for each in (policy, copy))
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize("engine", ["auto", "eager"])
@pytest.mark.parametrize(("cls", "options"), KINDS)
def test_a_normal_on_bounds_stays_within_them(cls, options, engine):
    options = {**options, "engine": engine, "distribution_cls": Normal, "num_sgd_iters": 1}
    algorithm = cls(Wide, **BASE, **options)
    stats = update(algorithm)
    seen, drawn = torch.stack(algorithm.env.seen), algorithm.collector.buffer.drawn
    assert ((seen >= Wide.low) & (seen <= Wide.high)).all()
    # Draws in half-widths of the bounds, with a standard deviation of 1 at first: 32 % are clipped.
    assert (drawn.abs() > 1).float().mean().item() == pytest.approx(0.317, abs=0.06)
    assert (seen == Wide.high)[drawn >= 1].all()
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(drawn).sum(-1, keepdim=True)
    assert torch.allclose(algorithm.collector.buffer.logp, expected, atol=0.5)
    assert stats["monitors/kl_div"] < 1e-6


@pytest.mark.parametrize("distribution_cls", [None, Normal, SquashedNormal])
def test_infinite_bounds_are_refused(distribution_cls):
    class Open(Signs):
        action_spec = specs.Bounded(0.0, float("inf"), (4,))

    with pytest.raises(HparamsError, match="infinite bound: use finite bounds, or Unbounded"):
        Algorithm(Open, **BASE, distribution_cls=distribution_cls)


class Triangle(Distribution):
    """Draws in [-1, 1] itself."""

    squashed = True

    def sample(self):
        mean = self.features["mean"]
        return (torch.rand_like(mean) - torch.rand_like(mean)).clamp(-0.75, 0.75)

    def deterministic_sample(self):
        return torch.full_like(self.features["mean"], -0.75)

    def logp(self, drawn):
        return (1 - drawn.abs()).log().sum(1, keepdim=True) + 0 * self.features["mean"].sum(1, keepdim=True)

    def entropy(self):
        return 0 * self.features["mean"].sum(1, keepdim=True)


class Halved(Triangle):
    """Draws numbers twice as large, which `to_env` halves."""

    def deterministic_sample(self):
        return 2 * super().deterministic_sample()

    def to_env(self, drawn):
        return drawn / 2


@pytest.mark.parametrize("distribution_cls", [Triangle, Halved])
def test_squashed_distributions_of_ones_own_are_mapped_onto_the_bounds(distribution_cls):
    algorithm = Algorithm(Wide, **BASE, distribution_cls=distribution_cls, model_config=SMALL)
    step = algorithm.policy.act(torch.zeros(1, 4), deterministic=True)
    assert torch.allclose(step.actions, torch.tensor([[-1.5, 1.25, -4.875, 2.0]]))
    assert torch.equal(step.drawn, torch.full((1, 4), -0.75 if distribution_cls is Triangle else -1.5))
    update(algorithm)
    seen = torch.stack(algorithm.env.seen)
    assert ((seen >= Wide.low) & (seen <= Wide.high)).all()


@pytest.mark.parametrize(("cls", "options"), KINDS)
def test_the_same_entropy_whatever_the_engine_and_the_blocks(cls, options):
    results = []
    for changes in (
        {},
        {"grad_block_size": 16},
        {"engine": "eager"},
        {"engine": "eager", "grad_block_size": 40},
    ):
        algorithm = saturated(cls, Signs, mean=0.5, entropy_coeff=0.1, **options, **changes)
        stats = update(algorithm, 3)
        results.append((parameters(algorithm), stats["losses/entropy"]))
    for other, entropy in results[1:]:
        assert torch.allclose(other, results[0][0], atol=2e-4)
        assert entropy == pytest.approx(results[0][1], rel=1e-5)


@pytest.mark.parametrize("entropy_coeff", [0.0, 0.1])
@pytest.mark.parametrize("engine", ["auto", "eager"])
@pytest.mark.parametrize(("cls", "options"), KINDS)
def test_an_update_draws_no_more_than_its_minibatches(cls, options, engine, entropy_coeff):
    algorithm = cls(Signs, **BASE, engine=engine, entropy_coeff=entropy_coeff, **options)
    algorithm.collect()
    before = torch.get_rng_state()
    algorithm.step()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["normal", "squashed"])
def test_policies_of_0_1_0_act_as_they_did(name, tmp_path):
    home = DATA / "policies-0.1.0"
    told = json.loads((home / "actions.json").read_text())
    policy = Policy.load(home / f"{name}.safetensors")
    for _ in range(2):
        actions = policy.act(torch.tensor(told["obs"]), deterministic=True).actions
        assert torch.allclose(actions, torch.tensor(told[name]), rtol=1e-5, atol=1e-5)
        # Saved anew, they still are what they were.
        policy.save(tmp_path / "again.safetensors")
        policy = Policy.load(tmp_path / "again.safetensors")
    # A Normal took no notice of the bounds.
    assert (torch.tensor(told["normal"])[:, 0] < -2).any()


def test_a_policy_of_0_1_0_can_be_clipped_from_now_on():
    policy = Policy.load(DATA / "policies-0.1.0" / "normal.safetensors")
    policy.clip_actions(True)
    step = policy.act(torch.randn(200, 2))
    expected = torch.tensor([0.0, 5.0]) + torch.tensor([2.0, 5.0]) * step.drawn.clamp(-1, 1)
    assert torch.allclose(step.actions, expected, atol=1e-5)


def test_a_run_of_0_1_0_goes_on_with_its_normal_as_it_was(tmp_path):
    config = {**BASE, "num_envs": 4, "horizon": 4, "distribution_cls": Normal, "horizons_per_env_reset": -1}
    config["model_config"] = {"hiddens": (4,)}
    trainer = Trainer(Pendulum, algorithm_config=config, track=False)
    step = trainer.algorithm.policy.act(torch.zeros(200, 3))
    assert torch.allclose(step.actions, 2 * step.drawn.clamp(-1, 1), atol=1e-6)
    trainer.load(DATA / "unclipped-0.1.0")
    trainer.step()
    step = trainer.algorithm.policy.act(torch.full((200, 3), 0.3))
    assert torch.equal(step.actions, step.drawn)
    assert (step.actions.abs() > 1).any()
    trainer.save(tmp_path)
    other = Trainer(Pendulum, algorithm_config=config, track=False)
    other.load(tmp_path)
    step = other.algorithm.policy.act(torch.full((200, 3), 0.3))
    assert torch.equal(step.actions, step.drawn)


def test_default_models_draw_before_the_tangent():
    model = ContinuousMLP(specs.Unbounded((4,)), Signs.action_spec, **SMALL)
    drawn = Policy(model).act(torch.zeros(500, 4)).drawn
    assert (drawn.abs() > 1).any()
