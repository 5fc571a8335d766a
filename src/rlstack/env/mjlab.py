"""Tasks of mjlab by name. Its package is needed: docs/simulators/vec_env.md tells how to get it."""

from collections.abc import Mapping
from typing import Any

from ..common.errors import EnvError
from ..common.nested import flatten
from ..common.validation import did_you_mean
from .base import Env
from .simulators import needed, unknown
from .vec_env.simulator import make_class


def make(name: str, /, **options: Any) -> type[Env]:
    """Return the environment class of a task of mjlab, `Mjlab-Cartpole-Balance` for example.

    Episodes end by themselves: `horizons_per_env_reset=-1` is its natural setting. Those that a time limit
    breaks off return their true last observations, for which mjlab computes kinematics once more in steps in
    which an episode ends; `cfg={"auto_reset": True}` spares that and bootstraps from the observation before.

    Args:
        name: Of a task that mjlab lists, those of other packages that register some included.
        options: Of `env_config`. `cfg`, a dictionary: options of the task by their paths, or nested, as
            `{"episode_length_s": 5.0, "rewards.smooth_reward.weight": 2.0}`. `play`: whether it is the
            variant for playing, with endless episodes and without noise. `seed`: of the terrain; None draws
            one. And `obs_groups`, `clip_actions` and `init_at_random_ep_len` as of `from_vec_env`; the first
            two are by default what mjlab trains the task with.

    Raises:
        EnvError: If mjlab is missing, or there is no such task.
    """
    what = f"mjlab:{name}"
    needed("mjlab", "'rlstack[mjlab]'", what)
    registry = needed("mjlab.tasks.registry", "'rlstack[mjlab]'", what)
    if name not in registry.list_tasks():
        raise unknown(what, "a task of mjlab", [f"mjlab:{task}" for task in registry.list_tasks()])
    envs, rl = needed("mjlab.envs", "'rlstack[mjlab]'", what), needed("mjlab.rl", "'rlstack[mjlab]'", what)
    trained = registry.load_rl_cfg(name)

    def build(
        num_envs: int, *, device: str, seed: int, play: bool = False, cfg: Mapping[str, Any] | None = None
    ) -> Any:
        config = registry.load_env_cfg(name, play=play)
        config.scene.num_envs, config.seed = num_envs, seed
        # The last observations of episodes are lost if mjlab puts rows back itself.
        config.auto_reset = False
        for path, value in flatten(cfg or {}).items():
            _set(config, path, value, what)
        if getattr(config.commands.get("motion"), "motion_file", None) == "":
            raise EnvError(
                f"{what} follows a motion, and none is given: say where it is, "
                'cfg={"commands.motion.motion_file": "path/to/motion.npz"}'
            )
        return rl.RslRlVecEnvWrapper(envs.ManagerBasedRlEnv(cfg=config, device=device))

    build.__name__ = name
    groups = {key: list(names) for key, names in trained.obs_groups.items() if key in ("actor", "critic")}
    defaults = {"obs_groups": groups, "clip_actions": trained.clip_actions}
    named = {"simulator_name": what, "simulator_options": dict(options)}
    return make_class(build, name, {**defaults, **options}, module=__name__, **named)


def _set(config: Any, path: str, value: Any, what: str) -> None:
    """Set an option of a task by its path.

    Raises:
        EnvError: If there is none.
    """
    *parts, last = path.split(".")
    for done, part in enumerate((*parts, last)):
        known = config if isinstance(config, dict) else vars(config) if hasattr(config, "__dict__") else {}
        if part not in known:
            place = ".".join(("cfg", *parts[:done]))
            meant = did_you_mean(part, map(str, known)) if known else ": it has none"
            raise EnvError(f"{what}: {place} has no option {part}{meant}")
        if done < len(parts):
            config = known[part]
    if isinstance(known[last], tuple) and isinstance(value, list):
        # Files have no tuples.
        value = tuple(value)
    if isinstance(config, dict):
        config[last] = value
    else:
        setattr(config, last, value)
