"""Tasks in MuJoCo, as far as they go without it: a stand-in simulates points on a line."""

import sys
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm
from rlstack.common.errors import NonFiniteError
from rlstack.common.public_names import public_name
from rlstack.env import EnvChecks, EnvError, mujoco
from rlstack.env.faults import faults_of
from rlstack.env.mujoco.options import resolve_options
from rlstack.env.mujoco.simulation import STATE_FIELDS, Simulation
from rlstack.specs import Bounded, Composite, Unbounded

ALL = [
    "Ant",
    "CartpoleSwingup",
    "CheetahRun",
    "HalfCheetah",
    "Hopper",
    "Reacher",
    "ReacherEasy",
    "Swimmer",
    "Walker2d",
    "WalkerWalk",
]


class Points(Simulation):
    """A point per simulation that its control pushes; its place times two is what is computed."""

    def __init__(self, model, num_envs, reads=(), *, up_to_date=True):
        super().__init__(model, num_envs, reads, up_to_date=up_to_date)
        shapes = {"qpos": 1, "qvel": 1, "ctrl": 1, "sensordata": 2}
        self.fields = {key: torch.zeros(num_envs, n, dtype=torch.float64) for key, n in shapes.items()}
        self.broken = None

    def field(self, name):
        return self.fields[self.checked(name)]

    def field_names(self):
        return list(self.fields)

    def advance(self, steps):
        for _ in range(steps):
            self.fields["qvel"] += 0.1 * self.fields["ctrl"]
            self.fields["qpos"] += 0.1 * self.fields["qvel"]
        self._compute()

    def restart(self, rows, values, settle):
        which = slice(None) if rows is None else rows
        for name in STATE_FIELDS:
            if name in self.fields:
                self.fields[name][which] = 0
        for name, value in values.items():
            self.fields[name][which] = value.to(torch.float64)
        self._compute()

    def unstable(self):
        return self.broken

    def state_dict(self):
        return {name: value.clone() for name, value in self.fields.items()}

    def load_state_dict(self, state):
        for name, value in state.items():
            self.fields[name].copy_(value)

    def _compute(self):
        self.fields["sensordata"].copy_(2 * self.fields["qpos"].expand(-1, 2))


class Push(mujoco.MujocoEnv):
    """Points that are to go to a goal of their own; one that is too far away has failed."""

    max_episode_steps = 20
    defaults: ClassVar = {"force": 1.0, "range": (-0.5, 0.5), "ends": True}
    fixed = ("ends",)
    limited = True

    def load_model(self):
        return SimpleNamespace(
            nu=1,
            opt=SimpleNamespace(timestep=0.1),
            qpos0=torch.zeros(1, dtype=torch.float64).numpy(),
            actuator_ctrllimited=torch.tensor([int(self.limited)]).numpy(),
            actuator_ctrlrange=torch.tensor([[-2.0, 1.0]]).numpy(),
            sensor=lambda name: {"twice": SimpleNamespace(adr=[1], dim=[1])}[name],
        )

    def make_simulation(self, reads=frozenset()):
        return Points(self.model, self.num_envs, reads)

    def start(self, num):
        low, high = self.config["range"]
        return {"qpos": low + (high - low) * torch.rand(num, 1), "goal": torch.rand(num, 1)}

    def observation(self, state):
        return torch.cat([state.qpos, state.qvel, state.goal, state.sensor("twice")], -1)

    def reward(self, before, action, after):
        closer = (before.qpos - before.goal).abs() - (after.qpos - after.goal).abs()
        return (self.config["force"] * closer).squeeze(-1)

    def terminated(self, state):
        return state.qpos.abs() > 1 if self.config["ends"] else None


class TestPush(EnvChecks):
    env_cls = Push
    env_config: ClassVar = {"range": [-0.2, 0.2], "force": 2}


class TestPushForever(EnvChecks):
    env_cls = Push
    env_config: ClassVar = {"max_episode_steps": None, "ends": False}


def test_specs_come_from_the_model_and_from_what_is_observed():
    env = Push(3)
    assert env.observation_spec == Unbounded((4,))
    assert env.action_spec == Bounded(torch.tensor([-2.0]), torch.tensor([1.0]), (1,))
    free = type("Free", (Push,), {"limited": False})(3)
    assert free.action_spec == Unbounded((1,))
    assert env.dt == pytest.approx(0.1)
    assert Push(3, config={"frame_skip": 4}).dt == pytest.approx(0.4)


def test_observations_may_have_parts():
    class Parts(Push):
        def observation(self, state):
            return TensorDict({"at": state.qpos, "goal": {"is": state.goal}}, self.num_envs)

    env = Parts(2)
    assert env.observation_spec == Composite(at=Unbounded((1,)), goal=Composite({"is": Unbounded((1,))}))
    env.reset()
    out = env.step(torch.ones(2, 1))
    assert torch.equal(out["obs"]["at"].double(), env._after.qpos.float().double())


def test_rows_that_end_begin_anew_and_others_go_on():
    env = Push(4)
    torch.manual_seed(0)
    env.reset()
    env._simulation.fields["qpos"][1] = 0.999
    env._simulation.fields["qvel"][1] = 1.0
    goals = env._after.goal.clone()
    out = env.step(torch.zeros(4, 1))
    assert out["terminated"].flatten().tolist() == [False, True, False, False]
    assert not out["truncated"].any()
    others = [0, 2, 3]
    assert torch.equal(out["obs"][others], out["final_obs"][others])
    assert out["final_obs"][1, 0] > 1
    assert out["obs"][1, 0].abs() <= 0.5
    # What is computed of it and what the task keeps of it are new, too.
    assert out["obs"][1, 3] == 2 * out["obs"][1, 0]
    assert (env._after.goal[1] != goals[1]).all()
    assert torch.equal(env._after.goal[others], goals[others])
    assert env.age.flatten().tolist() == [1, 0, 1, 1]
    for _ in range(19):
        out = env.step(torch.zeros(4, 1))
    assert out["truncated"].flatten().tolist() == [True, False, True, True]


def test_the_state_before_a_step_is_that_before_it():
    env = Push(2)
    env.reset()
    before = env._after.qpos.clone()
    out = env.step(torch.ones(2, 1))
    after = out["final_obs"][:, :1]
    goal = out["final_obs"][:, 2:3]
    expected = (before - goal).abs() - (after - goal).abs()
    torch.testing.assert_close(out["rewards"].double(), expected.double(), rtol=1e-5, atol=1e-6)


def test_without_limits_it_says_nothing_of_endings():
    env = Push(2, config={"max_episode_steps": None, "ends": False})
    env.reset()
    assert set(env.step(torch.zeros(2, 1)).keys()) == {"obs", "rewards"}
    env = Push(2, config={"max_episode_steps": None})
    env.reset()
    assert set(env.step(torch.zeros(2, 1)).keys()) == {"obs", "rewards", "terminated", "final_obs"}


def test_making_one_draws_no_numbers():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    Push(2)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_returned_belongs_to_who_asked():
    class Bare(Push):
        def observation(self, state):
            return state.qpos

    torch.set_default_dtype(torch.float64)
    try:
        env = Bare(2)
        obs = env.reset()
        kept = obs.clone()
        env.step(torch.ones(2, 1))
        assert torch.equal(obs, kept)
    finally:
        torch.set_default_dtype(torch.float32)


def test_fields_that_are_read_only_later_are_refused():
    class Late(Push):
        late = False

        def reward(self, before, action, after):
            return (before.qvel if self.late else before.qpos).squeeze(-1)

    env = Late(2)
    env.reset()
    env.late = True
    with pytest.raises(EnvError, match=r"^qvel of the state before a step is read now, and wasn't"):
        env.step(torch.zeros(2, 1))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "observation",
            lambda self, state: state.qpos.squeeze(-1),
            r"observation returned \[2\], expected a",
        ),
        ("observation", lambda self, state: 3, "observation returned int"),
        (
            "reward",
            lambda self, before, action, after: torch.ones(()),
            r"reward returned \[\], expected .*\[2\]",
        ),
        (
            "terminated",
            lambda self, state: state.qpos,
            "terminated returned torch.float64, expected torch.bool",
        ),
        (
            "start",
            lambda self, num: {"qpos": torch.zeros(3, 1)},
            r"start returned qpos of shape \[3, 1\], .* 2",
        ),
        ("observation", lambda self, state: state.qpso, "mjData has no qpso: did you mean qpos?"),
    ],
)
def test_what_a_task_returns_is_looked_at(name, value, said):
    wrong = type("Wrong", (Push,), {name: value})
    with pytest.raises(EnvError, match=said), faults_of("Wrong"):
        wrong(2)


def test_quantities_that_mujoco_computes_for_sensors_only():
    class Momentum(Push):
        def make_simulation(self, reads=frozenset()):
            made = super().make_simulation(reads)
            made.fields["subtree_linvel"] = torch.zeros(2, 1, 3)
            return made

        def observation(self, state):
            return state.subtree_linvel

    with pytest.raises(EnvError, match="for sensors only: add <subtreelinvel> to the model's <sensor>"):
        Momentum(2)


def test_an_unstable_simulation_is_named():
    algorithm = Algorithm(Push, num_envs=3, horizon=4, device="cpu")
    algorithm.collect()
    algorithm.step()
    algorithm.env._simulation.broken = 2, "qacc[5]"
    said = (
        r"^environment 2 of Push is unstable: MuJoCo found NaN, infinity or a huge number in qacc\[5\]; take"
    )
    with pytest.raises(NonFiniteError, match=said):
        algorithm.collect()
    # The next horizon begins with a reset, the policy is as it was.
    algorithm.env._simulation.broken = None
    assert algorithm.collect()["env/resets"] == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fource": 1}, "env_config.fource is not an option of Push: did you mean force?"),
        ({"force": "much"}, "env_config.force of Push is 'much', expected a number"),
        ({"force": True}, "expected a number"),
        ({"ends": 1}, "env_config.ends of Push is 1, expected True or False"),
        ({"range": [1, 2, 3]}, "expected a pair of numbers"),
        ({"frame_skip": 0}, "frame_skip of Push is 0, expected a whole number of at least 1"),
        ({"frame_skip": None}, "expected a whole number of at least 1"),
        ({"max_episode_steps": 2.5}, "expected a whole number of at least 1, or None"),
        ({"num_threads": 0}, "expected a whole number of at least 1, or None"),
    ],
)
def test_options_are_checked(given, said):
    with pytest.raises(EnvError) as caught:
        Push(2, config=given)
    assert said in str(caught.value)


def test_some_options_stay():
    env = Push(2, config={"force": 2.0})
    env.reset(config={"force": 3.0, "ends": True, "frame_skip": 1})
    assert env.config["force"] == 3.0
    for option, value in {"ends": False, "frame_skip": 2, "max_episode_steps": None}.items():
        with pytest.raises(
            EnvError, match=f"^env_config.{option} of Push is .* and can't be changed to {value}"
        ):
            env.reset(config={option: value})


def test_other_kinds_of_options_are_taken_as_they_are():
    assert resolve_options({"kind": "a"}, {"kind": ["b"]}, "X") == {"kind": ["b"]}


@pytest.mark.parametrize("name", ALL)
def test_without_mujoco_it_says_what_is_missing(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(EnvError, match=rf"^{name} needs mujoco: pip install 'rlstack\[mujoco\]'$"):
        getattr(mujoco, name)(1)


@pytest.mark.parametrize(("name", "package"), [("Hopper", "gymnasium"), ("WalkerWalk", "dm_control")])
def test_without_the_package_that_has_the_model(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", SimpleNamespace())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvError) as caught:
        getattr(mujoco, name)(1)
    assert str(caught.value) == f"{name} needs {package}: pip install 'rlstack[mujoco]'"


def test_a_task_needs_a_model(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", SimpleNamespace())

    class Nothing(Push):
        load_model = mujoco.MujocoEnv.load_model

    with pytest.raises(
        EnvError, match=r"^Nothing.mjcf is None, expected the path of an MJCF file, or its text"
    ):
        Nothing(1)
    Nothing.mjcf = "no/such.xml"
    with pytest.raises(EnvError, match=r"^the model of Nothing is no/such.xml, and there is no such file"):
        Nothing(1)


@pytest.mark.parametrize("name", ALL)
def test_names_in_files_are_where_they_say(name):
    assert public_name(getattr(mujoco, name)) == f"rlstack.env.mujoco.{name}"
