"""EnvPool, through `from_vector`."""

import pytest

envpool = pytest.importorskip("envpool")

import torch

from rlstack import Algorithm, EnvError
from rlstack.env import check_env
from rlstack.env.gymnasium import from_vector
from rlstack.env.gymnasium.autoreset import is_envpool
from rlstack.env_check import report

from ..pages import run_blocks


def pool(task):
    """Return a factory of a task's environments."""

    def factory(num_envs, seed, **options):
        return envpool.make_gymnasium(task, num_envs=num_envs, seed=seed, **{"num_threads": 1, **options})

    return factory


def env_of(task, **options):
    return from_vector(pool(task), name=task, **options)


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "Hopper-v5", "CartPole-v1", "CheetahRun-v1"])
def test_they_are_sound(task, monkeypatch):
    # Thousands of simulations take long.
    monkeypatch.setattr(report, "_fastest", report._speed)
    found = check_env(env_of(task), num_envs=4, steps=16)
    found.raise_for_faults()
    assert found.transitions_per_second > 0


def test_specs():
    env = env_of("CheetahRun-v1")(2)
    parts = {key: (tuple(spec.shape), spec.dtype) for key, spec in env.observation_spec.items()}
    assert parts == {"position": ((8,), torch.float32), "velocity": ((9,), torch.float32)}
    assert {type(spec).__name__ for spec in env.observation_spec.values()} == {"UnboundedContinuous"}
    assert is_envpool(env._simulator.vector)
    env = env_of("Pong-v5")(2)
    assert (env.observation_spec.dtype, env.action_spec.space.n) == (torch.uint8, 6)


def test_rows_stay_in_order_and_those_after_an_ending_do_not_count():
    env = env_of("Pendulum-v1", max_episode_steps=5)(8)
    assert env.reset().shape == (8, 3)
    for step in range(1, 13):
        out = env.step(torch.zeros(8, 1))
        assert out["valid"].all().item() is (step % 6 != 0)
        assert out["truncated"].all().item() is (step % 6 == 5)
        if step % 6 == 0:
            assert out["rewards"].abs().max() == 0


def test_each_row_does_what_it_is_told():
    still, pushed = (env_of("Pendulum-v1", seed=1)(8) for _ in range(2))
    assert torch.equal(still.reset(), pushed.reset())
    torques = torch.linspace(-2, 2, 8).unsqueeze(1)
    faster = pushed.step(torques)["obs"][:, 2] - still.step(torch.zeros(8, 1))["obs"][:, 2]
    # 3 dt / (m l²) of each torque, with dt 0.05.
    assert torch.allclose(faster, 0.15 * torques.squeeze(1), atol=1e-5)


def test_all_follows_from_one_seed():
    said = []
    for seed in (1, 1, 2):
        algorithm = Algorithm(
            env_of("HalfCheetah-v5"), num_envs=8, horizon=8, seed=seed, sgd_minibatch_size=None
        )
        said.append([algorithm.collect()["rewards/mean"] for _ in range(2)])
        algorithm.step()
    assert said[0] == said[1] != said[2]


def test_a_task_that_never_ends():
    env = env_of("HalfCheetah-v5", max_episode_steps=10**9, never_ends=True)(4)
    env.reset()
    for _ in range(1100):
        out = env.step(torch.zeros(4, 6))
    assert set(out.keys()) == {"obs", "rewards"}
    assert env.metrics()["reward_ctrl"].item() == 0


def test_an_option_that_it_lacks_is_named():
    with pytest.raises(EnvError, match=r"env_config\.bogus is not an option of CartPole-v1"):
        env_of("CartPole-v1")(2, config={"bogus": 1})


def test_the_page_on_simulators(capsys):
    run_blocks("simulators.md", "envpool")
    assert torch.isfinite(torch.tensor(float(capsys.readouterr().out)))
