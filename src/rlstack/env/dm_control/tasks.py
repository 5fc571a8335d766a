"""Tasks of DM Control's suite by name, `dm:cheetah-run`, many instances in worker processes.

The tasks are dm_control's own: its observations, rewards, terminations and time limits (Tassa et al. 2018,
https://arxiv.org/abs/1801.00690), simulated by itself.
"""

import warnings
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from ...common.device import cores
from ...common.errors import EnvError
from ...common.types import OBS, REWARDS, Batch, Config, Device
from ...common.validation import did_you_mean
from ...specs import Bounded, Composite, TensorSpec, Unbounded
from ..base import Env
from ..ending import FINAL_OBS, TERMINATED, TRUNCATED
from ..foreign import draw_seed
from ..simulators import needed, unknown
from .worker_processes import Workers

_WORKER = Path(__file__).with_name("tasks_worker.py")

_UNLIMITED = 1e10
"""What dm_control says of an action that has no bound."""

_DEFAULTS: dict[str, Any] = {
    "time_limit": None,
    "task_kwargs": None,
    "environment_kwargs": None,
    "flatten": True,
    "processes": None,
}


def make(name: str, /, **options: Any) -> type[Env]:
    """Return the environment class of a task of DM Control's suite.

    Args:
        name: `domain-task`, `cheetah-run` for example.
        options: `time_limit`, seconds until an episode is broken off, the task's own by default, infinity for
            never; `task_kwargs` and `environment_kwargs` as `dm_control.suite.load` takes them; `flatten`,
            True for observations [B, N], False for a TensorDict of their parts; `processes`, as many as there
            are cores by default. They are the defaults of `env_config`.

    Raises:
        EnvError: If dm_control is missing, or there is no such task or option.
    """
    full = f"dm:{name}"
    with warnings.catch_warnings():
        # It looks for a screen and says that there is none.
        warnings.simplefilter("ignore")
        suite = needed("dm_control.suite", "'rlstack[dm-control]'", full)
    tasks = {f"{domain}-{task}": (domain, task) for domain, task in suite.ALL_TASKS}
    if name not in tasks:
        raise unknown(full, "a task of DM Control's suite", [f"dm:{task}" for task in tasks])
    domain, task = tasks[name]
    defaults = _changed(_DEFAULTS, options, name)
    members = {
        "simulator_name": full,
        "simulator_options": dict(options),
        "defaults": defaults,
        "domain": domain,
        "task": task,
    }
    return type(name, (_DMControl,), {"__module__": __name__, **members})


class _DMControl(Env):
    """One task of DM Control's suite, each instance in a worker process that has a part of them.

    Args:
        num_envs: How many instances.
        config: Options as of `make`.
        device: Where observations and rewards go to; the simulation is the CPU's.
    """

    simulator_name: ClassVar[str]
    """As the command line takes it."""
    defaults: ClassVar[Mapping[str, Any]]
    """Options and their default values."""
    domain: ClassVar[str]
    """Of the task."""
    task: ClassVar[str]
    """Its name in the domain."""

    def __init__(self, num_envs: int, /, *, config: Config | None = None, device: Device = "cpu") -> None:
        super().__init__(num_envs, config=config, device=device)
        self.config = _changed(self.defaults, config, type(self).__name__)
        self._open()

    def reset(self, *, config: Config | None = None) -> Batch:
        """Start all instances anew and return their observations, [B, ...]."""
        changed = _changed(self.config, config, type(self).__name__)
        if changed != self.config or not self._workers.pids:
            self._open_again(changed, config or {})
        self._workers.call("reset", draw_seed())
        return self._obs(OBS)

    def step(self, action: Tensor) -> TensorDict:
        """Take one step of all instances under actions [B, A]; those whose episodes end start anew."""
        self._arrays["actions"][:] = action.cpu().numpy()
        self._workers.step()
        said = {TERMINATED: self._flags(TERMINATED), TRUNCATED: self._flags(TRUNCATED)}
        rewards = torch.from_numpy(self._arrays[REWARDS]).unsqueeze(-1)
        return TensorDict(
            {
                OBS: self._obs(OBS),
                REWARDS: rewards.to(self.device, torch.get_default_dtype(), copy=True),
                FINAL_OBS: self._obs(FINAL_OBS),
                **said,
            },
            batch_size=self.num_envs,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the options, and the physics, model, step and random state of each instance."""
        fields = sorted({name for part in self._workers.call("changed_fields") for name in part})
        parts = self._workers.call("state", fields)
        [first, *_] = parts
        joined = {name: _joined(part[name] for part in parts) for name in first if name != "model"}
        model = {name: _joined(part["model"][name] for part in parts) for name in fields}
        return {"config": self.config, **joined, "model": model}

    def load_state_dict(self, state: Config) -> None:
        """Take over what `state_dict` returned."""
        if state["config"] != self.config or not self._workers.pids:
            self.config = dict(state["config"])
            self._open()
        arrays = {name: value.numpy() for name, value in state.items() if isinstance(value, Tensor)}
        model = {name: value.numpy() for name, value in state["model"].items()}
        self._workers.call_each(
            "load_state",
            [
                (
                    {
                        **{name: value[rows.start : rows.stop] for name, value in arrays.items()},
                        "model": {name: value[rows.start : rows.stop] for name, value in model.items()},
                    },
                )
                for rows in self._workers.rows
            ],
        )

    def close(self) -> None:
        """End the worker processes; a reset starts new ones."""
        self._workers.close()

    def _open(self) -> None:
        """Start worker processes that have the task as the options say, and take specs from what they say."""
        name, options = type(self).__name__, self.config
        task_kwargs = dict(options["task_kwargs"] or {})
        if options["time_limit"] is not None:
            task_kwargs["time_limit"] = options["time_limit"]
        arguments = {
            "domain": self.domain,
            "task": self.task,
            "seed": draw_seed(),
            "task_kwargs": task_kwargs,
            "environment_kwargs": dict(options["environment_kwargs"] or {}),
        }
        processes = min(self.num_envs, options["processes"] or cores())
        self._workers = Workers(name, _WORKER, self.num_envs, processes, arguments)
        said = self._workers.descriptions[0]
        self._parts: dict[str, tuple[int, ...]] = said["obs"]
        size, count = sum(prod(shape) for shape in self._parts.values()), self.num_envs
        self._arrays = self._workers.share(
            {
                "actions": (np.float64, (count, len(said["low"]))),
                OBS: (np.float32, (count, size)),
                FINAL_OBS: (np.float32, (count, size)),
                REWARDS: (np.float64, (count,)),
                TERMINATED: (np.bool_, (count,)),
                TRUNCATED: (np.bool_, (count,)),
            }
        )
        self.action_spec = _action_spec(said["low"], said["high"], self.device)
        if options["flatten"]:
            self.observation_spec: TensorSpec = Unbounded((size,), device=self.device, dtype=torch.float32)
        else:
            self.observation_spec = Composite(
                {
                    key: Unbounded(shape or (1,), device=self.device, dtype=torch.float32)
                    for key, shape in self._parts.items()
                }
            )

    def _open_again(self, options: dict[str, Any], said: Config) -> None:
        """Start new worker processes with these options; if that can't be, a reset starts some as before.

        Raises:
            EnvError: If it can't, or specs would change.
        """
        before = self.config, self.observation_spec, self.action_spec
        self._workers.close()
        self.config = options
        try:
            self._open()
            if before[1:] != (self.observation_spec, self.action_spec):
                raise EnvError(
                    f"{type(self).__name__} can't change its observations or actions at a reset, by "
                    f"{', '.join(said)}: make a new environment with these options"
                )
        except BaseException:
            self._workers.close()
            self.config, self.observation_spec, self.action_spec = before
            raise

    def _obs(self, name: str) -> Batch:
        """Return a copy of observations in shared memory, on the device."""
        flat = torch.from_numpy(self._arrays[name]).to(self.device, copy=True)
        if self.config["flatten"]:
            return flat
        parts = flat.split([prod(shape) for shape in self._parts.values()], -1)
        content = {
            key: part.reshape(-1, *(shape or (1,)))
            for (key, shape), part in zip(self._parts.items(), parts, strict=True)
        }
        return TensorDict(content, batch_size=self.num_envs)

    def _flags(self, name: str) -> Tensor:
        return torch.from_numpy(self._arrays[name]).unsqueeze(-1).to(self.device, copy=True)


def _changed(defaults: Mapping[str, Any], config: Config | None, name: str) -> dict[str, Any]:
    """Return options: the defaults, changed by those in `config`.

    Raises:
        EnvError: If there is no such option, or it can't have such a value.
    """
    for key in config or {}:
        if key not in defaults:
            raise EnvError(f"env_config.{key} is not an option of {name}{did_you_mean(key, defaults)}")
    options = {**defaults, **(config or {})}
    processes = options["processes"]
    if processes is not None and (type(processes) is not int or processes < 1):
        raise EnvError(f"env_config.processes of {name} is {processes!r}, expected a whole number above 0")
    return options


def _action_spec(low: list[float], high: list[float], device: torch.device) -> TensorSpec:
    """Return the spec of actions within bounds, or without if one of them has none."""
    if max(map(abs, (*low, *high)), default=0.0) >= _UNLIMITED:
        return Unbounded((len(low),), device=device, dtype=torch.float32)
    bounds = (torch.tensor(bound, dtype=torch.float32, device=device) for bound in (low, high))
    return Bounded(*bounds, dtype=torch.float32, device=device)


def _joined(parts: Any) -> Tensor:
    return torch.from_numpy(np.concatenate(list(parts)))
