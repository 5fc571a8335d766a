"""Gymnasium's own MuJoCo tasks, through `make`."""

import pytest

pytest.importorskip("mujoco")
gymnasium = pytest.importorskip("gymnasium")

import numpy as np
import torch
import yaml
from click.testing import CliRunner

from rlstack import Algorithm
from rlstack.cli.app import main
from rlstack.common.errors import NonFiniteError
from rlstack.env import check_env
from rlstack.env.foreign import draw_seed
from rlstack.env.gymnasium import make

from ..killed_worker import check_killed_worker
from ..pages import commands

TASKS = {"HalfCheetah-v5": (17, 6), "Hopper-v5": (11, 3)}


@pytest.mark.parametrize("name", TASKS)
def test_they_are_sound(name):
    report = check_env(make(name), num_envs=4)
    report.raise_for_faults()
    assert {finding.name for finding in report.findings if finding.level == "note"} == {"state", "graph"}
    assert report.transitions_per_second > 0


@pytest.mark.parametrize("name", TASKS)
def test_steps_are_gymnasiums(name):
    num_obs, num_actions = TASKS[name]
    torch.manual_seed(0)
    env = make(name, max_episode_steps=40)(3)
    assert env.observation_spec.shape == (num_obs,)
    assert env.action_spec.space.high.tolist() == [1.0] * num_actions
    obs = env.reset()
    torch.manual_seed(0)
    seed = draw_seed(3)
    alone = [gymnasium.make(name, max_episode_steps=40) for _ in range(3)]
    first = [each.reset(seed=seed + n)[0] for n, each in enumerate(alone)]
    assert torch.equal(obs, torch.tensor(np.stack(first), dtype=torch.float32))
    ended = {"terminated": 0, "truncated": 0}
    for _ in range(100):
        actions = env.action_spec.rand((3,))
        out = env.step(actions)
        for n, each in enumerate(alone):
            after, reward, terminated, truncated, _ = each.step(actions[n].numpy())
            assert out["rewards"][n].item() == np.float32(reward)
            assert (bool(out["terminated"][n]), bool(out["truncated"][n])) == (terminated, truncated)
            assert torch.equal(out["final_obs"][n], torch.tensor(after, dtype=torch.float32))
            if terminated or truncated:
                after = each.reset()[0]
                ended["terminated" if terminated else "truncated"] += 1
            assert torch.equal(out["obs"][n], torch.tensor(after, dtype=torch.float32))
    assert ended["terminated" if name == "Hopper-v5" else "truncated"] > 2


def test_workers_do_the_same():
    said = []
    for mode in ("sync", "async"):
        algorithm = Algorithm(
            make("Hopper-v5", vectorization_mode=mode),
            num_envs=2,
            horizon=64,
            seed=3,
            sgd_minibatch_size=None,
        )
        stats = algorithm.collect()
        said.append({key: value for key, value in stats.items() if not key.startswith("profiling")})
        algorithm.env.close()
    assert said[0] == said[1]
    assert said[0]["env/reward_forward"] != 0


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_unstable_simulation_is_named(mode, tmp_path, monkeypatch):
    # Where MuJoCo writes down what it warns of.
    monkeypatch.chdir(tmp_path)
    env = make("HalfCheetah-v5", vectorization_mode=mode)(3)
    env.reset()
    actions = torch.zeros(3, 6)
    env.step(actions)
    vector = env._simulator.vector
    vector.call("set_state", np.zeros(9), np.full(9, 1e12))
    with pytest.raises(
        NonFiniteError, match=r"environment 0 of HalfCheetah-v5 is unstable: .* in qvel\[0\]; take a smaller"
    ):
        env.step(actions)
    env.reset()
    assert torch.isfinite(env.step(actions)["obs"]).all()
    env.close()


def test_never_ending_halfcheetah_has_no_endings():
    env = make("HalfCheetah-v5", max_episode_steps=-1, never_ends=True)(2)
    env.reset()
    for _ in range(1100):
        out = env.step(torch.zeros(2, 6))
    assert set(out.keys()) == {"obs", "rewards"}


def test_a_run_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [
        "num_envs=2",
        "horizon=8",
        "sgd_minibatch_size=None",
        "--max-updates",
        "2",
        "--tracking",
        "off",
    ]
    result = CliRunner().invoke(
        main, ["train", "gym:HalfCheetah-v5", "env_config.forward_reward_weight=2", *options]
    )
    assert result.exit_code == 0, result.output
    [run] = tmp_path.glob("runs/HalfCheetah-v5-*-1")
    said = yaml.safe_load((run / "config.yaml").read_text())
    assert said["env"] == "gym:HalfCheetah-v5"
    assert said["algorithm_config"]["env_config"] == {"forward_reward_weight": 2}
    result = CliRunner().invoke(main, ["eval", str(run), "--num-envs", "2", "--steps", "5"])
    assert result.exit_code == 0, result.output
    wrong = CliRunner().invoke(
        main, ["train", "gym:HalfCheetah-v5", "env_config.forward_reward_wait=2", *options]
    )
    assert wrong.exit_code == 3
    assert (
        "forward_reward_wait is not an option of HalfCheetah-v5: did you mean forward_reward_weight"
        in wrong.output
    )


def test_a_killed_worker_ends_a_run_that_its_checkpoint_resumes(tmp_path):
    said = check_killed_worker(tmp_path, "gym:HalfCheetah-v5", "env_config.vectorization_mode=async")
    assert said.startswith("rlstack: HalfCheetah-v5: worker process 1 of 2 was killed by SIGKILL")
    assert said.endswith("go on from the last checkpoint\n")
    assert said.count("\n") == 1


def test_the_page_on_simulators(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = commands("simulators.md", "gym:")
    assert len(trained) >= 2
    for command in trained:
        result = CliRunner().invoke(main, [*command, "--max-updates", "1", "--tracking", "off"])
        assert result.exit_code == 0, result.output
        name = command[1].removeprefix("gym:")
        assert len([*tmp_path.glob(f"runs/{name}-*/policy.safetensors")]) == 1
