import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict

from rlstack import Algorithm, HparamsError, Policy, RecurrentAlgorithm, specs
from rlstack.env import Env
from rlstack.models import DiscreteMLP
from rlstack.policies.normalization import ObservationNormalizer, RunningMeanStd

from ..helpers import SMALL, update
from ..standin import record

DATA = Path(__file__).parents[1] / "data" / "policies-0.1.0"
IMAGE = specs.Bounded(0, 255, (3, 2), dtype=torch.uint8)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 2**31))
def test_batches_give_the_moments_of_the_whole(sizes, seed):
    rng = np.random.default_rng(seed)
    batches = [rng.normal(rng.normal(), 3, (size, 2, 3)) for size in sizes]
    moments = RunningMeanStd((3,))
    for batch in batches:
        moments.update(torch.tensor(batch))
    whole = np.concatenate(batches).reshape(-1, 3)
    np.testing.assert_allclose(moments.mean, whole.mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.var, whole.var(0), rtol=1e-9, atol=1e-9)
    assert moments.count == len(whole)


def test_float32_far_from_zero():
    samples = 1e6 + torch.randn(1000, 1)
    moments = RunningMeanStd((1,))
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
    assert torch.allclose(normalizer(obs)["a"], obs["a"].clamp(-10, 10))
    normalizer.update(obs)
    normalized = normalizer(obs)
    for key in ("a", ("b", "d")):
        np.testing.assert_allclose(normalized[key].mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(normalized[key].std(0, correction=0), 1, atol=1e-4)
    assert torch.equal(normalized["b", "c"], obs["b", "c"])
    assert (obs == before).all()


class Given(Env):
    """Observations of a spec, as a function of horizon and step says; reward for the action 0."""

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec, self._make = config["spec"], config["make"]
        self.action_spec = specs.Categorical(2, shape=(1,))
        self.horizon = -1

    def reset(self, *, config=None):
        self.horizon += 1
        return self._make(self.num_envs, self.horizon)

    def step(self, action):
        rewards = (action == 0).float()
        obs = self._make(self.num_envs, self.horizon)
        return TensorDict({"obs": obs, "rewards": rewards}, self.num_envs)


def make(spec, function, cls=Algorithm, **changes):
    options = {"num_envs": 16, "horizon": 4, "seed": 0, "device": "cpu", "model_config": SMALL, **changes}
    return cls(Given, env_config={"spec": spec, "make": function}, normalize_observations=True, **options)


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, -3e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_variance_of_what_never_changed_counts_as_one(constant, dtype):
    moments = RunningMeanStd((1,))
    for size in (1000, 7, 301):
        moments.update(torch.full((size, 1), constant, dtype=dtype))
    other = torch.tensor([[constant + 0.5]], dtype=dtype)
    assert torch.allclose(moments.normalize(other), torch.tensor([[0.5]], dtype=dtype), atol=1e-6)
    assert moments.normalize(torch.tensor([[constant]], dtype=dtype)).abs() < 1e-6


def test_what_varies_a_little_is_still_normalized():
    samples = 1000 + 1e-3 * torch.randn(4000, 1, dtype=torch.float64)
    moments = RunningMeanStd((1,))
    moments.update(samples)
    assert moments.normalize(samples).std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("cls", "options"),
    [(Algorithm, {}), (RecurrentAlgorithm, {"model_config": {"hidden_size": 8}, "seq_len": 2})],
)
@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_a_flag_that_rises_after_long_does_not_upset_the_policy(cls, options, engine):
    spec = specs.Unbounded((2,))

    def observe(num, horizon):
        flag = torch.full((num, 1), float(horizon >= 30))
        return torch.cat([torch.randn(num, 1), flag], 1)

    algorithm = make(spec, observe, cls, engine=engine, **options)
    for _ in range(30):
        update(algorithm)
    flag = torch.tensor([[0.0, 1.0]])
    assert algorithm.policy.normalize(flag)[0, 1] == pytest.approx(1, abs=1e-6)
    for _ in range(10):
        stats = update(algorithm)
        assert stats["monitors/kl_div"] < 0.1
        assert algorithm.policy.normalize(flag).abs().max() <= 10


def test_a_parameter_that_was_fixed_may_differ_later():
    algorithm = make(specs.Unbounded((1,)), lambda num, horizon: torch.ones(num, 1))
    for _ in range(5):
        update(algorithm)
    at = [algorithm.policy.act(torch.tensor([[x]])).values.item() for x in (1.0, 1.1)]
    assert abs(at[0] - at[1]) < 0.1
    assert algorithm.policy.normalize(torch.tensor([[1e30]])) == 10


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
@pytest.mark.parametrize("nested", [False, True])
def test_integers_are_scaled_by_their_bounds(dtype, nested):
    leaf = specs.Bounded(torch.tensor([0, -4]), torch.tensor([200, 4]), (2,), dtype=torch.int64)
    if dtype == torch.uint8:
        leaf = specs.Bounded(0, 200, (2,), dtype=dtype)
    spec = specs.Composite(body=specs.Composite(pixels=leaf), speed=specs.Unbounded((1,))) if nested else leaf
    normalizer = ObservationNormalizer(spec)
    pixels = torch.tensor([[0, 4], [200, 0], [50, 2]], dtype=dtype)
    obs = pixels
    if nested:
        obs = TensorDict({"body": {"pixels": pixels}, "speed": torch.randn(3, 1)}, 3)
    normalizer.update(obs)
    got = normalizer(obs)["body", "pixels"] if nested else normalizer(obs)
    second = [-0.96, -1.0, -0.98] if dtype == torch.uint8 else [1.0, 0.0, 0.5]
    expected = torch.tensor([[-1.0, 1.0, -0.5], second]).T
    assert got.dtype == torch.float32
    assert torch.allclose(got, expected)
    if nested:
        assert torch.equal(obs["body", "pixels"], pixels)


@pytest.mark.parametrize("engine", ["auto", "eager", "graph"])
def test_images_reach_the_model_scaled(engine):
    def observe(num, horizon):
        return torch.randint(256, (num, 3, 2), dtype=torch.uint8)

    if engine == "graph":
        algorithm = record(make, IMAGE, observe, engine="eager")
    else:
        algorithm = make(IMAGE, observe, engine=engine)
    for _ in range(3):
        stats = update(algorithm)
    obs = observe(5, 0)
    _, values = algorithm.policy.model(obs.float() / 127.5 - 1)
    assert torch.allclose(algorithm.policy.act(obs).values, values, atol=1e-5)
    assert stats["monitors/kl_div"] < 0.1
    stats = algorithm.collect() | algorithm.step()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_integers_without_bounds_are_refused_by_name(dtype):
    spec = specs.Composite(eye=specs.Composite(pixels=specs.Unbounded((4,), dtype=dtype)))
    with pytest.raises(HparamsError, match=r"obs\.eye\.pixels is Unbounded with dtype .* make it Bounded"):
        make(spec, lambda num, horizon: specs.zeros(spec, (num,), torch.device("cpu")))


def test_saved_policies_scale_integers_as_they_did(tmp_path):
    told = json.loads((DATA / "integers.json").read_text())
    obs = TensorDict(
        {
            "pixels": torch.tensor(told["pixels"], dtype=torch.uint8),
            "speed": torch.tensor(told["speed"]),
        },
        2,
    )
    # One of rlstack 0.1.0 takes integers as they are, also when it is saved anew.
    old = Policy.load(DATA / "integers.safetensors")
    old.save(tmp_path / "again.safetensors")
    for policy in (old, Policy.load(tmp_path / "again.safetensors")):
        assert torch.allclose(policy.act(obs).values, torch.tensor(told["values"]), rtol=1e-5)
    new = Policy(
        DiscreteMLP(old.observation_spec, old.action_spec, hiddens=(4,)), normalize_observations=True
    )
    new.save(tmp_path / "new.safetensors")
    again = Policy.load(tmp_path / "new.safetensors")
    assert torch.equal(again.act(obs).values, new.act(obs).values)
    assert torch.allclose(again.normalize(obs)["pixels"], obs["pixels"].float() / 127.5 - 1)
