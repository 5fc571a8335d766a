"""Brax and MuJoCo Playground, beside their own functions, one simulation at a time."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from rlstack import Algorithm, specs
from rlstack.cli.app import main
from rlstack.common.errors import EnvError
from rlstack.env import check_env
from rlstack.env.foreign import draw_seed
from rlstack.env.jax import make_brax, make_playground
from rlstack.env.simulators import find_simulator

from ..pages import commands

jax = pytest.importorskip("jax")
pytest.importorskip("brax")
pytest.importorskip("mujoco_playground")


@pytest.fixture(scope="module")
def pendulum():
    """The cheapest one to compile whose episodes end by themselves."""
    return make_brax("inverted_pendulum", backend="spring", episode_length=25)


@pytest.fixture(scope="module")
def swingup():
    return make_playground("CartpoleSwingup", episode_length=6)


def pushes(num_envs, steps):
    return list(2 * torch.rand(steps, num_envs, 1, generator=torch.Generator().manual_seed(3)) - 1)


def first_keys(seed, num_envs):
    _, key = jax.random.split(jax.random.PRNGKey(seed))
    return [jax.random.fold_in(key, row) for row in range(num_envs)]


def check_against(env, own, steps, atol):
    """Compare with the simulator's own functions until each row's first ending; return how those end."""
    torch.manual_seed(5)
    obs = env.reset()
    torch.manual_seed(5)
    seed = draw_seed()
    reset, step = jax.jit(own.reset), jax.jit(own.step)
    states = [reset(key) for key in first_keys(seed, env.num_envs)]
    np.testing.assert_allclose(obs, np.stack([state.obs for state in states]), atol=atol)
    running, ends = [True] * env.num_envs, []
    for number, action in enumerate(pushes(env.num_envs, steps), 1):
        out = env.step(action)
        for row in (row for row in range(env.num_envs) if running[row]):
            states[row] = step(states[row], action[row].numpy())
            np.testing.assert_allclose(out["final_obs"][row], states[row].obs, atol=atol)
            np.testing.assert_allclose(out["rewards"][row].item(), states[row].reward, atol=atol)
            terminated, truncated = out["terminated"][row].item(), out["truncated"][row].item()
            assert terminated == bool(states[row].done)
            if terminated or truncated:
                running[row] = False
                ends.append((number, "terminated" if terminated else "truncated"))
                assert not torch.equal(out["obs"][row], out["final_obs"][row])
            else:
                assert torch.equal(out["obs"][row], out["final_obs"][row])
    return ends


def test_brax_as_it_is(pendulum):
    from brax import envs

    own = envs.get_environment("inverted_pendulum", backend="spring")
    ends = check_against(pendulum(6), own, 25, 1e-5)
    assert len(ends) == 6
    assert {number for number, how in ends if how == "truncated"} <= {25}
    assert any(how == "terminated" for _, how in ends)


def test_playground_as_it_is(swingup):
    from mujoco_playground import registry

    own = registry.load("CartpoleSwingup", config_overrides={"impl": "jax"})
    ends = check_against(swingup(6), own, 6, 1e-5)
    assert ends == [(6, "truncated")] * 6


def test_every_episode_begins_in_a_start_of_its_own(swingup):
    env = swingup(6)
    starts = [env.reset()]
    for _ in range(18):
        out = env.step(torch.zeros(6, 1))
        if out["truncated"].any():
            assert out["truncated"].all()
            starts.append(out["obs"])
    every = torch.cat(starts)
    assert len(every) == 24
    assert len(every.unique(dim=0)) == 24
    # They hang down, as Playground starts them, with a little noise.
    assert (every[:, 1] < -0.99).all()
    assert every[:, 0].abs().max() < 0.1


def test_the_simulators_own_metrics_are_means_over_steps(swingup):
    env = swingup(6)
    env.reset()
    assert env.metrics() == {}
    rewards = torch.stack([env.step(torch.zeros(6, 1))["rewards"] for _ in range(4)])
    said = env.metrics()
    assert {"reward/upright", "reward/centered", "reward/small_control"} <= set(said)
    # It hangs still in the middle.
    assert said["reward/centered"].item() == pytest.approx(1, abs=0.01)
    assert said["reward/upright"].item() < 0.01
    assert rewards.mean().item() == pytest.approx(said["reward/upright"].item(), rel=0.2, abs=1e-4)
    assert env.metrics() == {}


def test_states_hold_all_that_comes_next(swingup):
    env = swingup(6)
    env.reset()
    actions = pushes(6, 15)
    for action in actions[:4]:
        env.step(action)
    saved = env.state_dict()
    expected = [env.step(action) for action in actions]
    other = swingup(6)
    other.load_state_dict(saved)
    for action, out in zip(actions, expected, strict=True):
        again = other.step(action)
        assert all(torch.equal(again[key], out[key]) for key in ("obs", "rewards", "final_obs", "truncated"))


def test_what_was_returned_stays(pendulum):
    env = pendulum(6)
    kept = [env.reset()]
    before = [kept[0].clone()]
    for action in pushes(6, 30):
        out = env.step(action)
        kept += [out["obs"], out["final_obs"], out["rewards"]]
        before += [part.clone() for part in kept[-3:]]
    assert all(torch.equal(now, then) for now, then in zip(kept, before, strict=True))


def test_observations_in_parts():
    env = make_brax("fast", obs_mode="dict_state", asymmetric_obs=True)(3)
    assert env.observation_spec == specs.Composite(
        state=specs.Unbounded((2,)), privileged_state=specs.Unbounded((4,))
    )
    obs = env.reset()
    assert obs["privileged_state"].shape == (3, 4)
    assert env.step(torch.zeros(3, 1))["obs"]["state"].shape == (3, 2)


def test_a_reset_changes_options_but_no_specs():
    env = make_brax("fast", obs_mode="dict_state")(2)
    with pytest.raises(EnvError, match="can't change its observations or actions at a reset, by obs_mode"):
        env.reset(config={"obs_mode": "ndarray"})
    assert env.reset(config={"episode_length": 2})["state"].shape == (2, 2)
    still = torch.zeros(2, 1)
    assert [env.step(still)["truncated"].all().item() for _ in range(4)] == [False, True, False, True]


def test_repeated_actions_count_as_steps_of_the_simulator(pendulum):
    env = pendulum(6, config={"action_repeat": 5})
    env.reset()
    outs = [env.step(torch.zeros(6, 1)) for _ in range(5)]
    assert [out["truncated"].any().item() for out in outs] == [False] * 4 + [True]
    assert outs[0]["rewards"].tolist() == [[5.0]] * 6


def test_check_env_finds_no_faults(pendulum):
    report = check_env(pendulum, num_envs=6, steps=8)
    assert report.faults == []
    assert [finding.name for finding in report.findings if finding.level == "note"] == ["graph"]


def test_errors():
    assert find_simulator("brax:ant").simulator_name == "brax:ant"
    assert find_simulator("playground:CheetahRun").__name__ == "CheetahRun"
    with pytest.raises(EnvError, match=r"brax:antt is not an environment of Brax: did you mean brax:ant\?"):
        make_brax("antt")
    with pytest.raises(EnvError, match=r"did you mean playground:CartpoleSwingup\?"):
        make_playground("CartpoleSwingUp")
    with pytest.raises(EnvError, match=r"env_config.backnd is not an option of ant: did you mean backend\?"):
        make_brax("ant", backnd="mjx")
    with pytest.raises(EnvError, match=r"did you mean reward_config.scales.pose\?"):
        make_playground("Go1JoystickFlatTerrain", reward_config={"scales": {"poze": 1.0}})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(pendulum):
    with pytest.raises(EnvError, match=r"inverted_pendulum can't run on cuda: JAX sees no such device"):
        pendulum(2, device="cuda")


def test_training_improves(pendulum):
    algorithm = Algorithm(pendulum, num_envs=64, horizon=32, horizons_per_env_reset=-1, seed=0)
    lengths = []
    for _ in range(15):
        lengths.append(algorithm.collect()["episodes/lengths/mean"])
        algorithm.step()
    assert lengths[-1] > lengths[0] + 3


@pytest.mark.parametrize("prefix", ["playground:", "brax:"])
def test_the_commands_of_the_page_train(prefix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [command] = commands("simulators/jax.md", prefix)
    result = CliRunner().invoke(main, [*command, "--max-updates", "1", "--tracking", "off"])
    assert result.exit_code == 0, result.output
    assert len([*tmp_path.glob("runs/*/policy.safetensors")]) == 1


def test_the_page_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "simulators" / "jax.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(code.splitlines()) <= 20
    exec(compile(code, "jax.md", "exec"), {"__name__": "__main__"})
    assert float(capsys.readouterr().out) == 1
