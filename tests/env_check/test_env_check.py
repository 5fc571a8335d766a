"""The environment checker, on sound environments and on all that the proofs know to be wrong."""

import copy
import json
import re
import sys

import numpy
import pytest
import torch
from click.testing import CliRunner
from proofs import envs

from rlstack import Algorithm
from rlstack.cli.app import main
from rlstack.env import CartPole, ContinuousDummyEnv, DiscreteDummyEnv, EnvError, MountainCar, Pendulum
from rlstack.env_check.report import EnvChecks, check_env
from rlstack.specs import Bounded

from ..helpers import CompositeEnv

BUILT_IN = [CartPole, ContinuousDummyEnv, DiscreteDummyEnv, MountainCar, Pendulum]


@pytest.mark.parametrize("env_cls", [*BUILT_IN, CompositeEnv, envs.Sound])
def test_sound_environments(env_cls):
    report = check_env(env_cls)
    assert report.faults == []
    assert report.transitions_per_second > 1000
    report.raise_for_faults()


@pytest.mark.parametrize("env_cls", BUILT_IN)
def test_little_is_to_be_said_of_ours(env_cls):
    said = {finding.name: finding.said for finding in check_env(env_cls).findings if finding.level != "ok"}
    # These hand out what they go on writing into.
    reused = env_cls in (ContinuousDummyEnv, DiscreteDummyEnv)
    assert said.keys() == ({"ownership"} if reused else set())


@pytest.mark.parametrize(
    ("most", "said"),
    [
        (None, "every 32 steps: if the task lasts longer, set horizons_per_env_reset=8 or a longer horizon"),
        (100, "every 32 steps: if the task lasts longer, set horizons_per_env_reset=3 or a longer horizon"),
        (20, "every 20 steps: its max_horizon is 20"),
    ],
)
def test_the_report_says_how_long_simulations_last(most, said):
    class Brief(CartPole):
        max_horizon = most

    resets = check_env(Brief).resets
    assert resets == f"By default all simulations are reset {said}"
    # It is what an algorithm does.
    steps = int(re.search(r"every (\d+) steps", resets)[1])
    algorithm = Algorithm(Brief, num_envs=2, device="cpu")
    assert algorithm.hparams.horizon * algorithm.hparams.horizons_per_env_reset == steps
    assert [algorithm.collect()["env/resets"] for _ in range(2)] == [2, 2]


@pytest.mark.parametrize("case", envs.CASES, ids=lambda case: case.name)
def test_what_is_wrong_is_found(case):
    report = check_env(case.env_cls)
    if case.error is Exception:
        # A model and a distribution of one's own may make something of such a spec.
        assert re.search(case.said, report.findings[-1].said)
        return
    assert report.faults
    assert report.transitions_per_second is None
    with pytest.raises(EnvError):
        report.raise_for_faults()


class Numpy(envs.Sound):
    def observe(self):
        noise = numpy.random.default_rng().standard_normal((self.num_envs, 3))
        return torch.as_tensor(noise, dtype=torch.float32)


class Seeding(envs.Sound):
    def reset(self, *, config=None):
        torch.manual_seed(0)
        return super().reset()


class Shared(envs.Sound):
    calls = []  # noqa: RUF012

    def observe(self):
        self.calls.append(1)
        return torch.full((self.num_envs, 3), float(len(self.calls)))


class FixedSize(envs.Sound):
    def observe(self):
        return torch.zeros(16, 3)


class OutOfBounds(envs.Sound):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.observation_spec = Bounded(-0.5, 0.5, (3,))


class NoEmptyConfig(envs.Sound):
    def reset(self, *, config=None):
        if config is not None:
            self.mass = config["mass"]
        return super().reset()


class HalfState(CartPole):
    def load_state_dict(self, state):
        super().load_state_dict({**state, "state": torch.zeros_like(state["state"])})


class Unpackable(envs.Sound):
    def state_dict(self):
        return {"simulator": object()}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize(
    ("env_cls", "check", "said"),
    [
        (Numpy, "seed", "obs of environment 0 differs after the reset from one run to another"),
        (Seeding, "seed", "Seeding seeds torch's generator itself"),
        (Shared, "seed", "share nothing between instances"),
        (FixedSize, "batch sizes", r"obs has shape \[16, 3\], expected \[1, 3\]"),
        (OutOfBounds, "reset", "obs of environment . is outside of its spec"),
        (NoEmptyConfig, "config", "NoEmptyConfig.reset raised KeyError"),
        (HalfState, "state", "after load_state_dict: state_dict should hold all that changes"),
        (Unpackable, "state", "Unpackable.state_dict"),
    ],
)
def test_faults_beyond_forms(env_cls, check, said):
    [finding] = [finding for finding in check_env(env_cls).findings if finding.level == "fault"]
    assert finding.name == check
    assert re.search(said, finding.said), finding.said


class Reusing(envs.Sound):
    def observe(self):
        if not hasattr(self, "storage"):
            self.storage = torch.zeros(self.num_envs, 3)
        return self.storage.normal_()


class Writing(envs.Sound):
    def step(self, action):
        action.zero_()
        return super().step(action)


class Counting(CartPole):
    count = 0

    def step(self, action):
        self.count += 1
        return super().step(action)


class Waiting(CartPole):
    def step(self, action):
        if action.sum().item() < 0:
            raise ValueError
        return super().step(action)


class Remembering(CartPole):
    runs = 0

    def reset(self, *, config=None):
        self.runs += 1
        return super().reset(config=config) + self.runs


@pytest.mark.parametrize(
    ("env_cls", "check", "said"),
    [
        (Reusing, "ownership", "changes later"),
        (Writing, "ownership", "changes the actions that it is handed"),
        (Counting, "graph", "Counting.count changes and is no tensor"),
        (Waiting, "graph", "make the host wait for the device"),
        (Remembering, "independence", "depends on what was before it"),
        (envs.Sound, "state", "has no state_dict"),
    ],
)
def test_notes(env_cls, check, said):
    report = check_env(env_cls)
    assert report.faults == []
    [finding] = [finding for finding in report.findings if finding.name == check]
    assert finding.level == "note"
    assert said in finding.said


def test_random_numbers_of_the_caller_are_left_alone():
    before = torch.get_rng_state()
    check_env(CartPole)
    assert torch.equal(before, torch.get_rng_state())


class TestCartPole(EnvChecks):
    env_cls = CartPole
    env_config = {"length": 0.7}  # noqa: RUF012


def test_the_tests_to_inherit_fail_where_something_is_wrong():
    class Mine(EnvChecks):
        env_cls = Seeding

    with pytest.raises(AssertionError, match="seeds torch's generator"):
        Mine().test_seed()
    Mine().test_reset()
    assert len([name for name in dir(Mine) if name.startswith("test_")]) == 14


def run(*arguments):
    return CliRunner().invoke(main, ["check", *arguments])


def test_command(tmp_path):
    result = run("cartpole", "length=0.7", "--num-envs", "4")
    assert result.exit_code == 0, result.output
    assert "ok     training" in result.output
    assert "transitions/s without a policy" in result.output
    assert "By default all simulations are reset every 32 steps: if the task lasts longer" in result.output
    result = run("proofs.envs:Sound", "--json")
    assert json.loads(result.output)["env"] == "Sound"
    result = run("cartpole", "lngth=0.7")
    assert result.exit_code == 3
    assert "did you mean length?" in result.output


MINE = """
import torch
from tensordict import TensorDict
from rlstack.env import Env
from rlstack.specs import Categorical, Unbounded

class MyEnv(Env):
    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec = Unbounded((2,))
        self.action_spec = Categorical(2, shape=(1,))

    def reset(self, *, config=None):
        return torch.rand(self.num_envs, 2)

    def step(self, action):
        rewards = torch.rand(self.num_envs)
        return TensorDict({"obs": torch.rand(self.num_envs, 2), "rewards": rewards}, batch_size=self.num_envs)
"""


def test_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Processes that later tests start would find its json.py.
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine_of_a_file.py").write_text(MINE)
    result = run("folder/mine_of_a_file.py:MyEnv")
    assert result.exit_code == 3
    assert "fault  steps" in result.output
    assert "add a trailing dimension" in result.output
    assert run("folder/none.py:MyEnv").exit_code == 2
    (tmp_path / "folder" / "json.py").write_text(MINE)
    result = run("folder/json.py:MyEnv")
    # A name that another module has is no hindrance.
    assert (result.exit_code, "fault  steps" in result.output) == (3, True)


class Optional(envs.Sound):
    """Reads its options as `how` says."""

    how = "get"

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        config = {} if config is None else config
        match self.how:
            case "get":
                self.mass = config.get("mass", 1.0)
            case "own":
                self.mass = self.config.get("mass", 1.0)
            case "in":
                self.mass = config["mass"] if "mass" in config else 2.0  # noqa: SIM401
            case "match":
                match config:
                    case {"mass": mass}:
                        self.mass = mass
            case "merge":
                self.options = {"mass": 1.0, **config}
            case "copy":
                self.options = dict(config)
            case "deepcopy":
                self.options = copy.deepcopy(config)
            case "or":
                self.options = {"mass": 1.0} | config
            case "keywords":
                self.take(**config)
            case "json":
                self.options = json.loads(json.dumps(config))
            case "compare":
                self.heavy = config == {"mass": 2.0, "mas": 2.0}

    def take(self, **options):
        self.options = options

    def step(self, action):
        if self.how == "later":
            self.config.get("mass")
        return super().step(action)

    def reset(self, *, config=None):
        if self.how == "reset" and config is not None:
            config.get("mass")
        return super().reset()


def options_note(how, config):
    report = check_env(type("Optional", (Optional,), {"how": how}), config=config, steps=4, num_envs=2)
    assert report.faults == []
    [finding] = [finding for finding in report.findings if finding.name == "config"]
    assert finding.level == ("note" if finding.said else "ok")
    return finding.said


@pytest.mark.parametrize("how", ["get", "own", "in", "match", "later", "reset"])
def test_options_that_are_never_read_are_noted(how):
    assert options_note(how, {"mass": 2.0}) == ""
    assert options_note(how, {"mas": 2.0}) == "Optional never reads env_config.mas: did you mean mass?"
    assert options_note(how, {"mass": 2.0, "color": 1}) == (
        "Optional never reads env_config.color: expected one of mass"
    )
    assert options_note(how, None) == ""


@pytest.mark.parametrize("how", ["merge", "copy", "deepcopy", "or", "keywords", "json", "compare"])
def test_who_goes_over_all_options_has_read_them(how):
    assert options_note(how, {"mass": 2.0, "mas": 2.0}) == ""


def test_the_command_notes_options_that_are_never_read():
    result = run("proofs.envs:Sound", "mas=0.7")
    assert "note   config        Sound never reads env_config.mas" in result.output
    assert result.exit_code == 0
