"""Tasks of mjlab by name, by a stand-in for its package: what is refused, and how."""

import sys
from copy import deepcopy
from types import ModuleType, SimpleNamespace

import pytest

from rlstack import EnvError
from rlstack.cli.arguments import env_options
from rlstack.env.mjlab import make
from rlstack.env.simulators import find_simulator

from .vec_forms import Mjlab

TASK = "Mjlab-Cartpole-Balance"


class Rl(SimpleNamespace):
    """What a task is trained with."""


@pytest.fixture
def mjlab(monkeypatch):
    """Put modules in place of mjlab's, with what the adapter uses; return how environments are made."""
    calls = []
    weight = SimpleNamespace(weight=1.0, sides=(0.0, 1.0))
    cfg = SimpleNamespace(
        scene=SimpleNamespace(num_envs=1),
        seed=None,
        auto_reset=True,
        rewards={"near": weight},
        commands={"motion": SimpleNamespace(motion_file="walk.npz")},
    )

    class ManagerBasedRlEnv(Mjlab):
        def __init__(self, cfg, device):
            super().__init__(cfg.scene.num_envs, device=device)
            self.cfg = cfg

    def load_env_cfg(name, play=False):
        calls.append((name, play))
        return deepcopy(cfg)

    modules = {
        "mjlab": {},
        "mjlab.tasks": {},
        "mjlab.tasks.registry": {
            "list_tasks": lambda: [TASK, "Mjlab-Cartpole-Swingup"],
            "load_env_cfg": load_env_cfg,
            "load_rl_cfg": lambda name: Rl(
                clip_actions=2.0, obs_groups={"actor": ("actor",), "critic": ("critic",), "student": ("x",)}
            ),
        },
        "mjlab.envs": {"ManagerBasedRlEnv": ManagerBasedRlEnv},
        "mjlab.rl": {"RslRlVecEnvWrapper": lambda env: env},
    }
    for name, names in modules.items():
        module = ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    return calls


def test_a_missing_package_is_named(monkeypatch):
    # As if it weren't there.
    monkeypatch.setitem(sys.modules, "mjlab", None)
    with pytest.raises(EnvError, match=f"mjlab:{TASK} needs mjlab: pip install 'rlstack.mjlab.'"):
        make(TASK)


def test_a_task_that_is_none_is_named(mjlab):
    with pytest.raises(EnvError, match=f"mjlab:Mjlab-Cartpol-Balance is not a .*did you mean mjlab:{TASK}"):
        make("Mjlab-Cartpol-Balance")


def test_a_task_is_made_as_it_is_trained(mjlab):
    cls = find_simulator(f"mjlab:{TASK}")
    assert (cls.__name__, cls.simulator_name) == (TASK, f"mjlab:{TASK}")
    env = cls(3)
    assert mjlab == [(TASK, False)]
    assert env.config["clip_actions"] == 2.0
    assert (env.policy_keys, env.value_keys) == (["actor"], ["critic"])
    cfg = env.simulator.cfg
    assert (cfg.scene.num_envs, cfg.auto_reset) == (3, False)
    assert isinstance(cfg.seed, int)


def test_options_reach_the_task_by_their_paths(mjlab):
    cls = make(TASK, play=True, clip_actions=None, cfg={"rewards.near.weight": 2.0})
    env = cls(2, config={"seed": 5, "cfg": {"rewards.near.sides": [1.0, 2.0], "auto_reset": True}})
    cfg = env.simulator.cfg
    assert (cfg.seed, cfg.auto_reset) == (5, True)
    # `config` takes the place of the whole option.
    assert cfg.rewards["near"].weight == 1.0
    assert cfg.rewards["near"].sides == (1.0, 2.0)
    assert env.config["clip_actions"] is None
    assert mjlab == [(TASK, True)]
    assert cls(2).simulator.cfg.rewards["near"].weight == 2.0


def test_options_may_be_nested_as_the_command_line_has_them(mjlab):
    options = env_options(("env_config.cfg.rewards.near.weight=3.0", "env_config.cfg.auto_reset=true"))
    cfg = make(TASK)(2, config=options).simulator.cfg
    assert (cfg.rewards["near"].weight, cfg.rewards["near"].sides, cfg.auto_reset) == (3.0, (0.0, 1.0), True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cfg": {"rewards.nea.weight": 2.0}}, "cfg.rewards has no option nea: did you mean near"),
        ({"cfg": {"rewards.near.weigh": 2.0}}, "cfg.rewards.near has no option weigh: did you mean weight"),
        ({"cfg": {"rewards.near.weight.x": 2.0}}, "cfg.rewards.near.weight has no option x: it has none"),
        ({"cfg": {"commands.motion.motion_file": ""}}, "follows a motion, and none is given: say where it"),
        ({"plai": True}, f"env_config.plai is not an option of {TASK}: did you mean play"),
    ],
)
def test_options_that_are_none_are_named(mjlab, options, said):
    with pytest.raises(EnvError, match=said):
        make(TASK, **options)(2)
