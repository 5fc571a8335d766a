"""Tasks of DM Control's suite, of which a stand-in has the shapes and habits. The real ones: tests/sims."""

import copy
import os
import signal
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from rlstack import Algorithm
from rlstack.common.errors import EnvError
from rlstack.env import Env, check_env
from rlstack.env.dm_control import make
from rlstack.env.foreign import draw_seed
from rlstack.env.simulators import find_simulator
from rlstack.specs import Bounded, Composite, Unbounded

STANDIN = Path(__file__).with_name("standin_dm")
PART_OF_EACH = {"horizon": 8, "horizons_per_env_reset": -1, "sgd_minibatch_size": 16, "engine": "eager"}


@pytest.fixture
def suite(monkeypatch):
    """Let the stand-in be found, here and in worker processes."""
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("dm_control", "mujoco")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(STANDIN)
    import dm_control.suite

    yield dm_control.suite
    for name in ("dm_control", "dm_control.suite"):
        sys.modules.pop(name, None)


def run(cls, actions, *, seed=0, **config):
    env = cls(3, config=config)
    torch.manual_seed(seed)
    first = env.reset()
    said = [env.step(action) for action in actions]
    env.close()
    return first, said


def drawn(steps, scale=1.0, num_envs=3):
    return list(scale * (2 * torch.rand(steps, num_envs, 2, generator=torch.manual_seed(7)) - 1))


def same(one, other):
    return all(torch.equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a.keys())  # noqa: SIM118


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control", None)
    monkeypatch.delitem(sys.modules, "dm_control.suite", raising=False)
    with pytest.raises(
        EnvError, match=r"^dm:cheetah-run needs dm_control.*: pip install 'rlstack.dm-control.'"
    ):
        make("cheetah-run")


def test_names(suite):
    cls = find_simulator("dm:point-reach")
    assert issubclass(cls, Env)
    assert (cls.__name__, cls.simulator_name, cls.__module__) == (
        "point-reach",
        "dm:point-reach",
        "rlstack.env.dm_control.tasks",
    )
    with pytest.raises(EnvError, match=r"dm:point-rech is not a task of .*: did you mean dm:point-reach"):
        make("point-rech")
    with pytest.raises(
        EnvError, match=r"env_config.time_limt is not an option of point-reach: did you mean time_l"
    ):
        make("point-reach", time_limt=1)
    with pytest.raises(EnvError, match=r"env_config.processes of point-reach is 0, expected a whole number"):
        make("point-reach")(2, config={"processes": 0})


def test_check_env_finds_no_faults(suite):
    report = check_env(make("point-reach", processes=1, time_limit=0.3), num_envs=3, steps=6)
    assert report.faults == []
    said = {finding.name: finding.said for finding in report.findings if finding.level == "note"}
    assert list(said) == ["graph"]


def test_specs(suite):
    env = make("point-reach")(3)
    assert env.observation_spec == Unbounded((7,))
    assert env.action_spec == Bounded(-1, 1, (2,))
    parts = make("point-reach", flatten=False)(3)
    assert parts.observation_spec == Composite(
        position=Unbounded((2,)), upright=Unbounded((1,)), arm_pos=Unbounded((2, 2))
    )
    unlimited = make("point-reach", environment_kwargs={"unlimited": True})(3)
    assert unlimited.action_spec == Unbounded((2,))


@pytest.mark.parametrize("flatten", [True, False])
def test_what_the_simulator_says_is_what_comes(suite, flatten, monkeypatch):
    """The same seeds by hand: observations, rewards, terminations, time limits and last observations."""
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    actions = drawn(40, 6.0)
    first, said = run(make("point-reach", flatten=flatten, time_limit=0.7), actions, seed=5)
    torch.manual_seed(5)
    seed = draw_seed()
    seen = {"terminated": 0, "truncated": 0}

    def row(batch, at):
        if isinstance(batch, torch.Tensor):
            return batch[at].numpy()
        return np.concatenate([batch[key][at].flatten() for key in ("position", "upright", "arm_pos")])

    def flat(observation):
        return np.concatenate([np.ravel(part) for part in observation.values()]).astype(np.float32)

    monkeypatch.setattr(sys.modules["dm_control.suite"].Physics, "contexts", None)
    for at in range(3):
        random = np.random.RandomState(np.random.SeedSequence((seed, at)).generate_state(8))
        world = suite.load("point", "reach", {"random": random, "time_limit": 0.7})
        np.testing.assert_array_equal(row(first, at), flat(world.reset().observation))
        for action, out in zip(actions, said, strict=True):
            moment = world.step(action[at].numpy().astype(np.float64))
            assert out["rewards"][at].item() == np.float32(moment.reward)
            assert out["terminated"][at].item() == (moment.last() and moment.discount == 0)
            assert out["truncated"][at].item() == (moment.last() and moment.discount == 1)
            np.testing.assert_array_equal(row(out["final_obs"], at), flat(moment.observation))
            now = world.reset() if moment.last() else moment
            np.testing.assert_array_equal(row(out["obs"], at), flat(now.observation))
            seen = {name: number + int(out[name][at]) for name, number in seen.items()}
    assert min(seen.values()) > 2


def test_the_number_of_processes_changes_nothing(suite):
    cls, actions = make("point-reach"), drawn(25)
    runs = [run(cls, actions, processes=processes)[1] for processes in (1, 2, 3)]
    assert same(runs[0], runs[1])
    assert same(runs[0], runs[2])
    assert not same(runs[0], run(cls, actions, processes=2, seed=1)[1])
    assert not torch.equal(runs[0][0]["obs"][0], runs[0][0]["obs"][1])


def test_a_reset_changes_options_but_no_specs(suite):
    env = make("point-reach", processes=1)(2)
    pids = env._workers.pids
    env.reset(config={"time_limit": 0.2})
    assert env._workers.pids != pids
    still = torch.zeros(2, 2)
    assert [env.step(still)["truncated"].all().item() for _ in range(4)] == [False, True, False, True]
    with pytest.raises(EnvError, match=r"can't change its observations or actions at a reset, by flatten"):
        env.reset(config={"flatten": False})
    with pytest.raises(EnvError, match="doesn't fit mujoco"):
        env.reset(config={"task_kwargs": {"newer": True}})
    # It is what it was before.
    assert env.reset().shape == (2, 7)
    assert [env.step(still)["truncated"].all().item() for _ in range(2)] == [False, True]


def test_an_unstable_simulation_is_named(suite):
    env = make("point-reach", processes=2)(3)
    env.reset()
    actions = torch.zeros(3, 2)
    actions[2, 0] = torch.nan
    with pytest.raises(
        EnvError, match=r"point-reach: environment 2, .* raised RuntimeError: Physics state is i"
    ):
        env.step(actions)
    first = env.reset()
    assert first.isfinite().all()


def test_a_killed_worker_ends_in_an_error_and_its_run_goes_on_from_what_was_saved(suite):
    cls = make("point-reach", processes=2, time_limit=0.9)

    def updates(algorithm, number):
        stats = OrderedDict()
        for _ in range(number):
            stats = algorithm.collect()
            algorithm.step()
        return {name: value for name, value in stats.items() if not name.startswith("profiling/")}

    algorithm = Algorithm(cls, num_envs=4, seed=3, **PART_OF_EACH)
    updates(algorithm, 2)
    saved = copy.deepcopy(algorithm.state_dict())
    stats = updates(algorithm, 2)
    os.kill(algorithm.env._workers.pids[1], signal.SIGKILL)
    with pytest.raises(EnvError, match=r"point-reach.*environments 2 to 3 was killed by SIGKILL"):
        algorithm.collect()
    other = Algorithm(cls, num_envs=4, seed=4, **PART_OF_EACH)
    other.load_state_dict(saved)
    assert updates(other, 2) == stats
    # The first one goes on, too, with new processes and a reset.
    assert updates(algorithm, 1)["env/resets"] == 4


def test_a_mujoco_that_does_not_fit_is_named(suite):
    cls = make("point-reach", task_kwargs={"newer": True})
    with pytest.raises(
        EnvError, match=r"'flex_vertedge'; if dm_control doesn't fit mujoco 4.0.0: pip install"
    ):
        cls(2)


def test_dropped_environments_end_their_processes(suite):
    env = make("point-reach", processes=1)(1)
    workers, [process] = env._workers, [worker.process for worker in env._workers._workers]
    del env, workers
    assert process.poll() == -signal.SIGKILL
