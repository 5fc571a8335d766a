"""Tasks of DM Control's suite, beside dm_control's own environments."""

import copy
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("dm_control")

from rlstack import Algorithm
from rlstack.common.errors import EnvError
from rlstack.env import check_env
from rlstack.env.dm_control import make
from rlstack.env.foreign import draw_seed
from rlstack.specs import Bounded, Composite, Unbounded

from ..killed_worker import check_killed_worker

# A time limit of 0.3 s: episodes end within the tests.
LIMIT = 0.3


def actions_of(env, steps):
    spec = env.action_spec
    generator = torch.Generator().manual_seed(11)
    noise = 2 * torch.rand(steps, env.num_envs, *spec.shape, generator=generator) - 1
    if not isinstance(spec, Bounded):
        return list(noise)
    low, high = spec.space.low, spec.space.high
    return list((noise + 1) / 2 * (high - low) + low)


def flat(observation):
    return np.concatenate([np.ravel(part) for part in observation.values()]).astype(np.float32)


@pytest.mark.parametrize(
    "name",
    ["cheetah-run", "reacher-easy", "humanoid-walk", "manipulator-bring_ball", "lqr-lqr_2_1", "walker-walk"],
)
def test_the_same_seeds_give_dm_controls_own_transitions(name):
    from dm_control import suite

    torch.manual_seed(5)
    env = make(name, time_limit=LIMIT, processes=2)(3)
    first = env.reset()
    torch.manual_seed(5)
    made, started = draw_seed(), draw_seed()
    actions = actions_of(env, 45)
    said = [env.step(action) for action in actions]
    env.close()

    def generator(seed, row):
        return np.random.RandomState(np.random.SeedSequence((seed, row)).generate_state(8))

    ends = 0
    for row in range(3):
        random = generator(made, row)
        world = suite.load(*name.split("-"), {"random": random, "time_limit": LIMIT})
        random.set_state(generator(started, row).get_state())
        np.testing.assert_array_equal(first[row].numpy(), flat(world.reset().observation))
        for action, out in zip(actions, said, strict=True):
            moment = world.step(action[row].numpy().astype(np.float64))
            np.testing.assert_array_equal(out["final_obs"][row].numpy(), flat(moment.observation))
            assert out["rewards"][row].item() == np.float32(moment.reward)
            assert out["terminated"][row].item() == (moment.last() and moment.discount == 0)
            assert out["truncated"][row].item() == (moment.last() and moment.discount == 1)
            ends += moment.last()
            now = world.reset() if moment.last() else moment
            np.testing.assert_array_equal(out["obs"][row].numpy(), flat(now.observation))
    assert ends >= 3


def test_the_suites_own_time_limit_breaks_episodes_off():
    env = make("cartpole-balance", processes=1)(2)
    env.reset()
    truncated = [env.step(torch.zeros(2, 1))["truncated"] for _ in range(1001)]
    assert [step for step, flags in enumerate(truncated) if flags.any()] == [999]
    assert truncated[999].all()


def test_observations_in_parts():
    env = make("humanoid-walk", flatten=False, processes=1)(2)
    assert isinstance(env.observation_spec, Composite)
    assert env.observation_spec["head_height"] == Unbounded((1,))
    assert env.reset()["extremities"].shape == (2, 12)


@pytest.mark.parametrize(
    "name", ["cheetah-run", "finger-turn_hard", "lqr-lqr_6_2", "quadruped-escape", "swimmer-swimmer6"]
)
def test_states_hold_all_that_comes_next(name):
    cls = make(name, time_limit=LIMIT)
    env = cls(3, config={"processes": 2})
    env.reset()
    actions = actions_of(env, 30)
    for action in actions[:7]:
        env.step(action)
    saved = copy.deepcopy(env.state_dict())
    expected = [env.step(action) for action in actions]
    other = cls(3, config={"processes": 1})
    other.reset()
    other.load_state_dict({**saved, "config": other.config})
    for action, out in zip(actions, expected, strict=True):
        again = other.step(action)
        assert all(torch.equal(again[key], out[key]) for key in ("obs", "rewards", "final_obs", "truncated"))
    assert any(out["truncated"].any() for out in expected)


def test_check_env_finds_no_faults():
    report = check_env(make("reacher-easy", processes=1, time_limit=0.1), num_envs=3, steps=6)
    assert report.faults == []
    assert [finding.name for finding in report.findings if finding.level == "note"] == ["graph"]
    assert report.transitions_per_second is not None


def test_a_killed_worker_ends_in_an_error_and_its_run_goes_on_from_what_was_saved():
    def updates(algorithm):
        for _ in range(2):
            stats = algorithm.collect()
            algorithm.step()
        return stats["returns/mean"]

    cls = make("cheetah-run", processes=2)
    options = {"num_envs": 4, "horizon": 16, "horizons_per_env_reset": -1, "sgd_minibatch_size": 32}
    algorithm = Algorithm(cls, seed=3, **options)
    updates(algorithm)
    saved = copy.deepcopy(algorithm.state_dict())
    expected = updates(algorithm)
    os.kill(algorithm.env._workers.pids[1], signal.SIGKILL)
    with pytest.raises(EnvError, match="environments 2 to 3 was killed by SIGKILL"):
        algorithm.collect()
    other = Algorithm(cls, seed=4, **options)
    other.load_state_dict(saved)
    assert updates(other) == expected


def test_a_killed_worker_ends_a_run_that_its_checkpoint_resumes(tmp_path):
    said = check_killed_worker(tmp_path, "dm:cheetah-run", "env_config.processes=2")
    assert said == (
        "rlstack: cheetah-run: the worker process of environments 1 to 1 was killed by SIGKILL, for want of "
        "memory perhaps: resume from the last checkpoint, or reset the environment, which starts new ones\n"
    )


def test_an_unstable_simulation_is_named():
    env = make("cheetah-run", processes=2)(3)
    env.reset()
    actions = torch.zeros(3, 6)
    actions[2] = torch.nan
    with pytest.raises(
        EnvError, match="cheetah-run: environment 2, in a worker process, raised PhysicsError"
    ):
        env.step(actions)


def test_training_improves():
    algorithm = Algorithm(
        make("cartpole-swingup"),
        num_envs=32,
        horizon=100,
        horizons_per_env_reset=10,
        num_sgd_iters=6,
        sgd_minibatch_size=800,
        normalize_observations=True,
        seed=0,
    )
    means = []
    for _ in range(25):
        means.append(algorithm.collect()["rewards/mean"])
        algorithm.step()
    assert np.mean(means[-5:]) > 4 * np.mean(means[:3])


def test_the_page_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "simulators" / "dm_control.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(code.splitlines()) <= 20
    exec(compile(code, "dm_control.md", "exec"), {"__name__": "__main__"})
    assert 0 <= float(capsys.readouterr().out) <= 1
