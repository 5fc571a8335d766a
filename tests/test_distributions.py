import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensordict import TensorDict

from rlstack import specs
from rlstack.distributions import (
    Bernoulli,
    Categorical,
    Normal,
    OneHotCategorical,
    SquashedNormal,
    default_distribution,
)

LOGITS = st.floats(-8, 8, width=64)


class FakeModel:
    def __init__(self, action_spec):
        self.action_spec = action_spec


def features(**arrays):
    tensors = {key: torch.as_tensor(array) for key, array in arrays.items()}
    return TensorDict(tensors, batch_size=len(next(iter(tensors.values()))))


def categorical(logits, spec):
    return Categorical(features(logits=logits), FakeModel(spec))


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


class TestCategorical:
    @given(
        hnp.arrays(
            np.float64, st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(2, 5)), elements=LOGITS
        ),
        st.data(),
    )
    def test_reference(self, logits, data):
        rows, parts, n = logits.shape
        actions = data.draw(hnp.arrays(np.int64, (rows, parts), elements=st.integers(0, n - 1)))
        distribution = categorical(logits, specs.Categorical(n, shape=(parts,)))
        logps = log_softmax(logits)
        expected = np.take_along_axis(logps, actions[..., None], -1)[..., 0].sum(1, keepdims=True)
        np.testing.assert_allclose(distribution.logp(torch.tensor(actions)), expected, rtol=1e-10, atol=1e-10)
        entropy = -(np.exp(logps) * logps).sum((1, 2))[:, None]
        np.testing.assert_allclose(distribution.entropy(), entropy, rtol=1e-9, atol=1e-10)
        best = distribution.deterministic_sample().numpy()
        np.testing.assert_allclose(
            np.take_along_axis(logps, best[..., None], -1)[..., 0], logps.max(-1), rtol=1e-12, atol=1e-12
        )

    @given(hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.just(5)), elements=LOGITS))
    def test_multi_categorical_is_its_parts(self, logits):
        spec = specs.MultiCategorical([2, 3])
        both = categorical(logits, spec)
        first = categorical(logits[:, None, :2], specs.Categorical(2, shape=(1,)))
        second = categorical(logits[:, None, 2:], specs.Categorical(3, shape=(1,)))
        actions = both.sample()
        assert actions.shape == (len(logits), 2)
        parts = first.logp(actions[:, :1]) + second.logp(actions[:, 1:])
        np.testing.assert_allclose(both.logp(actions), parts, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(both.entropy(), first.entropy() + second.entropy(), rtol=1e-10, atol=1e-12)

    def test_samples_are_as_frequent_as_they_are_probable(self):
        probs = torch.tensor([0.5, 0.3, 0.15, 0.05])
        draws = categorical(probs.log().expand(200_000, 1, 4), specs.Categorical(4, shape=(1,))).sample()
        frequencies = torch.bincount(draws.flatten(), minlength=4) / 200_000
        # Five standard deviations of the rarest to the most frequent choice.
        assert ((frequencies - probs).abs() < 5 * (probs * (1 - probs) / 200_000).sqrt()).all()

    def test_impossible_choices_are_never_made_and_harm_nothing(self):
        logits = torch.tensor([0.0, -math.inf, 1.0]).expand(50_000, 1, 3).clone().requires_grad_()
        distribution = categorical(logits, specs.Categorical(3, shape=(1,)))
        actions = distribution.sample()
        assert not (actions == 1).any()
        p = 1 / (1 + math.e)
        expected = -(p * math.log(p) + (1 - p) * math.log(1 - p))
        assert distribution.entropy()[0].item() == pytest.approx(expected, rel=1e-5)
        (distribution.entropy() + distribution.logp(actions)).mean().backward()
        assert logits.grad.isfinite().all()


class TestOneHotCategorical:
    spec = specs.OneHot(3, shape=(2, 3))

    def make(self, probs):
        return OneHotCategorical(features(logits=probs.log()), FakeModel(self.spec))

    def test_by_hand(self):
        distribution = self.make(torch.tensor([[[0.5, 0.25, 0.25], [0.125, 0.375, 0.5]]]).double())
        drawn = torch.tensor([[[0, 1, 0], [1, 0, 0]]])
        assert distribution.logp(drawn).item() == pytest.approx(math.log(0.25 * 0.125), rel=1e-12)
        nats = 0.5 * math.log(2) + 0.5 * math.log(4)
        nats += 0.125 * math.log(8) - 0.375 * math.log(0.375) + 0.5 * math.log(2)
        assert distribution.entropy().item() == pytest.approx(nats, rel=1e-12)
        assert distribution.deterministic_sample().tolist() == [[[True, False, False], [False, False, True]]]

    def test_draws_have_a_single_one_as_often_as_is_probable(self):
        probs = torch.tensor([[0.5, 0.3, 0.2], [0.0, 0.9, 0.1]]).expand(100_000, 2, 3)
        distribution = self.make(probs)
        drawn = distribution.sample()
        assert (drawn.sum(-1) == 1).all()
        assert not drawn[:, 1, 0].any()
        assert ((drawn.float().mean(0) - probs[0]).abs() < 0.01).all()
        assert distribution.logp(drawn).isfinite().all()
        assert distribution.entropy().isfinite().all()


class TestBernoulli:
    def make(self, logits):
        return Bernoulli(features(logits=logits), FakeModel(specs.Binary(logits.shape[-1])))

    def test_by_hand(self):
        # p = 3/4 and 1/5.
        distribution = self.make(torch.tensor([[3.0, 0.25]]).double().log())
        assert distribution.logp(torch.tensor([[1, 0]])).item() == pytest.approx(math.log(0.75 * 0.8))
        assert distribution.logp(torch.tensor([[0, 1]])).item() == pytest.approx(math.log(0.25 * 0.2))
        nats = -sum(p * math.log(p) for p in (0.75, 0.25, 0.8, 0.2))
        assert distribution.entropy().item() == pytest.approx(nats, rel=1e-12)
        assert distribution.deterministic_sample().tolist() == [[True, False]]

    def test_draws_are_as_frequent_as_they_are_probable(self):
        p = torch.tensor([0.1, 0.5, 0.97])
        drawn = self.make((p / (1 - p)).log().expand(100_000, 3)).sample()
        assert ((drawn.float().mean(0) - p).abs() < 0.01).all()

    def test_what_is_sure_is_sure(self):
        logits = torch.tensor([-math.inf, -200.0, 200.0, math.inf]).expand(1000, 4).clone().requires_grad_()
        distribution = self.make(logits)
        drawn = distribution.sample()
        assert drawn.float().mean(0).tolist() == [0, 0, 1, 1]
        assert distribution.logp(drawn).tolist() == [[0.0]] * 1000
        assert distribution.entropy().tolist() == [[0.0]] * 1000
        (distribution.logp(drawn) + distribution.entropy()).sum().backward()
        assert logits.grad.isfinite().all()


class TestNormal:
    arrays = hnp.arrays(np.float64, (3, 2), elements=st.floats(-3, 3))

    @given(arrays, arrays, arrays)
    def test_reference(self, mean, log_std, actions):
        distribution = Normal(features(mean=mean, log_std=log_std), FakeModel(specs.Unbounded((2,))))
        std = np.exp(log_std)
        density = np.exp(-0.5 * ((actions - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
        with np.errstate(divide="ignore"):
            expected = np.log(density).sum(1, keepdims=True)
        usable = np.isfinite(expected) & (expected > -500)
        got = distribution.logp(torch.tensor(actions)).numpy()
        np.testing.assert_allclose(got[usable], expected[usable], rtol=1e-8, atol=1e-8)
        entropy = (0.5 * np.log(2 * math.pi * math.e * std**2)).sum(1, keepdims=True)
        np.testing.assert_allclose(distribution.entropy(), entropy, rtol=1e-10, atol=1e-10)
        np.testing.assert_array_equal(distribution.deterministic_sample(), mean)

    def test_samples_have_its_moments(self):
        shape = (200_000, 1)
        distribution = Normal(
            features(mean=torch.full(shape, 2.0), log_std=torch.full(shape, math.log(0.5))),
            FakeModel(specs.Unbounded((1,))),
        )
        draws = distribution.sample()
        assert draws.mean().item() == pytest.approx(2.0, abs=0.01)
        assert draws.std().item() == pytest.approx(0.5, abs=0.01)


def squashed(mean, log_std):
    return SquashedNormal(features(mean=mean, log_std=log_std), FakeModel(specs.Bounded(-1.0, 1.0, (1,))))


def normal_logp(u, mean, log_std):
    return -0.5 * ((u - mean) / math.exp(log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi)


class TestSquashedNormal:
    def test_is_a_density(self):
        edges = torch.linspace(-1, 1, 400_001, dtype=torch.float64)
        middles = ((edges[1:] + edges[:-1]) / 2).unsqueeze(1)
        distribution = squashed(torch.full_like(middles, 0.3), torch.full_like(middles, -0.2))
        logp = distribution.logp(middles.atanh())
        assert (logp.exp().mean() * 2).item() == pytest.approx(1.0, abs=1e-6)
        exact = -(logp.exp() * logp).mean().item() * 2
        assert distribution.entropy()[0].item() == pytest.approx(exact, abs=2e-5)

    def test_the_density_by_hand(self):
        # At u = 0 the tangent's slope is 1; at u = ½ log 3, where it is ½, the slope is ¾.
        for u, slope in ((0.0, 1.0), (0.5 * math.log(3), 0.75)):
            got = squashed(torch.tensor([[0.25]]), torch.tensor([[0.5]])).logp(torch.tensor([[u]]))
            assert got.item() == pytest.approx(normal_logp(u, 0.25, 0.5) - math.log(slope), rel=1e-6)

    @pytest.mark.parametrize("u", [-300.0, -40.0, -9.0, -1.0, 1e-4, 2.0, 15.0, 100.0])
    def test_exact_wherever_it_was_drawn(self, u):
        got = squashed(torch.tensor([[u - 0.3]]), torch.tensor([[0.1]])).logp(torch.tensor([[u]])).item()
        # log(1 − tanh² u) = log 4 − 2 |u| − 2 log(1 + e^(−2 |u|)), in float64.
        slope = math.log(4) - 2 * abs(u) - 2 * math.log1p(math.exp(-2 * abs(u)))
        assert got == pytest.approx(normal_logp(u, u - 0.3, 0.1) - slope, rel=1e-5)

    def test_saturated_samples_have_finite_numbers(self):
        mean = torch.tensor([[-50.0], [-9.0], [9.0], [50.0]]).requires_grad_()
        distribution = squashed(mean, torch.zeros_like(mean))
        drawn = distribution.sample().detach()
        assert (distribution.to_env(drawn).abs() <= 1).all()
        logp = distribution.logp(drawn)
        assert logp.isfinite().all()
        (logp.sum() + distribution.entropy().sum()).backward()
        assert mean.grad.isfinite().all()

    @pytest.mark.parametrize("std", [0.05, 0.5, 1.0, 3.0, 10.0])
    @pytest.mark.parametrize("mean", [-6.0, 0.0, 0.7, 20.0])
    def test_entropy_and_its_gradient(self, mean, std):
        noise = np.linspace(-10, 10, 200_001)
        weight = np.exp(-0.5 * noise**2) / math.sqrt(2 * math.pi)
        u = mean + std * noise
        slope = math.log(4) - 2 * np.abs(u) - 2 * np.log1p(np.exp(-2 * np.abs(u)))
        entropy = 0.5 * math.log(2 * math.pi * math.e * std**2) + np.trapezoid(slope * weight, noise)
        by_mean = np.trapezoid(-2 * np.tanh(u) * weight, noise)
        by_log_std = 1 + np.trapezoid(-2 * np.tanh(u) * std * noise * weight, noise)
        means, log_stds = torch.tensor([[mean]]), torch.tensor([[math.log(std)]])
        got = squashed(means.requires_grad_(), log_stds.requires_grad_()).entropy()
        got.sum().backward()
        assert got.item() == pytest.approx(entropy, abs=1e-5 + 1e-6 * abs(entropy))
        assert means.grad.item() == pytest.approx(by_mean, abs=1e-4)
        assert log_stds.grad.item() == pytest.approx(by_log_std, abs=1e-4 * max(1, std))

    def test_entropy_draws_nothing(self):
        before = torch.get_rng_state()
        squashed(torch.zeros(3, 1), torch.zeros(3, 1)).entropy()
        assert torch.equal(torch.get_rng_state(), before)


class TestDefaults:
    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            (specs.Categorical(3, shape=(1,)), Categorical),
            (specs.MultiCategorical([2, 3]), Categorical),
            (specs.OneHot(3), OneHotCategorical),
            (specs.Binary(3), Bernoulli),
            (specs.Unbounded((2,)), Normal),
            (specs.Bounded(-1.0, 2.0, (2,)), SquashedNormal),
        ],
    )
    def test_by_action_spec(self, spec, expected):
        assert default_distribution(spec) is expected

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            (specs.Composite(a=specs.Unbounded((1,))), "Composite"),
            (specs.Unbounded((1,), dtype=torch.int64), "int64"),
            (specs.Bounded(-math.inf, 1.0, (1,)), "infinite bound"),
            (specs.MultiCategorical(torch.tensor([[2, 3]]), shape=(1, 2)), "one dimension"),
        ],
    )
    def test_refusals_name_the_spec(self, spec, message):
        with pytest.raises((TypeError, ValueError), match=message):
            default_distribution(spec)
