"""What an environment says of itself and returns, where it enters: by name, with what was expected."""

import re

import gymnasium
import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm, specs
from rlstack.env import CartPole, Env, EnvError
from rlstack.env_check.report import EnvChecks, check_env

BASE = {"num_envs": 4, "horizon": 3, "seed": 0, "device": "cpu", "num_sgd_iters": 1}


class Told(Env):
    """Returns what it is told: `good` observations, and `bad` ones in its third step; rewards likewise."""

    spec = specs.Unbounded((2,))
    max_horizon = None
    good = torch.zeros(2)
    bad = None
    bad_rewards = None

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec = self.spec.clone()
        self.action_spec = specs.Categorical(2, shape=(1,))

    def reset(self, *, config=None):
        self.count = 0
        return self.good.expand(self.num_envs, -1).clone()

    def step(self, action):
        self.count += 1
        obs, rewards = self.good.expand(self.num_envs, -1).clone(), torch.zeros(self.num_envs, 1)
        if self.count == 3 and self.bad is not None:
            obs = self.bad(obs)
        if self.count == 3 and self.bad_rewards is not None:
            rewards = self.bad_rewards(rewards)
        return {"obs": obs, "rewards": rewards}


def told(**traits):
    traits = {key: staticmethod(value) if callable(value) else value for key, value in traits.items()}
    return type("Told", (Told,), traits)


def marked(*row):
    """Return what puts a row into the observations of environment 2."""

    def change(obs):
        obs[2] = torch.tensor(row, dtype=obs.dtype)
        return obs

    return change


DISCRETE = {
    "between": (specs.Categorical(3, shape=(1,), dtype=torch.float32), (2.0,), (1.5,)),
    "too high": (specs.Categorical(3, shape=(1,), dtype=torch.float32), (2.0,), (3.0,)),
    "between two": (specs.MultiCategorical([2, 3], dtype=torch.float32), (1.0, 2.0), (0.0, 0.5)),
    "half a bit": (specs.Binary(2, dtype=torch.float32), (0.0, 1.0), (0.5, 0.0)),
    "all ones": (specs.OneHot(3), (False, True, False), (True, True, True)),
    "all zeros": (specs.OneHot(3, dtype=torch.int64), (0, 0, 1), (0, 0, 0)),
    "twos": (specs.OneHot(2, dtype=torch.float32), (0.0, 1.0), (2.0, -1.0)),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_observations_are_values_of_their_spec(name):
    spec, good, bad = DISCRETE[name]
    good = torch.tensor(good, dtype=spec.dtype)
    Algorithm(told(spec=spec, good=good), **BASE).collect()
    env_cls = told(spec=spec, good=good, bad=marked(*bad))
    with pytest.raises(
        EnvError, match="obs of environment 2 from Told is not one of its spec's values in step 2"
    ):
        Algorithm(env_cls, **BASE).collect()
    assert check_env(told(spec=spec, good=good), steps=4).faults == []
    [fault] = check_env(env_cls, steps=4).faults
    assert re.search(r"Told.step \(step 2\): obs of environment 2 is outside of its spec", fault)


NOT_DENSE = {
    "sparse": (lambda x: x.to_sparse(), "has layout torch.sparse_coo, expected a dense tensor: .*to_dense"),
    "csr": (lambda x: x.to_sparse_csr(), "has layout torch.sparse_csr, expected a dense tensor"),
    "nested": (lambda x: torch.nested.nested_tensor(list(x)), "is a nested tensor, expected a dense one"),
    "jagged": (
        lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged),
        "is a nested tensor, expected a dense one",
    ),
}


@pytest.mark.parametrize("which", ["obs", "rewards"])
@pytest.mark.parametrize("name", NOT_DENSE)
@pytest.mark.filterwarnings("ignore:.*(Sparse|nested)")
def test_tensors_that_are_not_dense_are_named(which, name):
    change, words = NOT_DENSE[name]
    algorithm = Algorithm(told(**{"bad" if which == "obs" else "bad_rewards": change}), **BASE)
    with pytest.raises(EnvError, match=rf"Told.step \(step 2 of the horizon\): {which} {words}"):
        algorithm.collect()
    if which == "obs":
        with pytest.raises(ValueError, match=f"obs {words}"):
            algorithm.policy.act(change(torch.zeros(3, 2)))


NAN = float("nan")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            specs.Bounded(torch.tensor([0.0, 1.0]), torch.tensor([1.0, -1.0])),
            "from 1 to -1, expected low <= high",
        ),
        (specs.Bounded(torch.tensor([0.0, NAN]), torch.ones(2)), "from nan to 1, expected low <= high"),
        (specs.Bounded(torch.zeros(2), torch.tensor([NAN, 1.0])), "from 0 to nan, expected low <= high"),
        (specs.Categorical(0, shape=(2,)), "of 0 values, expected at least 1"),
        (specs.MultiCategorical([2, 0]), "of 0 values, expected at least 1"),
    ],
)
def test_specs_without_values_are_refused(spec, words):
    for nested in (False, True):
        env_cls = told(spec=specs.Composite(part=spec) if nested else spec)
        name = f"Told.observation_spec{'.part' if nested else ''} is a {specs.kind(spec).__name__} {words}"
        with pytest.raises(EnvError, match=re.escape(name)):
            Algorithm(env_cls, **BASE)


@pytest.mark.parametrize("value", [True, False, 3.0, 0, "3"])
def test_a_horizon_is_a_positive_integer(value):
    with pytest.raises(
        EnvError, match=rf"Told.max_horizon is {value!r}, expected a positive integer, or None"
    ):
        Algorithm(told(max_horizon=value), **BASE)


@pytest.mark.parametrize("name", ["num_envs", "steps"])
@pytest.mark.parametrize("value", [True, 0, 2.0])
def test_the_checker_takes_positive_integers(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}, expected a whole number of at least 1"):
        check_env(CartPole, **{name: value})
    test = type("Checks", (EnvChecks,), {"env_cls": CartPole, name: value})().test_reset
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        test()


class Moody(CartPole):
    """Changes a spec, in the way and at the time that its class says."""

    when = ("reset", 2)
    fits = False

    def __init__(self, num_envs, /, **options):
        super().__init__(num_envs, **options)
        self.resets = self.steps = 0

    def change(self):
        """Change the specs."""

    def reset(self, *, config=None):
        obs = super().reset(config=config)
        self.resets += 1
        if self.when == ("reset", self.resets):
            self.change()
        return obs if self.fits else obs[:, : self.observation_spec.shape[0]]

    def step(self, action):
        self.steps += 1
        if self.when == ("step", self.steps):
            self.change()
        out = super().step(action)
        return out if self.fits else {**out, "obs": out["obs"][:, : self.observation_spec.shape[0]]}


def collect(algorithm, times):
    for _ in range(times):
        algorithm.collect()


def narrow(env):
    env.observation_spec = specs.Unbounded((1,))


def other_actions(env):
    env.action_spec = specs.Categorical(3, shape=(1,))


def more_actions_in_place(env):
    env.action_spec.space = specs.Categorical(3, shape=(1,)).space


def no_spec(env):
    env.action_spec = "two"


CHANGES = {
    # One observation was broadcast into the place of four.
    "reset": ({"change": narrow}, "observation_spec"),
    "step": ({"change": narrow, "when": ("step", 2)}, "observation_spec"),
    "actions": ({"change": other_actions, "fits": True}, "action_spec"),
    "while stepping": ({"change": other_actions, "fits": True, "when": ("step", 5)}, "action_spec"),
    "no spec": ({"change": no_spec, "fits": True}, "action_spec"),
    "in place": ({"change": more_actions_in_place, "fits": True}, "action_spec"),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("resets", [1, 5])
def test_specs_that_change_are_named(name, resets):
    traits, attribute = CHANGES[name]
    if resets > 1 and traits.get("when", ("reset",))[0] == "reset":
        traits = {**traits, "when": ("reset", 1)}
    algorithm = Algorithm(type("Moody", (Moody,), traits), **BASE, horizons_per_env_reset=resets)
    words = rf"Moody\.{attribute}[\w. ]* is (?s:.*) now, it was (?s:.*) when the environment was made"
    with pytest.raises(EnvError, match=words):
        collect(algorithm, 3)


class Boxed(Told):
    """Actions and observations within bounds, and specs that are made anew whenever they are asked for."""

    def __init__(self, num_envs, /, **options):
        self.bound = 1.0
        super().__init__(num_envs, **options)

    @property
    def observation_spec(self):
        return specs.Bounded(-self.bound, self.bound, (2,))

    @observation_spec.setter
    def observation_spec(self, spec):
        pass


def test_specs_made_anew_are_compared_by_what_they_say():
    algorithm = Algorithm(Boxed, **BASE)
    algorithm.collect()
    algorithm.collect()
    algorithm.env.bound = 2.0
    with pytest.raises(EnvError, match=r"Boxed.*_spec.low\[0\] \(and 1 more\) is -2 now, it was -1 when"):
        algorithm.collect()


def test_bounds_that_change_in_place_are_found():
    algorithm = Algorithm(told(spec=specs.Bounded(-torch.ones(2), torch.ones(2))), **BASE)
    algorithm.collect()
    algorithm.env.observation_spec.space.high.mul_(1.0)
    algorithm.collect()
    algorithm.env.observation_spec.space.high.mul_(2.0)
    with pytest.raises(EnvError, match=r"Told.*_spec.high\[0\] \(and 1 more\) is 2 now, it was 1 when"):
        algorithm.collect()


class Batched(Told):
    """Has the batch dimension in the specs that `batched` names, as torchrl's environments do."""

    batched = ()

    def __init__(self, num_envs, /, **options):
        super().__init__(num_envs, **options)
        if "observation_spec" in self.batched:
            self.observation_spec = specs.Unbounded((num_envs, 2))
        if "parts" in self.batched:
            part = specs.Unbounded((num_envs, 2))
            self.observation_spec = specs.Composite(part=part, shape=(num_envs,))
        if "action_spec" in self.batched:
            self.action_spec = specs.Categorical(2, shape=(num_envs, 1))

    def step(self, action):
        assert action.shape == (self.num_envs, 1)
        return super().step(action)


BATCHED = {
    "observation_spec": ("observation_spec", "(2,)"),
    "parts": ("observation_spec.part", "(2,)"),
    "action_spec": ("action_spec", "(1,)"),
}


@pytest.mark.parametrize("name", BATCHED)
def test_specs_have_no_batch_dimension(name):
    env_cls = type("Batched", (Batched,), {"batched": (name,)})
    path, shape = BATCHED[name]
    many = f"Batched.{path} has shape [2048, {shape[1]}], where the first dimension counts simulations: "
    words = f"specs have no batch dimension, make it with shape={shape}"
    with pytest.raises(EnvError, match=re.escape(many + words)):
        Algorithm(env_cls, num_envs=2048, device="cpu")
    # The checker compares two numbers of simulations, so it knows for few ones, too.
    [fault] = check_env(env_cls, num_envs=3).faults
    assert f"Batched.{path} has shape [3, " in fault
    assert words in fault


def test_few_simulations_with_the_batch_dimension_in_their_spec():
    env_cls = type("Batched", (Batched,), {"batched": ("observation_spec",)})
    words = r"obs has shape \[4, 2\], expected \[4, 4, 2\]: specs have no batch dimension, leave the 4 out"
    with pytest.raises(EnvError, match=words):
        Algorithm(env_cls, **BASE).collect()


@pytest.mark.parametrize(("num_envs", "shape"), [(4, (4, 1)), (2000, (2000,)), (4, (4,))])
def test_actions_with_the_batch_dimension_in_their_spec(num_envs, shape):
    class Adds(Told):
        def __init__(self, num_envs, /, **options):
            super().__init__(num_envs, **options)
            self.observation_spec, self.action_spec = specs.Unbounded((1,)), specs.Unbounded(shape)

        def reset(self, *, config=None):
            return torch.zeros(self.num_envs, 1)

        def step(self, action):
            return {"obs": torch.zeros(self.num_envs, 1) + action, "rewards": torch.zeros(self.num_envs, 1)}

    words = rf"obs has shape \[{num_envs}, {num_envs}.*; if the {num_envs} in the shape \[{num_envs}.*\] of "
    words += "action_spec counts simulations, leave it out: specs have no batch dimension"
    with pytest.raises(EnvError, match=words):
        Algorithm(Adds, **{**BASE, "num_envs": num_envs}).collect()


def test_other_faults_of_a_step_say_nothing_of_it():
    env_cls = type("Raises", (Told,), {"step": lambda env, action: 1 / 0})
    for num_envs in (1, 4):
        with pytest.raises(EnvError, match=r"raised ZeroDivisionError: division by zero$"):
            Algorithm(env_cls, **{**BASE, "num_envs": num_envs}).collect()


def test_dimensions_that_happen_to_count_as_many():
    """Three legs of two joints in three simulations: that is no batch dimension."""

    class Legs(Told):
        def __init__(self, num_envs, /, **options):
            super().__init__(num_envs, **options)
            self.observation_spec = specs.Unbounded((3, 2))
            self.action_spec = specs.Unbounded((3, 2))

        def reset(self, *, config=None):
            super().reset()
            return torch.zeros(self.num_envs, 3, 2)

        def step(self, action):
            return super().step(action) | {"obs": torch.zeros(self.num_envs, 3, 2)}

    Algorithm(Legs, **{**BASE, "num_envs": 3}).collect()
    assert check_env(Legs, num_envs=3).faults == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (
            lambda x: x[0],
            r"obs has shape \[2\], expected \[4, 2\]: add the batch dimension, a row for each",
        ),
        (
            lambda x: x.T,
            r"obs has shape \[2, 4\], expected \[4, 2\]: transpose it, the batch dimension",
        ),
        (lambda x: (x, {}), r"obs is a tuple of 2, expected a torch.Tensor: return that alone"),
    ],
)
def test_what_to_do_about_other_shapes(bad, words):
    with pytest.raises(EnvError, match=words):
        Algorithm(told(bad=bad), **BASE).collect()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (specs.Unbounded, r"expected a spec: use an instance, Unbounded\(\.\.\.\)"),
        (
            {"part": specs.Unbounded((2,))},
            r"is a dict, expected a spec: use rlstack.specs.Composite",
        ),
        (gymnasium.spaces.Box(0, 1, (2,)), r"is a gymnasium.Box, expected a spec: use rlstack.specs.Bounded"),
        (gymnasium.spaces.Discrete(2), r"use rlstack.specs.Categorical\(n, shape=\(1,\)\)"),
        ((2,), "is a tuple of 1, expected a spec: use one of rlstack.specs"),
    ],
)
def test_what_is_no_spec_is_told_what_would_be_one(spec, words):
    class Odd(Told):
        def __init__(self, num_envs, /, **options):
            super().__init__(num_envs, **options)
            self.observation_spec = spec

    with pytest.raises(EnvError, match=words):
        Algorithm(Odd, **BASE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("which", ["obs", "rewards"])
def test_observations_and_rewards_of_another_dtype_are_named_alike(which, dtype):
    env_cls = told(**{"bad" if which == "obs" else "bad_rewards": lambda x: x.to(dtype)})
    words = rf"{which} has dtype {dtype}, expected torch.float32: convert it with \.to\(torch.float32\)"
    with pytest.raises(EnvError, match=rf"Told.step \(step 2 of the horizon\): {words}"):
        Algorithm(env_cls, **BASE).collect()
    [fault] = check_env(env_cls, steps=4).faults
    assert re.search(words, fault)


class Ending(Told):
    """Returns more than is read."""

    more = ()

    def step(self, action):
        ends = {name: torch.zeros(self.num_envs, 1, dtype=torch.bool) for name in self.more}
        return TensorDict(super().step(action) | ends, self.num_envs)


ENDS = "where an episode ends is said by terminated, or by truncated if it would have gone on"


@pytest.mark.parametrize(
    ("more", "names", "ends"),
    [
        (("done", "truncations"), "done, truncations", True),
        (("final_obs",), "final_obs", False),
        (("terminated",), None, False),
        (("info",), "info", False),
        ((), None, False),
    ],
)
def test_what_a_step_returns_in_vain_is_noted_once(more, names, ends, caplog):
    env_cls = type("Ending", (Ending,), {"more": more})
    algorithm = Algorithm(env_cls, **BASE)
    algorithm.eval()
    assert caplog.messages == []
    for _ in range(3):
        algorithm.collect()
        algorithm.step()
    algorithm.eval()
    said = {finding.name: finding for finding in check_env(env_cls, steps=4).findings}["steps"]
    if names is None:
        assert caplog.messages == []
        assert said.level == "ok"
        return
    [message] = caplog.messages
    assert message.startswith(f"Ending.step returns {names}, which nothing reads: leave that out")
    assert (ENDS in message) == ends
    assert (said.level, said.said) == ("note", message)
