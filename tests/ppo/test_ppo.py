"""The maths: tables worked by hand, identities, and an independent float64 NumPy reference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlstack.engine.kernels import loss_gradients
from rlstack.ppo import estimates, losses

FINITE = st.floats(-10, 10, width=64)
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 7))


def tensor(array):
    return torch.tensor(np.asarray(array), dtype=torch.float64)


def gae_reference(rewards, values, gamma, lam):
    """The definition: Â_t = Σ_k (γλ)^k δ_{t+k}, by its O(T²) double sum."""
    num_envs, horizon = rewards.shape
    advantages = np.zeros_like(rewards)
    for b in range(num_envs):
        for t in range(horizon):
            for k in range(horizon - t):
                delta = rewards[b, t + k] + gamma * values[b, t + k + 1] - values[b, t + k]
                advantages[b, t] += (gamma * lam) ** k * delta
    return advantages, advantages + values[:, :-1]


@st.composite
def rollouts(draw):
    num_envs, horizon = draw(SHAPES)
    rewards = draw(hnp.arrays(np.float64, (num_envs, horizon), elements=FINITE))
    values = draw(hnp.arrays(np.float64, (num_envs, horizon + 1), elements=FINITE))
    return rewards, values, draw(st.floats(0, 1)), draw(st.floats(0, 1))


class TestGAE:
    # One environment, rewards 1, 2, 3, values 1, 2, 4, 8, γ = ½:
    # δ = 1 + 1 − 1 = 1,  2 + 2 − 2 = 2,  3 + 4 − 4 = 3.
    @pytest.mark.parametrize(
        ("lam", "advantages"),
        [
            (0.0, [1.0, 2.0, 3.0]),
            (0.5, [1 + 0.25 * (2 + 0.25 * 3), 2 + 0.25 * 3, 3.0]),
            (1.0, [1 + 0.5 * (2 + 0.5 * 3), 2 + 0.5 * 3, 3.0]),
        ],
    )
    def test_table(self, lam, advantages):
        got, returns = estimates.gae(tensor([[1, 2, 3]]), tensor([[1, 2, 4, 8]]), gamma=0.5, gae_lambda=lam)
        assert got.tolist() == [advantages]
        assert returns.tolist() == [[a + v for a, v in zip(advantages, [1, 2, 4], strict=True)]]

    @given(rollouts())
    def test_reference(self, rollout):
        rewards, values, gamma, lam = rollout
        got = estimates.gae(tensor(rewards), tensor(values), gamma=gamma, gae_lambda=lam)
        for mine, theirs in zip(got, gae_reference(rewards, values, gamma, lam), strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-10, atol=1e-10)

    @given(rollouts())
    def test_lambda_0_is_the_td_error(self, rollout):
        rewards, values, gamma, _ = rollout
        got, _ = estimates.gae(tensor(rewards), tensor(values), gamma=gamma, gae_lambda=0.0)
        np.testing.assert_allclose(got.numpy(), rewards + gamma * values[:, 1:] - values[:, :-1], atol=1e-12)

    @given(rollouts())
    def test_lambda_1_is_the_discounted_return_minus_the_value(self, rollout):
        rewards, values, gamma, _ = rollout
        got, returns = estimates.gae(tensor(rewards), tensor(values), gamma=gamma, gae_lambda=1.0)
        discounted = np.zeros_like(rewards)
        after = values[:, -1]
        for t in range(rewards.shape[1] - 1, -1, -1):
            after = discounted[:, t] = rewards[:, t] + gamma * after
        np.testing.assert_allclose(returns.numpy(), discounted, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(got.numpy(), discounted - values[:, :-1], rtol=1e-10, atol=1e-9)

    def test_inputs_stay(self):
        rewards, values = torch.randn(3, 4), torch.randn(3, 5)
        copies = rewards.clone(), values.clone()
        estimates.gae(rewards, values, gamma=0.9, gae_lambda=0.8)
        assert torch.equal(rewards, copies[0])
        assert torch.equal(values, copies[1])

    @pytest.mark.parametrize(
        "shapes", [((3, 4), (3, 4)), ((3, 4), (2, 5)), ((3, 4, 1), (3, 5, 1)), ((4,), (5,))]
    )
    def test_wrong_shapes(self, shapes):
        rewards, values = (torch.zeros(shape) for shape in shapes)
        with pytest.raises(ValueError, match="expected \\[B, T\\] and \\[B, T \\+ 1\\]"):
            estimates.gae(rewards, values, gamma=0.9, gae_lambda=0.9)


class TestReversedDiscountedReturns:
    def test_table(self):
        got = estimates.reversed_discounted_returns(tensor([[1, 2, 3]]), tensor([8]), gamma=0.5)
        assert got.tolist() == [[5.0, 4.5, 5.25]]

    @given(rollouts())
    def test_two_horizons_are_one_long_one(self, rollout):
        rewards, _, gamma, _ = rollout
        both = np.concatenate([rewards, rewards[:, ::-1]], 1)
        start = torch.zeros(len(rewards), dtype=torch.float64)
        whole = estimates.reversed_discounted_returns(tensor(both), start, gamma=gamma)
        first = estimates.reversed_discounted_returns(tensor(rewards), start, gamma=gamma)
        second = estimates.reversed_discounted_returns(
            tensor(rewards[:, ::-1].copy()), first[:, -1], gamma=gamma
        )
        assert torch.equal(whole, torch.cat([first, second], 1))


class TestNormalize:
    @given(hnp.arrays(np.float64, SHAPES, elements=FINITE))
    def test_reference(self, array):
        expected = (array - array.mean()) / (array.std() + 1e-8)
        np.testing.assert_allclose(estimates.normalize(tensor(array)).numpy(), expected, rtol=1e-6, atol=1e-6)

    def test_of_one_value_is_zero(self):
        assert estimates.normalize(torch.tensor([[3.0]])).item() == 0


class TestExplainedVariance:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [([1.0, 2.0, 3.0], 1.0), ([2.0, 2.0, 2.0], 0.0), ([3.0, 2.0, 1.0], -3.0), ([0.5, 1.0, 1.5], 0.75)],
    )
    def test_table(self, values, expected):
        got = estimates.explained_variance(tensor(values), tensor([1.0, 2.0, 3.0]))
        assert got.item() == pytest.approx(expected)

    def test_of_constant_returns_is_zero(self):
        assert estimates.explained_variance(torch.randn(4), torch.ones(4)).item() == 0


def policy_reference(ratio, advantage, eps, dual):
    clipped = min(max(ratio, 1 - eps), 1 + eps)
    surrogate = min(ratio * advantage, clipped * advantage)
    if dual is not None and advantage < 0:
        surrogate = max(surrogate, dual * advantage)
    return -surrogate


def value_reference(value, old, target, clip):
    error = (value - target) ** 2
    if clip is not None:
        moved = old + min(max(value - old, -clip), clip)
        error = max(error, (moved - target) ** 2)
    return 0.5 * error


class TestPolicyLoss:
    @pytest.mark.parametrize(
        ("ratio", "advantage", "dual", "loss"),
        [
            (1.0, 2.0, None, -2.0),  # on policy: minus the advantage
            (1.5, 2.0, None, -2.4),  # a good action already likelier: clipped at 1.2
            (0.5, 2.0, None, -1.0),  # a good action less likely: not clipped
            (1.5, -2.0, None, 3.0),  # a bad action likelier: not clipped
            (0.5, -2.0, None, 1.6),  # a bad action already less likely: clipped at 0.8
            (9.0, -2.0, 3.0, 6.0),  # the dual clip bounds what a bad action can cost
            (9.0, 2.0, 3.0, -2.4),  # and leaves good ones alone
        ],
    )
    def test_table(self, ratio, advantage, dual, loss):
        got = losses.policy_loss(tensor([ratio]), tensor([advantage]), clip_param=0.2, dual_clip_param=dual)
        assert got.item() == pytest.approx(loss)

    @pytest.mark.parametrize(
        ("ratio", "advantage", "moves"),
        [(1.5, 2.0, False), (0.5, 2.0, True), (1.5, -2.0, True), (0.5, -2.0, False)],
    )
    def test_gradient_is_cut_only_where_the_step_would_go_on(self, ratio, advantage, moves):
        ratio = tensor([ratio]).requires_grad_()
        losses.policy_loss(ratio, tensor([advantage]), clip_param=0.2, dual_clip_param=None).backward()
        assert (ratio.grad.item() != 0) == moves


class TestValueLoss:
    @pytest.mark.parametrize(
        ("value", "old", "target", "clip", "loss"),
        [
            (3.0, 1.0, 5.0, None, 2.0),
            (3.0, 1.0, 5.0, 1.0, 4.5),  # clipped to 2: half of (2 − 5)²
            (3.0, 1.0, 0.0, 1.0, 4.5),  # the larger error is the unclipped one
            (1.5, 1.0, 2.0, 1.0, 0.125),  # within the clip
        ],
    )
    def test_table(self, value, old, target, clip, loss):
        got = losses.value_loss(tensor([value]), tensor([old]), tensor([target]), vf_clip_param=clip)
        assert got.item() == pytest.approx(loss)


class TestKL:
    @pytest.mark.parametrize(
        ("log_ratio", "expected"),
        [(0.0, 0.0), (math.log(2), 1 - math.log(2)), (-math.log(2), math.log(2) - 0.5)],
    )
    def test_table(self, log_ratio, expected):
        assert losses.kl_divergence(tensor([log_ratio])).item() == pytest.approx(expected)

    @given(hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-5, 5)))
    def test_never_negative(self, log_ratio):
        assert (losses.kl_divergence(tensor(log_ratio)) >= 0).all()

    def test_unbiased(self):
        old, new = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.3, 0.5]).double()
        exact = (old * (old / new).log()).sum()
        estimate = (old * losses.kl_divergence((new / old).log())).sum()
        assert estimate.item() == pytest.approx(exact.item())


@st.composite
def loss_inputs(draw):
    rows = draw(st.integers(1, 8))
    names = ("logp", "old_logp", "advantages", "values", "old_values", "returns", "entropy")
    arrays = {name: draw(hnp.arrays(np.float64, (rows, 1), elements=st.floats(-3, 3))) for name in names}
    numbers = {
        "clip_param": draw(st.floats(0.01, 0.5)),
        "vf_clip_param": draw(st.one_of(st.none(), st.floats(0.01, 5))),
        "dual_clip_param": draw(st.one_of(st.none(), st.floats(1.01, 5))),
        "vf_coeff": draw(st.floats(0, 2)),
        "entropy_coeff": draw(st.floats(0, 1)),
    }
    return arrays, numbers


class TestPPOLoss:
    @settings(max_examples=200)
    @given(loss_inputs())
    def test_reference(self, inputs):
        arrays, numbers = inputs
        got = losses.ppo_loss(**{name: tensor(array) for name, array in arrays.items()}, **numbers)
        log_ratio = arrays["logp"] - arrays["old_logp"]
        ratio = np.exp(log_ratio)
        policy = np.mean(
            [
                policy_reference(r, a, numbers["clip_param"], numbers["dual_clip_param"])
                for r, a in zip(ratio.flat, arrays["advantages"].flat, strict=True)
            ]
        )
        loss_inputs = (arrays[name].flat for name in ("values", "old_values", "returns"))
        vf = np.mean(
            [value_reference(*row, numbers["vf_clip_param"]) for row in zip(*loss_inputs, strict=True)]
        )
        entropy = arrays["entropy"].mean()
        total = policy + numbers["vf_coeff"] * vf - numbers["entropy_coeff"] * entropy
        kl = np.mean(ratio - 1 - log_ratio)
        clipped = np.mean(np.abs(ratio - 1) > numbers["clip_param"])
        expected = (total, policy, vf, entropy, kl, clipped)
        np.testing.assert_allclose([value.item() for value in got], expected, rtol=1e-9, atol=1e-9)

    def test_only_the_total_has_to_be_differentiated(self):
        rows = {name: torch.randn(4, 1) for name in ("old_logp", "advantages", "old_values", "returns")}
        learned = {name: torch.randn(4, 1, requires_grad=True) for name in ("logp", "values", "entropy")}
        loss = losses.ppo_loss(
            **rows,
            **learned,
            clip_param=0.2,
            vf_clip_param=5.0,
            dual_clip_param=None,
            vf_coeff=0.5,
            entropy_coeff=0.1,
        )
        loss.total.backward()
        assert all(value.grad is not None for value in learned.values())
        assert torch.allclose(learned["entropy"].grad, torch.full((4, 1), -0.1 / 4))
        assert not loss.kl_div.requires_grad
        assert not loss.clip_fraction.requires_grad

    @pytest.mark.parametrize("wrong", ["logp", "advantages", "values", "returns", "entropy"])
    def test_wrong_shapes(self, wrong):
        names = ("logp", "old_logp", "advantages", "values", "old_values", "returns", "entropy")
        rows = {name: torch.zeros(4) if name == wrong else torch.zeros(4, 1) for name in names}
        with pytest.raises(ValueError, match="expected one and the same"):
            losses.ppo_loss(
                **rows,
                clip_param=0.2,
                vf_clip_param=None,
                dual_clip_param=None,
                vf_coeff=1.0,
                entropy_coeff=0.0,
            )


@pytest.mark.parametrize("dual_clip_param", [None, 1.5])
@pytest.mark.parametrize("clip_param", [0.1, 0.3])
def test_policy_gradient_is_that_of_the_loss(float64, clip_param, dual_clip_param):
    torch.manual_seed(0)
    old_logp, advantages = torch.randn(500, 1), torch.randn(500, 1)
    logp = (old_logp + 0.5 * torch.randn(500, 1)).requires_grad_()
    clips = {"clip_param": clip_param, "dual_clip_param": dual_clip_param}
    loss = losses.policy_loss((logp - old_logp).exp(), advantages, **clips)
    (expected,) = torch.autograd.grad(loss.sum(), logp)
    bounds = loss_gradients.surrogate_bounds(advantages, **clips)
    gradient = loss_gradients.policy_gradient(logp.detach(), old_logp, advantages, *bounds)
    assert torch.allclose(gradient, -expected, rtol=1e-12)
    # Each of the bounds has been met.
    assert 0 < (gradient == 0).sum() < 500


@pytest.mark.parametrize("vf_clip_param", [None, 0.2, 10.0])
def test_value_gradient_is_that_of_the_loss(float64, vf_clip_param):
    torch.manual_seed(0)
    old_values, returns = torch.randn(500, 1), torch.randn(500, 1)
    values = (old_values + 0.5 * torch.randn(500, 1)).requires_grad_()
    loss = losses.value_loss(values, old_values, returns, vf_clip_param=vf_clip_param)
    (expected,) = torch.autograd.grad(loss.sum(), values)
    bounds = loss_gradients.error_bounds(old_values, returns, vf_clip_param=vf_clip_param)
    gradient = loss_gradients.value_gradient(values.detach(), returns, *bounds)
    assert torch.allclose(gradient, expected, rtol=1e-12)
    assert ((gradient == 0).sum() > 0) == (vf_clip_param == 0.2)


@pytest.mark.parametrize("dual_clip_param", [None, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gradient_where_the_loss_is_clipped_however_large_the_ratio(dual_clip_param, dtype):
    # log ρ, Â, and the derivative of that row's loss by log ρ: −ρ Â where it isn't clipped.
    rows = [(1000.0, 2.0, 0.0), (1000.0, 0.0, 0.0), (0.1, 2.0, -2 * math.exp(0.1)), (-1000.0, -2.0, 0.0)]
    if dual_clip_param is not None:
        rows.append((1000.0, -2.0, 0.0))
    logp = torch.tensor([row[0] for row in rows], dtype=dtype).view(-1, 1).requires_grad_()
    advantages = torch.tensor([row[1] for row in rows], dtype=dtype).view(-1, 1)
    zeros = torch.zeros_like(advantages)
    loss = losses.ppo_loss(
        logp=logp,
        old_logp=zeros,
        advantages=advantages,
        values=zeros,
        old_values=zeros,
        returns=zeros,
        entropy=zeros,
        clip_param=0.2,
        vf_clip_param=5.0,
        dual_clip_param=dual_clip_param,
        vf_coeff=1.0,
        entropy_coeff=0.0,
    )
    assert loss.total.isfinite()
    (loss.total * len(rows)).backward()
    expected = torch.tensor([row[2] for row in rows], dtype=dtype).view(-1, 1)
    assert torch.allclose(logp.grad, expected)
    caps, floors = loss_gradients.surrogate_bounds(
        advantages, clip_param=0.2, dual_clip_param=dual_clip_param
    )
    mine = loss_gradients.policy_gradient(logp.detach(), zeros, advantages, caps, floors)
    assert torch.allclose(-mine, expected)


def test_a_ratio_that_overflows_and_is_not_clipped_is_no_number_to_go_on_with():
    zeros = torch.zeros(1, 1)
    loss = losses.ppo_loss(
        logp=zeros + 100, old_logp=zeros, advantages=zeros - 1, values=zeros, old_values=zeros, returns=zeros,
        entropy=zeros, clip_param=0.2, vf_clip_param=None, dual_clip_param=None, vf_coeff=1.0,
        entropy_coeff=0.0,
    )  # fmt: skip
    assert loss.total == torch.inf
