"""Gymnasium's spaces as specs, and arrays as tensors, there and back."""

import sys
import types

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlstack import EnvError, specs
from rlstack.env.gymnasium import from_vector, make
from rlstack.env.gymnasium.spaces import array_kind, as_tensor, read_space

from .. import gym_envs  # noqa: F401 (it registers)

CPU = torch.device("cpu")

KINDS = {
    "bounded": (spaces.Box(-2, 3, (2, 3), np.float64), specs.Bounded(-2.0, 3.0, (2, 3))),
    "bounds of each": (
        spaces.Box(np.float32([0, -1]), np.float32([1, 5])),
        specs.Bounded(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 5.0]), (2,)),
    ),
    "scalar": (spaces.Box(0, 1, ()), specs.Bounded(0.0, 1.0, (1,))),
    "unbounded": (spaces.Box(-np.inf, np.inf, (4,)), specs.Unbounded((4,))),
    "half bounded": (spaces.Box(0, np.inf, (4,), np.float64), specs.Unbounded((4,))),
    "largest numbers": (
        spaces.Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (1,)),
        specs.Unbounded((1,)),
    ),
    "image": (
        spaces.Box(0, 255, (3, 4, 4), np.uint8),
        specs.Bounded(0, 255, (3, 4, 4), dtype=torch.uint8),
    ),
    "integers": (spaces.Box(-5, 5, (2,), np.int64), specs.Bounded(-5, 5, (2,), dtype=torch.int64)),
    "discrete": (spaces.Discrete(4), specs.Categorical(4, (1,))),
    "discrete from": (spaces.Discrete(4, start=-2), specs.Categorical(4, (1,))),
    "multi-discrete": (spaces.MultiDiscrete([2, 5]), specs.MultiCategorical([2, 5])),
    "multi-discrete from": (
        spaces.MultiDiscrete([2, 5], start=[1, -3]),
        specs.MultiCategorical([2, 5]),
    ),
    "multi-binary": (spaces.MultiBinary(5), specs.Binary(5)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_as_observation(kind):
    space, spec = KINDS[kind]
    cls = make("Rlstack/Echo-v0", observations=space, actions=spaces.Discrete(2))
    env = cls(5)
    assert env.observation_spec == spec
    rows = env.reset()
    assert specs.mismatch(rows, spec, 5, "obs") is None
    raw = torch.as_tensor(np.asarray(env._simulator.vector._observations)).reshape(rows.shape)
    start = torch.as_tensor(np.asarray(getattr(space, "start", 0)))
    assert torch.equal(rows.double(), (raw - start).to(rows.dtype).double())
    assert not specs.outside(rows, spec).any()


ACTIONS = [kind for kind in KINDS if kind not in ("image", "integers")]


@pytest.mark.parametrize("kind", ACTIONS)
def test_each_kind_as_action(kind):
    space, spec = KINDS[kind]
    env = make("Rlstack/Echo-v0", observations=spaces.Discrete(2), actions=space)(5)
    assert env.action_spec == spec
    env.reset()
    for _ in range(20):
        actions = spec.rand((5,))
        kept = actions.clone()
        # The reward says whether the action was of its space.
        assert env.step(actions)["rewards"].tolist() == [[1]] * 5
        assert torch.equal(actions, kept)


def test_nested_spaces_both_ways():
    space = spaces.Dict(
        b=spaces.Tuple((spaces.Discrete(3, start=1), spaces.Box(-1, 1, (2,)))),
        a=spaces.Dict(x=spaces.MultiBinary(2)),
    )
    env = make("Rlstack/Echo-v0", observations=space, actions=space)(3)
    spec = specs.Composite(
        {
            "a": specs.Composite(x=specs.Binary(2)),
            "b": specs.Composite({"0": specs.Categorical(3, (1,)), "1": specs.Bounded(-1.0, 1.0, (2,))}),
        }
    )
    assert env.observation_spec == spec.to("cpu") == env.action_spec
    assert specs.mismatch(env.reset(), spec, 3, "obs") is None
    for _ in range(20):
        assert env.step(spec.rand((3,)))["rewards"].tolist() == [[1]] * 3


def test_last_observations_of_nested_spaces():
    space = spaces.Dict(a=spaces.Box(0, 1, (2,)), b=spaces.Tuple((spaces.Discrete(9),)))
    options = {"observations": space, "actions": spaces.Discrete(2), "max_episode_steps": 2}
    env = make("Rlstack/Echo-v0", vector_kwargs={"autoreset_mode": "SameStep"}, **options)(3)
    env.reset()
    first = env.step(torch.zeros(3, 1, dtype=torch.int64))
    assert torch.equal(first["final_obs"]["a"], first["obs"]["a"])
    out = env.step(torch.zeros(3, 1, dtype=torch.int64))
    assert out["truncated"].all()
    assert specs.mismatch(out["final_obs"], env.observation_spec, 3, "final_obs") is None
    assert (out["final_obs"]["a"] != out["obs"]["a"]).all()


def test_actions_stay_within_bounds_that_float32_rounds():
    space = spaces.Box(-0.1, 0.1, (1,), np.float64)
    layout = read_space(space, "actions", acts=True)
    most = layout.spec.space.high[None]
    assert float(most) > 0.1
    assert layout.write(most, "numpy").tolist() == [[0.1]]
    assert layout.write(most, "torch").tolist() == [[0.1]]


class Array:
    """What another library's array offers: DLPack, and memory that isn't to be written into."""

    def __init__(self, values):
        self.values = torch.as_tensor(values)

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


@pytest.mark.parametrize("make_array", [np.asarray, torch.as_tensor, Array, list])
def test_tensors_own_what_they_hold(make_array):
    values = [[1.0, 2.0], [3.0, 4.0]]
    array = make_array(values)
    tensor = as_tensor(array, CPU, torch.float64)
    assert (tensor.tolist(), tensor.dtype) == (values, torch.float64)
    tensor += 1
    again = as_tensor(array, CPU)
    assert again.tolist() == values


def test_arrays_that_are_views_or_read_only():
    backward = np.arange(6.0).reshape(2, 3)[::-1, ::2]
    assert as_tensor(backward, CPU).tolist() == backward.tolist()
    constant = np.broadcast_to(np.float32(1), (3,))
    assert as_tensor(constant, CPU).tolist() == [1, 1, 1]


def test_jax_is_handed_arrays_of_its_own(monkeypatch):
    class Jax(Array):
        __module__ = "jaxlib._jax"

    assert [array_kind(x) for x in ({"a": (Jax([1]),)}, [torch.ones(1)], np.ones(1))] == [
        "jax",
        "torch",
        "numpy",
    ]
    fake = types.SimpleNamespace(numpy=types.SimpleNamespace(asarray=Jax))
    monkeypatch.setitem(sys.modules, "jax", fake)
    made = read_space(spaces.Discrete(3, start=1), "actions", acts=True).write(
        torch.tensor([[0], [2]]), "jax"
    )
    assert isinstance(made, Jax)
    assert made.values.tolist() == [1, 3]


def test_what_there_is_no_spec_for_is_refused():
    for space, said in (
        (spaces.Text(4), r"Echo-v0's observation_space is a Text, expected one of Box, .*Tuple"),
        (spaces.MultiDiscrete([[2, 3], [4, 5]]), r"MultiDiscrete of shape \[2, 2\]: flatten it"),
        (spaces.Dict(a=spaces.Text(4)), r"observation_space.a is a Text"),
    ):
        with pytest.raises(EnvError, match=said):
            make("Rlstack/Echo-v0", observations=space, actions=spaces.Discrete(2))(1)
    with pytest.raises(EnvError, match="action_space is a Box of int64: wrap it in a MultiDiscrete"):
        make("Rlstack/Echo-v0", observations=spaces.Discrete(2), actions=KINDS["integers"][0])(1)
    with pytest.raises(EnvError, match="object has no single_observation_space"):
        from_vector(lambda num_envs: object(), name="Thing", autoreset="disabled")(1)
