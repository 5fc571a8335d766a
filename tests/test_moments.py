import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict

from rlstack import specs
from rlstack.moments import ObservationNormalizer, RunningMoments


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 2**31))
def test_batches_give_the_moments_of_the_whole(sizes, seed):
    rng = np.random.default_rng(seed)
    batches = [rng.normal(rng.normal(), 3, (size, 2, 3)) for size in sizes]
    moments = RunningMoments((3,))
    for batch in batches:
        moments.update(torch.tensor(batch))
    whole = np.concatenate(batches).reshape(-1, 3)
    np.testing.assert_allclose(moments.mean, whole.mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.var, whole.var(0), rtol=1e-9, atol=1e-9)
    assert moments.count == len(whole)


def test_float32_far_from_zero():
    samples = 1e6 + torch.randn(1000, 1)
    moments = RunningMoments((1,))
    for part in samples.split(10):
        moments.update(part)
    np.testing.assert_allclose(moments.var, samples.double().var(0, correction=0), rtol=1e-9)


def test_normalizes_real_leaves_and_only_those():
    spec = specs.Composite(
        a=specs.Unbounded((2,)),
        b=specs.Composite(c=specs.Categorical(3, shape=(1,)), d=specs.Bounded(0.0, 9.0, (1,))),
    )
    normalizer = ObservationNormalizer(spec)
    obs = TensorDict(
        {
            "a": 5 + 2 * torch.randn(1000, 2),
            "b": {"c": torch.randint(3, (1000, 1)), "d": torch.rand(1000, 1)},
        },
        [1000],
    )
    before = obs.clone()
    assert torch.allclose(normalizer(obs)["a"], obs["a"])
    normalizer.update(obs)
    normalized = normalizer(obs)
    for key in ("a", ("b", "d")):
        np.testing.assert_allclose(normalized[key].mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(normalized[key].std(0, correction=0), 1, atol=1e-4)
    assert torch.equal(normalized["b", "c"], obs["b", "c"])
    assert (obs == before).all()
