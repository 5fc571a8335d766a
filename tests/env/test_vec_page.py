"""The code of docs/simulators/vec_env.md runs, with stand-ins in place of the packages that it imports."""

import re
import sys
from itertools import accumulate
from pathlib import Path
from types import ModuleType, SimpleNamespace

import gymnasium
import pytest

from rlstack import Algorithm, EnvError
from rlstack.hparams import Hparams

from ..helpers import SMALL
from . import vec_forms
from .walk import CONFIG

PAGE = (Path(__file__).parents[2] / "docs" / "simulators" / "vec_env.md").read_text()
SECTIONS = dict(re.findall(r"\n## (.*)\n(?:(?!\n## )[\s\S])*?```python\n([\s\S]*?)```", PAGE))


@pytest.fixture
def run(monkeypatch):
    """Return what runs a section's code with these modules, and returns its names."""

    made = {}

    def run(section, modules):
        for name, names in modules.items():
            for path in accumulate(name.split("."), "{}.{}".format):
                if path not in made:
                    made[path] = ModuleType(path)
                    monkeypatch.setitem(sys.modules, path, made[path])
                    parent, _, child = path.rpartition(".")
                    vars(made.get(parent, made[path]))[child] = made[path]
            vars(made[name]).update(names)
        names = {"__name__": "__main__"}
        exec(compile(SECTIONS[section], "vec_env.md", "exec"), names)
        return names

    return run


def trained(cls):
    """Return the statistics of a horizon after an update."""
    algorithm = Algorithm(cls, **CONFIG, model_config=SMALL)
    algorithm.collect()
    algorithm.step()
    return algorithm.collect()


def test_there_is_code_for_each_simulator():
    assert [*SECTIONS] == [
        "mjlab",
        "Isaac Lab",
        "Genesis",
        "MuJoCo Playground",
        "legged_gym and its kin",
        "rsl_rl's recipes in rlstack's names",
    ]
    assert all(len(code.splitlines()) <= 20 for code in SECTIONS.values())


def test_isaac_lab(run, monkeypatch):
    launched = []

    def make(task, cfg):
        made = vec_forms.IsaacLab23(cfg.num_envs, device=cfg.device, compute_final_obs=cfg.compute_final_obs)
        return SimpleNamespace(task=task, made=made)

    monkeypatch.setattr(gymnasium, "make", make)
    names = run(
        "Isaac Lab",
        {
            "isaaclab.app": {"AppLauncher": lambda headless: launched.append(headless)},
            "isaaclab_tasks.utils": {"parse_env_cfg": lambda task, **given: SimpleNamespace(**given)},
            "isaaclab_rl.rsl_rl": {"RslRlVecEnvWrapper": lambda env: env.made},
        },
    )
    assert launched == [True]
    with pytest.raises(EnvError, match="Ant needs a GPU: device is cpu, expected cuda"):
        names["Ant"](4)
    names["Ant"].cuda_only = False
    assert trained(names["Ant"])["episodes/count"] > 0


def test_genesis(run):
    begun = []

    def get_cfgs():
        return {"num_actions": 1}, {}, {}, {}

    genesis = {"gpu": "gpu", "init": lambda **options: begun.append(options)}
    go2 = {"Go2Env": lambda num_envs, *cfgs: vec_forms.Genesis(num_envs)}
    names = run("Genesis", {"genesis": genesis, "go2_env": go2, "go2_train": {"get_cfgs": get_cfgs}})
    assert begun == [{"backend": "gpu", "logging_level": "warning"}]
    assert names["Go2"].__name__ == "Go2"
    assert trained(names["Go2"])["episodes/count"] > 0


def test_playground(run):
    handed = []

    def wrapper(env, num_actors, seed, episode_length, action_repeat, device_rank=None):
        handed.append((env, episode_length, action_repeat, device_rank))
        return vec_forms.Playground(num_actors, seed=seed)

    registry = SimpleNamespace(
        get_default_config=lambda task: SimpleNamespace(episode_length=1000),
        load=lambda task, config: task,
    )
    torch_form = SimpleNamespace(RSLRLBraxWrapper=wrapper)
    modules = {"mujoco_playground": {"registry": registry, "wrapper_torch": torch_form}}
    names = run("MuJoCo Playground", modules)
    assert trained(names["Joystick"])["episodes/count"] > 0
    assert handed == [("Go1JoystickFlatTerrain", 1000, 1, None)]


def test_legged_gym(run):
    cfg = SimpleNamespace(env=SimpleNamespace(num_envs=1))
    registry = SimpleNamespace(
        get_cfgs=lambda task: (cfg, None),
        make_env=lambda task, env_cfg: (vec_forms.LeggedGym(env_cfg.env.num_envs), env_cfg),
    )
    modules = {"legged_gym.envs": {}, "legged_gym.utils": {"task_registry": registry}}
    names = run("legged_gym and its kin", modules)
    assert trained(names["Anymal"])["episodes/count"] > 0


def test_the_recipe_is_one_of_rlstacks(run):
    recipe = run("rsl_rl's recipes in rlstack's names", {})["recipe"]
    hparams = Hparams(**recipe)
    assert hparams.minibatch_size(hparams.num_envs * hparams.horizon) == 24576
