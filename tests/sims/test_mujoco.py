"""Batched MuJoCo against Gymnasium's and DM Control's own environments."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from rlstack import Algorithm, RecurrentAlgorithm, Trainer
from rlstack.cli import recipes
from rlstack.cli.app import main
from rlstack.cli.mujoco_recipes import MUJOCO_RECIPES
from rlstack.cli.resolve_env import resolve
from rlstack.common.errors import EnvError, NonFiniteError
from rlstack.env import EnvChecks
from rlstack.env import mujoco as tasks
from rlstack.env.faults import faults_of

pytest.importorskip("mujoco.batch")
gymnasium = pytest.importorskip("gymnasium")
import mujoco

GYMNASIUM = ["Ant", "HalfCheetah", "Hopper", "Reacher", "Swimmer", "Walker2d"]
SUITE = {
    "CartpoleSwingup": ("cartpole", "swingup"),
    "CheetahRun": ("cheetah", "run"),
    "ReacherEasy": ("reacher", "easy"),
    "WalkerWalk": ("walker", "walk"),
}
STEPS = 200
PAGE = Path(__file__).parents[2] / "docs" / "simulators" / "mujoco.md"

PENDULUM = """
<mujoco>
  <option timestep="0.02"/>
  <worldbody>
    <body>
      <joint name="hinge" axis="0 1 0" damping="0.1"/>
      <geom type="capsule" fromto="0 0 0 0 0 1" size="0.05" mass="1"/>
      <site name="tip" pos="0 0 1"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="hinge" ctrlrange="-3 3" ctrllimited="true"/>
  </actuator>
  <sensor>
    <framepos name="tip" objtype="site" objname="tip"/>
    <framelinvel name="tip velocity" objtype="site" objname="tip"/>
  </sensor>
</mujoco>
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """MuJoCo writes a log of warnings to where one is."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, {}) for name in GYMNASIUM],
        ("HalfCheetah", {"exclude_current_positions_from_observation": False, "forward_reward_weight": 2.0}),
        ("Swimmer", {"frame_skip": 2, "ctrl_cost_weight": 0.5}),
        ("Hopper", {"healthy_z_range": [1.0, 2.0], "healthy_angle_range": [-0.1, 0.3]}),
        ("Hopper", {"terminate_when_unhealthy": False, "healthy_state_range": [-1.0, 1.0]}),
        ("Walker2d", {"healthy_reward": 0.3, "ctrl_cost_weight": 0.1}),
        ("Ant", {"contact_force_range": [-3.0, 2.0], "contact_cost_weight": 0.1, "main_body": 2}),
        ("Ant", {"include_cfrc_ext_in_observation": False, "terminate_when_unhealthy": False}),
        ("Reacher", {"reward_dist_weight": 3.0, "reward_control_weight": 0.2}),
    ],
)
def test_as_gymnasiums(name, options):
    """From the same states, under the same actions: what is observed, rewarded, and where episodes end."""
    torch.manual_seed(0)
    mine = getattr(tasks, name)(3, config=options)
    theirs = [gymnasium.make(f"{name}-v5", **options) for _ in range(3)]

    def put(row):
        """Let an episode of theirs begin where mine does; return what they observe."""
        theirs[row].reset(seed=row)
        own = theirs[row].unwrapped
        mujoco.mj_resetData(own.model, own.data)
        own.set_state(*(getattr(mine._after, part)[row].numpy().copy() for part in ("qpos", "qvel")))
        return own._get_obs()

    def same(one, other):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)

    obs, ends = mine.reset(), 0
    for row in range(3):
        same(put(row), obs[row])
    for _ in range(STEPS):
        actions = 1.2 * torch.rand(3, mine.model.nu).mul(2).sub(1)
        out = mine.step(actions)
        assert out["rewards"].dtype == torch.float64
        for row, env in enumerate(theirs):
            obs, reward, terminated, truncated, _ = env.step(actions[row].numpy())
            same(obs, out["final_obs"][row])
            same(reward, out["rewards"][row, 0])
            ended = out.get("terminated", None)
            assert terminated == (ended is not None and bool(ended[row]))
            assert (truncated and not terminated) == bool(out["truncated"][row])
            if terminated or truncated:
                ends += 1
                same(put(row), out["obs"][row])
    falls = name in ("Hopper", "Walker2d") and "terminate_when_unhealthy" not in options
    assert ends > 0 or not (falls or name == "Reacher")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", GYMNASIUM)
def test_starts_are_gymnasiums(name):
    """Means and spreads of first states; where theirs draw uniformly, also the ranges."""
    torch.manual_seed(0)
    mine = getattr(tasks, name)(400)
    theirs = gymnasium.make(f"{name}-v5")
    theirs.reset(seed=0)
    drawn = []
    for _ in range(400):
        theirs.reset()
        data = theirs.unwrapped.data
        drawn.append(np.concatenate([data.qpos, data.qvel]))
    mine.reset()
    ours = torch.cat([mine._after.qpos, mine._after.qvel], -1).numpy()
    drawn = np.stack(drawn)
    spread = drawn.std(0)
    assert (np.abs(ours.mean(0) - drawn.mean(0)) <= 0.3 * spread + 1e-12).all()
    assert (np.abs(ours.std(0) - spread) <= 0.2 * spread + 1e-12).all()
    assert (ours.max(0) <= drawn.max(0) + 1.5 * spread).all()


@pytest.mark.parametrize("name", GYMNASIUM)
def test_time_limits_are_gymnasiums(name):
    assert getattr(tasks, name).max_episode_steps == gymnasium.spec(f"{name}-v5").max_episode_steps
    assert getattr(tasks, name)(2).action_spec.space.high.tolist() == pytest.approx(
        gymnasium.make(f"{name}-v5").action_space.high.tolist()
    )


@pytest.fixture
def suite(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    suite = pytest.importorskip("dm_control.suite")
    from dm_control.mujoco.wrapper.mjbindings import sizes

    # Version 1.0.50 looks for some fields that MuJoCo 4 has given up.
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    for kind, held in {"mjmodel": model, "mjdata": mujoco.MjData(model)}.items():
        there = {name: size for name, size in sizes.array_sizes[kind].items() if hasattr(held, name)}
        monkeypatch.setitem(sizes.array_sizes, kind, there)
    return suite


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SUITE)
def test_as_dm_controls(name, suite):
    """From the same states, under the same actions."""
    torch.manual_seed(0)
    mine = getattr(tasks, name)(2)
    obs = mine.reset()
    theirs = [suite.load(*SUITE[name], task_kwargs={"random": row}) for row in range(2)]

    def observed(values):
        return np.concatenate([np.ravel(part) for part in values.values()])

    for row, env in enumerate(theirs):
        assert env._step_limit == mine.max_episode_steps
        assert env.control_timestep() == pytest.approx(mine.dt)
        spec = env.action_spec()
        assert spec.minimum.tolist() == mine.action_spec.space.low.tolist()
        assert spec.maximum.tolist() == mine.action_spec.space.high.tolist()
        env.reset()
        with env.physics.reset_context():
            env.physics.data.qpos[:] = mine._after.qpos[row]
            env.physics.data.qvel[:] = mine._after.qvel[row]
            if name == "ReacherEasy":
                env.physics.named.model.geom_pos["target", :2] = mine._after.target[row]
        first = observed(env.task.get_observation(env.physics))
        np.testing.assert_allclose(first, obs[row], rtol=0, atol=1e-6)
    total = 0.0
    for _ in range(STEPS):
        actions = torch.rand(2, mine.model.nu).mul(2).sub(1)
        out = mine.step(actions)
        for row, env in enumerate(theirs):
            theirs_said = env.step(actions[row].numpy())
            np.testing.assert_allclose(observed(theirs_said.observation), out["obs"][row], rtol=0, atol=1e-6)
            np.testing.assert_allclose(theirs_said.reward, out["rewards"][row, 0], rtol=0, atol=1e-6)
            total += theirs_said.reward
    assert total > 0
    assert out.get("terminated", None) is None


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SUITE)
def test_starts_are_dm_controls(name, suite):
    torch.manual_seed(0)
    mine, theirs = getattr(tasks, name)(100), suite.load(*SUITE[name], task_kwargs={"random": 0})
    mine.reset()
    drawn = []
    for _ in range(100):
        theirs.reset()
        drawn.append(np.concatenate([theirs.physics.data.qpos, theirs.physics.data.qvel]))
    ours, drawn = torch.cat([mine._after.qpos, mine._after.qvel], -1).numpy(), np.stack(drawn)
    spread = drawn.std(0)
    assert (np.abs(ours.mean(0) - drawn.mean(0)) <= 0.6 * spread + 1e-12).all()
    assert (np.abs(ours.std(0) - spread) <= 0.5 * spread + 1e-12).all()
    if name == "ReacherEasy":
        distance = mine._after.target.norm(dim=-1)
        assert (distance >= 0.05).all()
        assert (distance <= 0.2).all()
        assert distance.std() > 0.02


def checks_of(name: str) -> type:
    return type(f"Test{name}", (EnvChecks,), {"env_cls": getattr(tasks, name), "num_envs": 3, "steps": 12})


for _name in (*GYMNASIUM, *SUITE):
    globals()[f"Test{_name}"] = checks_of(_name)


class TestHopperUntilItFalls(EnvChecks):
    """Long enough for rows to end at different times."""

    env_cls = tasks.Hopper
    num_envs = 4
    steps = 60


class Pendulum(tasks.MujocoEnv):
    """A pendulum that is to be up; its tip is read from a sensor."""

    mjcf = PENDULUM
    frame_skip = 2
    max_episode_steps = 30

    def start(self, num: int) -> Mapping[str, torch.Tensor]:
        return {"qpos": torch.pi * torch.rand(num, 1)}

    def observation(self, state: tasks.State) -> torch.Tensor:
        return torch.cat([state.sensor("tip"), state.sensor("tip velocity"), state.site_xpos[:, 0]], -1)

    def reward(self, before: tasks.State, action: torch.Tensor, after: tasks.State) -> torch.Tensor:
        return after.site_xpos[:, 0, 2] - before.site_xpos[:, 0, 2]


class TestPendulum(EnvChecks):
    env_cls = Pendulum
    steps = 40


@pytest.mark.usefixtures("float64")
def test_computed_fields_are_of_the_state_after_the_step():
    env = Pendulum(5)
    before = env.reset()
    for _ in range(4):
        out = env.step(torch.ones(5, 1))
        angle, speed = env._after.qpos[:, 0], env._after.qvel[:, 0]
        tip = torch.stack([angle.sin(), torch.zeros(5), angle.cos()], -1)
        velocity = speed[:, None] * torch.stack([angle.cos(), torch.zeros(5), -angle.sin()], -1)
        torch.testing.assert_close(out["obs"], torch.cat([tip, velocity, tip], -1), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(out["rewards"], (out["obs"] - before)[:, 2:3], rtol=1e-9, atol=1e-9)
        before = out["obs"]


@pytest.mark.usefixtures("float64")
def test_forces_of_contacts_are_of_the_state_after_the_step():
    """What lies on the floor is held up by its weight."""

    class Box(Pendulum):
        settle = 500
        mjcf = """
        <mujoco>
          <worldbody>
            <geom type="plane" size="1 1 1"/>
            <body name="box" pos="0 0 0.1"><freejoint/><geom type="box" size=".1 .1 .1" mass="2"/></body>
            <body pos="3 0 1"><joint name="other" axis="0 1 0"/><geom size=".1" mass="1"/></body>
          </worldbody>
          <actuator><motor joint="other"/></actuator>
        </mujoco>
        """

        def start(self, num):
            return {}

        def observation(self, state):
            return state.cfrc_ext[:, 1]

        def reward(self, before, action, after):
            return after.time

    env = Box(3)
    obs = env.reset()
    for _ in range(3):
        torch.testing.assert_close(obs[:, 5], torch.full((3,), 2 * 9.81), rtol=1e-3, atol=0)
        obs = env.step(torch.zeros(3, 1))["obs"]


@pytest.mark.parametrize("name", ["Hopper", "Ant", "WalkerWalk"])
def test_threads_change_nothing(name):
    def trajectory(threads):
        torch.manual_seed(1)
        env = getattr(tasks, name)(7, config={"num_threads": threads})
        seen = [env.reset()]
        for _ in range(40):
            out = env.step(env.action_spec.rand((7,)))
            seen += [out["obs"], out["final_obs"], out["rewards"].expand_as(out["obs"])]
        return torch.stack(seen)

    one = trajectory(1)
    assert torch.equal(one, trajectory(3))
    assert torch.equal(one, trajectory(7))


@pytest.mark.parametrize("name", ["HalfCheetah", "Ant", "ReacherEasy"])
def test_a_run_goes_on_as_if_it_had_not_stopped(name, tmp_path):
    options: dict[str, Any] = {"num_envs": 4, "horizon": 16, "horizons_per_env_reset": -1, "seed": 0}
    trainers = []
    for directory, first in (("a", 4), ("b", 2)):
        where = tmp_path / directory
        trainer = Trainer(getattr(tasks, name), algorithm_config=options, run_dir=where, track=False)
        for _ in range(first):
            trainer.step()
        trainer.save()
        trainers.append(trainer)
    trainers[1].close()
    resumed = Trainer.resume(tmp_path / "b", track=False)
    for _ in range(2):
        resumed.step()
    mine, theirs = (trainer.algorithm.policy.state_dict() for trainer in (trainers[0], resumed))
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def collect_often(algorithm):
    for _ in range(20):
        algorithm.collect()


def test_an_unstable_simulation_is_named():
    class Explosive(Pendulum):
        mjcf = PENDULUM.replace('timestep="0.02"', 'timestep="0.02" integrator="Euler"').replace(
            'ctrlrange="-3 3" ctrllimited="true"', 'gear="1e9"'
        )

    algorithm = Algorithm(Explosive, num_envs=3, horizon=8, seed=0)
    said = (
        r"^environment \d of Explosive is unstable: MuJoCo found NaN, infinity or a huge number in "
        r"q(acc|vel|pos)\[0\]; take a smaller timestep, or bound what acts on it$"
    )
    before = {key: value.clone() for key, value in algorithm.policy.state_dict().items()}
    with pytest.raises(NonFiniteError, match=said):
        collect_often(algorithm)
    assert all(torch.equal(before[key], value) for key, value in algorithm.policy.state_dict().items())
    env = algorithm.env
    env.reset()
    assert env._simulation.unstable() is None


@pytest.mark.parametrize(
    ("mjcf", "said"),
    [
        ("<mujoco><worldbody><boddy/></worldbody></mujoco>", "^MuJoCo refuses the model of Wrong: .*boddy"),
        ("<mujoco/>", "^Wrong has nothing to control: add an <actuator> to the model$"),
    ],
)
def test_a_model_that_cant_be_used(mjcf, said):
    with pytest.raises(EnvError, match=said):
        type("Wrong", (Pendulum,), {"mjcf": mjcf})(1)


def test_what_mujoco_warns_of_is_logged(caplog, capfd, tmp_path):
    old = PENDULUM.replace("<option", '<compiler settotalmass="3"/><option')
    type("Old", (Pendulum,), {"mjcf": old})(1)
    [said] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert said.getMessage().startswith("the model of Old: compiler attribute 'settotalmass' is deprecated")
    # Nobody can do anything about files of other packages.
    tasks.HalfCheetah(1)
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    assert not list(tmp_path.iterdir())
    assert "settotalmass" not in "".join(capfd.readouterr())


def test_names_of_sensors_and_fields_that_are_wrong():
    class Sensor(Pendulum):
        def observation(self, state):
            return state.sensor("tipp")

    class Field(Pendulum):
        def observation(self, state):
            return state.xposs

    with pytest.raises(EnvError, match=r"Sensor raised .*tipp"), faults_of("Sensor"):
        Sensor(1)
    with pytest.raises(EnvError, match=r"mjData has no xposs: did you mean xpos?"), faults_of("Field"):
        Field(1)


def test_metrics_are_those_of_gymnasiums_infos():
    env = tasks.HalfCheetah(2)
    env.reset()
    before = env._after.qpos[:, 0].clone()
    env.step(torch.ones(2, 6))
    said = env.metrics()
    assert said["x_velocity"] == pytest.approx(float((env._after.qpos[:, 0] - before).mean() / 0.05))
    assert said["x_position"] == pytest.approx(float(env._after.qpos[:, 0].mean()))


# Its kernels are compiled first.
@pytest.mark.timeout(1200)
class TestWarp:
    """MuJoCo Warp on its CPU device: in float32, and the same but for that."""

    names: ClassVar = ["HalfCheetah", "WalkerWalk"]

    @pytest.fixture(params=names)
    def pair(self, request, monkeypatch):
        pytest.importorskip("mujoco_warp")
        from rlstack.env.mujoco.warp import WarpSimulation

        cls = getattr(tasks, request.param)
        mine = cls(3)

        def make(self, reads=frozenset()):
            return WarpSimulation(
                self.model, self.num_envs, reads, up_to_date=self.up_to_date, device=self.device
            )

        monkeypatch.setattr(cls, "make_simulation", make)
        return mine, cls(3, config={"max_episode_steps": 6})

    def test_it_is_the_same_but_for_its_precision(self, pair):
        firsts = []
        for env in pair:
            torch.manual_seed(0)
            firsts.append(env.reset())
        torch.testing.assert_close(*firsts, rtol=1e-4, atol=1e-4)
        for _ in range(5):
            actions = pair[0].action_spec.rand((3,))
            ones, others = (env.step(actions) for env in pair)
            torch.testing.assert_close(ones["obs"], others["obs"], rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(ones["rewards"], others["rewards"], rtol=1e-3, atol=1e-3)
        assert not others["truncated"].any()
        assert pair[1].step(actions)["truncated"].all()
        assert not pair[1].age.any()

    def test_single_rows_begin_anew(self, pair):
        _, env = pair
        env.reset()
        env.age[1] = 5
        out = env.step(env.action_spec.rand((3,)))
        assert out["truncated"].flatten().tolist() == [False, True, False]
        assert torch.equal(out["obs"][[0, 2]], out["final_obs"][[0, 2]])
        assert not torch.equal(out["obs"][1], out["final_obs"][1])

    def test_its_state_is_put_back(self, pair):
        _, env = pair
        env.reset()
        actions = env.action_spec.rand((3,))
        env.step(actions)
        state = env.state_dict()
        one = env.step(actions)
        env.load_state_dict(state)
        assert torch.equal(one["obs"], env.step(actions)["obs"])


@pytest.mark.parametrize("name", MUJOCO_RECIPES)
def test_recipes_are_judged(name):
    """In Gymnasium's own environments, or in the suite's task; nobody solves them untrained."""
    recipe = MUJOCO_RECIPES[name]
    algorithm = Algorithm(
        recipe.env_cls(),
        **{**recipe.hyperparameters, "distribution_cls": None, "normalize_observations": False},
    )
    quick = type(recipe)(**{**vars(recipe), "eval_envs": 1})
    before = torch.get_rng_state()
    score = quick.score(algorithm.policy)
    assert torch.equal(torch.get_rng_state(), before)
    assert score < recipe.target


@pytest.mark.parametrize("name", MUJOCO_RECIPES)
def test_recurrent_ones_differ_in_what_they_must(name):
    env_cls, feedforward = resolve(name, {})
    _, recurrent = resolve(name, {}, "recurrent")
    differing = {key for key in recurrent if recurrent[key] != feedforward[key]}
    assert differing == {"model_config", "sgd_minibatch_size"}
    one, two = Algorithm(env_cls, **feedforward), RecurrentAlgorithm(env_cls, **recurrent)
    assert two.hparams.sgd_minibatch_size * two.hparams.sequence_length == one.hparams.sgd_minibatch_size
    assert one.policy.distribution_cls.__name__ == "Normal"


def test_a_recipe_trains(tmp_path, monkeypatch):
    quick = type(MUJOCO_RECIPES["hopper"])(**{**vars(MUJOCO_RECIPES["hopper"]), "eval_envs": 2})
    monkeypatch.setitem(recipes.RECIPES, "hopper", quick)
    command = [
        "train",
        "hopper",
        "--seed",
        "0",
        "--max-updates",
        "1",
        "--tracking",
        "off",
        "--run-dir",
        "out",
    ]
    said = CliRunner().invoke(main, command)
    assert said.exit_code == 0, said.output
    assert "env: rlstack.env.mujoco.Hopper" in (tmp_path / "out" / "config.yaml").read_text()
    again = CliRunner().invoke(main, ["train", "--resume", "out", "--max-updates", "2", "--tracking", "off"])
    assert again.exit_code == 0, again.output


def test_the_page_runs():
    parts = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert parts
    for part in parts:
        assert len([line for line in part.splitlines() if line.strip()]) <= 20
        exec(compile(part, str(PAGE), "exec"), {"__name__": "page"})
