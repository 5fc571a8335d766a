"""Vector environments of Gymnasium's form: the same transitions whoever puts rows back, and what they say."""

import gc
import itertools
import os
import signal
import sys
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rlstack import Algorithm, EnvError, Trainer
from rlstack.common.errors import NonFiniteError
from rlstack.env import check_env
from rlstack.env.gymnasium import from_vector, make
from rlstack.env_check import report
from rlstack.runs.checkpoint import numbered

from ..gym_envs import FAR, Walk
from ..gym_standins import PooledWalks, TensorWalks

WALK = "Rlstack/Walk-v0"
MODES = ("Disabled", "SameStep", "NextStep")
TINY = {"num_envs": 2, "horizon": 4, "sgd_minibatch_size": None, "model_config": {"hiddens": [4]}}


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch):
    """Thousands of simulations, as speed is measured with, take seconds."""
    monkeypatch.setattr(report, "_fastest", lambda subject: None)


def pooled(num_envs, seed, **options):
    return PooledWalks(num_envs, seed=seed, **options)


def histories(env, plan, most):
    """Return the transitions of each row: observation, action, reward, flags, next observation.

    Args:
        env: The environment.
        plan: [rows, most, 1]. Which action each row takes in its n-th real step.
        most: How many transitions of each.
    """
    rows = len(plan)
    found, counts = [[] for _ in range(rows)], torch.zeros(rows, dtype=torch.int64)
    obs = env.reset()
    while min(map(len, found)) < most:
        actions = plan[torch.arange(rows), counts % plan.shape[1]]
        out = env.step(actions)
        valid = out.get("valid", torch.ones(rows, 1, dtype=torch.bool))
        over = out["terminated"] | out["truncated"]
        for row in range(rows):
            if valid[row]:
                after = (out["final_obs"] if over[row] else out["obs"])[row]
                flags = out["terminated"][row].item(), out["truncated"][row].item()
                move = obs[row].tolist(), actions[row].tolist(), out["rewards"][row].item()
                found[row].append((*move, *flags, after.tolist()))
        counts += valid.squeeze(1)
        obs = out["obs"]
    return [history[:most] for history in found]


def in_mode(name, mode, **options):
    return make(name, vector_kwargs={"autoreset_mode": mode}, **options)


class TestModes:
    def test_a_walk_has_the_same_transitions_in_all_of_them(self):
        plan = torch.randint(3, (5, 40, 1))
        plan[0] = 2
        told = [histories(in_mode(WALK, mode)(5), plan, 40) for mode in MODES]
        assert told[0] == told[1] == told[2]
        # Worked out by hand: three steps to the right, then the next episode begins at 0.
        once = [([0, 0], [2], 0.5, False, False, [1, 1]), ([1, 1], [2], 1.0, False, False, [2, 2])]
        once.append(([2, 2], [2], 1.5, True, False, [3, 3]))
        assert told[0][0][:6] == once + once
        flags = {move[3:5] for history in told[0] for move in history}
        assert flags == {(False, False), (True, False), (False, True)}

    def test_so_has_cartpole_with_its_chance(self):
        plan = torch.randint(2, (4, 120, 1))
        told = []
        for mode in MODES:
            torch.manual_seed(3)
            told.append(histories(in_mode("CartPole-v1", mode, max_episode_steps=30)(4), plan, 120))
        assert told[0] == told[1] == told[2]
        assert {move[3:5] for history in told[0] for move in history} > {(True, False), (False, False)}
        # Chance goes on: no two episodes begin alike.
        starts = [
            tuple(now[0]) for history in told[0] for before, now in itertools.pairwise(history) if before[3]
        ]
        assert len({*starts}) == len(starts) > 4

    def test_rows_after_an_ending_do_not_count_where_the_next_step_resets(self):
        env = in_mode(WALK, "NextStep")(2)
        env.reset()
        right = torch.full((2, 1), 2)
        said = [env.step(right) for _ in range(5)]
        assert [bool(out["valid"][0]) for out in said] == [True, True, True, False, True]
        assert said[3]["obs"].tolist() == [[0, 0]] * 2
        assert said[3]["rewards"].tolist() == [[0]] * 2
        # A reset of all in between forgets it.
        for _ in range(2):
            env.step(right)
        assert env.reset().tolist() == [[0, 0]] * 2
        assert env.step(right)["valid"].all()

    @pytest.mark.parametrize("mode", MODES)
    def test_environments_are_sound_in_all_of_them(self, mode):
        for name in (WALK, "CartPole-v1"):
            found = check_env(in_mode(name, mode), num_envs=4, steps=16)
            assert found.faults == []
            notes = {finding.name for finding in found.findings if finding.level == "note"}
            assert notes == {"state", "graph"}

    def test_training_learns_from_the_same_numbers(self):
        # The same steps until the first ending: what is computed of them is the same.
        said = []
        for mode in MODES:
            algorithm = Algorithm(in_mode("CartPole-v1", mode), seed=1, num_envs=4, horizon=64)
            collected = algorithm.collect()
            assert collected["episodes/count"] > 4
            said.append(collected["episodes/lengths/mean"])
            assert np.isfinite(list(algorithm.step().values())).all()
        assert said[0] == said[1]

    def test_an_unknown_mode_is_refused(self):
        with pytest.raises(EnvError, match=r"autoreset is same_stop: did you mean same_step\?"):
            from_vector(TensorWalks, autoreset="same_stop")(2)

    def test_what_says_nothing_of_it_must_be_told(self):
        class Silent(TensorWalks):
            metadata = None

        with pytest.raises(EnvError, match=r'no metadata\["autoreset_mode"\].*autoreset=….*\'same_step\''):
            from_vector(Silent)(2)
        env = from_vector(Silent, autoreset="same_step")(2)
        env.reset()
        assert "final_obs" in {*env.step(torch.ones(2, 1)).keys()}


class TestEnvPoolsForm:
    def test_transitions_are_those_of_gymnasium(self):
        plan = torch.randint(3, (3, 30, 1))
        told = histories(make(WALK)(3), plan, 30)
        env = from_vector(pooled)(3)
        assert {key: spec.dtype for key, spec in env.observation_spec.items()} == {
            "age": torch.float32,
            "place": torch.float32,
        }
        # Its bounds are those of a bug.
        assert {type(spec).__name__ for spec in env.observation_spec.values()} == {"UnboundedContinuous"}
        assert env.action_spec.space.low.tolist() == [-1]

        class AsOne:
            def reset(self):
                return self.one(env.reset())

            def step(self, actions):
                out = env.step((actions - 1).float())
                return {**out, "obs": self.one(out["obs"]), "final_obs": self.one(out["final_obs"])}

            def one(self, obs):
                return torch.cat([obs["place"], obs["age"]], -1)

        assert histories(AsOne(), plan, 30) == told

    def test_it_is_sound_and_never_seeded_at_a_reset(self, recwarn):
        assert check_env(from_vector(pooled), num_envs=4).faults == []
        assert not [each for each in recwarn if "seeds are fixed" in str(each.message)]

    def test_its_seed_is_drawn_by_torch(self):
        seeds = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            seeds.append(from_vector(pooled)(2)._simulator.vector.seed)
        assert seeds[0] == seeds[1] != seeds[2]
        with pytest.raises(EnvError, match="seeded when it is made: give its factory a parameter seed"):
            from_vector(lambda num_envs: PooledWalks(num_envs, seed=0), name="Fixed")(2)

    def test_a_task_that_never_ends_says_nothing_of_endings(self):
        env = from_vector(pooled, limit=10**9, never_ends=True)(2)
        env.reset()
        assert set(env.step(torch.zeros(2, 1)).keys()) == {"obs", "rewards"}
        for _ in range(FAR - 1):
            env.step(torch.ones(2, 1))
        with pytest.raises(EnvError, match="pooled ends an episode: leave out never_ends"):
            env.step(torch.ones(2, 1))


class TestManiSkillsForm:
    def test_transitions_are_those_of_gymnasium(self):
        plan = torch.randint(3, (3, 30, 1))

        class Shifted:
            def __init__(self):
                self.env = from_vector(TensorWalks)(3)
                self.reset = self.env.reset

            def step(self, actions):
                return self.env.step((actions - 1).float())

        assert histories(Shifted(), plan, 30) == histories(make(WALK)(3), plan, 30)

    def test_it_is_sound_and_what_it_returns_is_owned(self):
        found = check_env(from_vector(TensorWalks), num_envs=4, steps=16)
        assert [f.said for f in found.findings if f.level == "fault" or f.name == "ownership"] == [""]

    def test_success_and_episodes_are_metrics(self):
        env = from_vector(TensorWalks)(4)
        env.reset()
        actions = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
        for _ in range(FAR):
            env.step(actions)
        said = env.metrics()
        # Two of 4 · 3 rows are there; of two episodes both.
        assert said["success"].item() == pytest.approx(2 / 12)
        assert said["episode_success_once"].item() == 1
        assert set(said) == {"success", "episode_success_once"}
        env.step(actions)
        assert env.metrics()["success"].item() == 0

    def test_last_observations_that_are_missing_are_asked_for(self):
        class Forgetful(TensorWalks):
            def step(self, actions):
                return *super().step(actions)[:4], {}

        env = from_vector(Forgetful)(2)
        env.reset()
        with pytest.raises(EnvError, match=r'without infos\["final_obs"\].*final_obs=False'):
            histories(env, torch.ones(2, 1, 1), FAR)
        env = from_vector(Forgetful, final_obs=False)(2)
        env.reset()
        assert "final_obs" not in {*env.step(torch.ones(2, 1)).keys()}


class TestOptions:
    def test_they_go_before_those_of_the_class(self):
        cls = make(WALK, limit=3, stride=2)
        assert (cls.__name__, cls.simulator_name) == ("Rlstack/Walk-v0", "gym:Rlstack/Walk-v0")
        env = cls(1, config={"limit": 1})
        env.reset()
        out = env.step(torch.tensor([[2]]))
        assert out["final_obs"].tolist() == [[2, 1]]
        assert out["truncated"].all()
        algorithm = Algorithm(cls, env_config={"limit": 1}, **TINY)
        assert algorithm.hparams.env_config == {"limit": 1, "stride": 2}

    def test_unknown_ones_are_named(self):
        with pytest.raises(
            EnvError, match=r"env_config.limits is not an option of \S+: did you mean limit\?"
        ):
            make(WALK)(1, config={"limits": 1})
        with pytest.raises(EnvError, match=r"env_config.limits is not an option of pooled"):
            from_vector(pooled)(1, config={"limits": 1})

    def test_changed_ones_make_the_simulator_anew(self):
        env = make(WALK)(2)
        first = env._simulator.vector
        env.reset(config={"stride": 3})
        assert first.closed
        assert env.step(torch.full((2, 1), 2))["terminated"].all()
        second = env._simulator.vector
        env.reset(config={"stride": 3})
        assert env._simulator.vector is second
        # One that there isn't leaves all as it was.
        with pytest.raises(EnvError, match="not an option"):
            env.reset(config={"slide": 3})
        env.reset()
        assert env.step(torch.full((2, 1), 2))["terminated"].all()
        assert not second.closed

    def test_options_of_resets(self):
        env = make(WALK, reset_options={"place": 2})(2)
        assert env.reset().tolist() == [[2, 0]] * 2
        out = env.step(torch.tensor([[2], [1]]))
        assert out["obs"].tolist() == [[2, 0], [2, 1]]
        assert out["final_obs"].tolist() == [[3, 1], [2, 1]]

    def test_parts_of_the_reward_are_metrics(self):
        env = make(WALK)(2)
        env.reset()
        env.step(torch.tensor([[2], [1]]))
        said = env.metrics()
        assert said["reward_ctrl"].item() == -0.5
        assert set(said) == {"reward_ctrl", "success"}

    def test_its_own_vector_environment(self):
        cls = make("CartPole-v1", vectorization_mode="vector_entry_point")
        assert check_env(cls, num_envs=4, steps=16).faults == []


class TestNames:
    def test_unknown_ones(self):
        with pytest.raises(EnvError, match=r"gym:CartPol-v1 is not .*: did you mean gym:CartPole-v1\?"):
            make("CartPol-v1")
        with pytest.raises(
            EnvError, match=r"gym:Zz is not an environment of Gymnasium: expected .*, or others"
        ):
            make("Zz")
        with pytest.raises(EnvError, match="no module nowhere that could register My-v0"):
            make("nowhere:My-v0")

    def test_a_module_that_registers_is_imported(self, tmp_path, monkeypatch):
        code = "import gymnasium\nfrom tests.gym_envs import Walk\ngymnasium.register('Mine-v3', Walk)\n"
        (tmp_path / "mine_registers.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        cls = make("mine_registers:Mine-v3", limit=2)
        assert (cls.__name__, cls.simulator_name) == ("Mine-v3", "gym:mine_registers:Mine-v3")
        assert cls(2).reset().shape == (2, 2)

    def test_a_missing_package(self, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "ale_py", None)
        with pytest.raises(EnvError, match=r"gym:ALE/Pong-v5 needs ale_py"):
            make("ALE/Pong-v5")


class TestLife:
    def test_a_dropped_environment_is_closed(self):
        env = from_vector(TensorWalks)(2)
        vector = env._simulator.vector
        gone = weakref.ref(env)
        del env
        gc.collect()
        assert gone() is None
        assert vector.closed

    def test_errors_of_a_simulator_are_named(self):
        class Broken(TensorWalks):
            def step(self, actions):
                raise RuntimeError("a body is\nout of reach")

        with pytest.raises(EnvError, match=r"Broken.step \(step 0.*RuntimeError: a body is out of reach"):
            Algorithm(from_vector(Broken), **TINY).collect()

    def test_nan_is_named(self):
        class Exploding(TensorWalks):
            def _obs(self):
                return super()._obs() * np.nan

        with pytest.raises(ArithmeticError, match="obs of environment 0 from Exploding is NaN"):
            Algorithm(from_vector(Exploding), **TINY).collect()

    def test_what_mujoco_finds_unstable_is_named(self, monkeypatch):
        kinds = {"mjWARN_BADQPOS": 3, "mjWARN_BADQVEL": 4, "mjWARN_BADQACC": 5}
        monkeypatch.setitem(sys.modules, "mujoco", SimpleNamespace(mjtWarning=SimpleNamespace(**kinds)))
        env = make("tests.gym_envs:Rlstack/Toppling-v0")(3)
        env.reset()
        env.step(torch.tensor([[2], [1], [2]]))
        said = r"environment 1 of Rlstack/Toppling-v0 is unstable: .* in qacc\[7\]; take a smaller"
        with pytest.raises(NonFiniteError, match=said):
            env.step(torch.tensor([[2], [0], [1]]))
        env.reset()
        assert env.step(torch.tensor([[1], [2], [1]]))["obs"].tolist() == [[0, 1], [1, 1], [0, 1]]

    def test_a_worker_that_is_killed_ends_a_run_which_its_checkpoint_resumes(self, tmp_path):
        options = {"vectorization_mode": "async", "limit": 5}
        trainer = Trainer(
            make("tests.gym_envs:Rlstack/Walk-v0", **options),
            algorithm_config=TINY,
            run_dir=tmp_path / "run",
            checkpoint_config={"every_updates": 1},
            track=False,
        )
        trainer.step()
        workers = trainer.algorithm.env._simulator.vector.processes
        os.kill(workers[1].pid, signal.SIGKILL)
        with pytest.raises(EnvError, match=r"worker process 1 of 2 was killed by SIGKILL .*last checkpoint"):
            trainer.step()
        trainer.close()
        del trainer
        gc.collect()
        assert not any(worker.is_alive() for worker in workers)
        assert len(numbered(tmp_path / "run" / "checkpoints")) == 1
        resumed = Trainer.resume(tmp_path / "run", track=False)
        assert type(resumed.algorithm.env).__name__ == "Rlstack/Walk-v0"
        assert resumed.algorithm.hparams.env_config == options
        resumed.step()
        assert resumed.steps == 2
        workers = resumed.algorithm.env._simulator.vector.processes
        resumed.algorithm.env.close()
        assert not any(worker.is_alive() for worker in workers)

    def test_a_worker_that_exits_is_named_while_another_is_busy(self):
        env = make("tests.gym_envs:Rlstack/Dying-v0", vectorization_mode="async")(2)
        env.reset()
        workers = env._simulator.vector.processes
        # Ctrl-C goes to all processes of a terminal: the one that trains decides what becomes of it.
        os.kill(workers[0].pid, signal.SIGINT)
        env.step(torch.tensor([[2], [2]]))
        start = time.monotonic()
        with pytest.raises(EnvError, match="worker process 1 of 2 has exited with 7: its simulation is lost"):
            env.step(torch.tensor([[1], [0]]))
        env.close()
        assert time.monotonic() - start < 30
        assert not any(worker.is_alive() for worker in workers)


def test_a_walk_is_as_gymnasium_wants_it():
    from gymnasium.utils.env_checker import check_env as check

    check(Walk(), skip_render_check=True)
