"""Simulators of the form that rsl_rl takes, VecEnv: mjlab, Isaac Lab, Genesis, Playground, legged_gym's kin.

How to use each is told in docs/simulators/vec_env.md.
"""

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from ...common.errors import EnvError, HparamsError
from ...common.serialization import same
from ...common.types import OBS, REWARDS, Batch, Config, Device
from ...common.validation import check_options, did_you_mean
from ...specs import TensorSpec, Unbounded
from ..base import Env
from ..ending import FINAL_OBS, TERMINATED, TRUNCATED
from ..foreign import Held, device_name, draw_seed, prints_aside, torch_as_before
from .form import (
    Said,
    check_puts_back,
    check_values,
    column,
    final_groups,
    num_actions,
    observed_now,
    option_of,
    owned,
    read_obs,
    read_step,
    spec_of,
    spread_ages,
    who_sees,
)
from .log_means import LogMeans

_ANY_TIME = ("clip_actions", "init_at_random_ep_len")
"""Options that may change at a reset."""

_OWN = ("obs_groups", *_ANY_TIME)
"""Options that the adapter reads itself; all others are the factory's."""


class _VecEnv(Env):
    """A simulator of the form of rsl_rl's VecEnv; `from_vec_env` makes the classes that are used."""

    factory: ClassVar[Callable[..., Any]]
    """Makes the simulator: `factory(num_envs, device=…, **options)`."""
    defaults: ClassVar[Mapping[str, Any]]
    """Options and their default values."""
    cuda_only: ClassVar[bool] = False
    """Whether the simulator runs on a GPU alone."""

    def __init__(self, num_envs: int, /, *, config: Config | None = None, device: Device = "cpu") -> None:
        super().__init__(num_envs, config=config, device=device)
        self._name = type(self).__name__
        self.config = {**self.defaults, **(config or {})}
        self._check_config()
        self._held = Held(self._make())
        self._begun = self._stepped = False
        self._tells_final: bool | None = None
        """Whether a step says the last observations of rows that ended; None before the first."""
        self._metrics = LogMeans(self._name)
        groups = observed_now(self.simulator, self._name)
        policy, value = who_sees(groups, self.config["obs_groups"], self._name)
        self._groups = list(dict.fromkeys([*policy, *value]))
        if len(self._groups) > 1:
            self.policy_keys, self.value_keys = policy, value
        self.observation_spec: TensorSpec = spec_of(self._obs(groups, "get_observations"))
        # Unbounded although they are clipped, as rsl_rl has it: recipes mean a normal distribution in the
        # simulator's own units, and limits of 100 are no range to explore.
        self.action_spec: TensorSpec = Unbounded(
            (num_actions(self.simulator, self._name),), device=self.device
        )

    @property
    def simulator(self) -> Any:
        """The object that the factory returned."""
        return self._held.value

    @torch.no_grad()
    def reset(self, *, config: Config | None = None) -> Batch:
        """Start all simulations anew and return their observations, [B, ...].

        Raises:
            EnvError: If it can't be put back, or an option changes that the simulator was made with.
        """
        self._change(config)
        env = self.simulator
        # Some keep the number there that they were made with.
        if callable(getattr(env, "seed", None)):
            with torch_as_before(self.device), prints_aside():
                env.seed(draw_seed())
        with prints_aside():
            obs = self._obs(self._put_back(env), "reset")
        if not self._begun and self.config["init_at_random_ep_len"]:
            spread_ages(env, self._name)
        self._begun = True
        self._metrics.forget()
        return obs

    @torch.no_grad()
    def step(self, action: Tensor) -> TensorDict:
        """Simulate one step under actions [B, num_actions]; rows whose episodes end start anew."""
        env, most = self.simulator, self.config["clip_actions"]
        # A copy in any case: the simulator may write into it, or read it later.
        action = action.clone() if most is None else action.clamp(-most, most)
        # It may compile in its first step, and say so.
        with contextlib.nullcontext() if self._stepped else prints_aside():
            said = read_step(env.step(action), f"{self._name}.step")
        self._stepped = True
        # Copies, before the simulator writes into its buffers again.
        where, shape = f"{self._name}.step", (self.num_envs, self.device)
        rewards = column(said.rewards, f"{where}: rewards", *shape, torch.get_default_dtype())
        dones = column(said.dones, f"{where}: dones", *shape, torch.bool)
        time_outs = said.extras.get("time_outs")
        truncated = torch.zeros_like(dones)
        if time_outs is not None:
            # Of rows that haven't ended they may be old.
            truncated = dones & column(time_outs, f"{where}: time_outs", *shape, torch.bool)
        obs = self._obs(said.groups, "step")
        ending = {TERMINATED: dones & ~truncated, TRUNCATED: truncated}
        self._gather(said.extras)
        if option_of(env, "auto_reset") is False:
            # As mjlab has it: rows that ended stay as they are until somebody puts them back.
            ending[FINAL_OBS] = obs
            obs = self._put_rows_back(env, dones, obs, said.extras)
        elif self._says_final(env, said):
            final = final_groups(said, dones, where)
            ending[FINAL_OBS] = obs if final is None else self._obs(final, FINAL_OBS)
        return TensorDict({OBS: obs, REWARDS: rewards, **ending}, self.num_envs)

    def metrics(self) -> dict[str, Any]:
        """Return the means of what the simulator has logged since the last time."""
        return self._metrics.take()

    def _check_config(self) -> None:
        """Refuse options that nobody takes, and a device that the simulator can't use.

        Raises:
            EnvError: If there are any.
        """
        if self.cuda_only and self.device.type != "cuda":
            raise EnvError(f"{self._name} needs a GPU: device is {self.device}, expected cuda")
        check_values(self.config)
        options = {key: value for key, value in self.config.items() if key not in _OWN}
        try:
            check_options(options, self.factory, "env_config", by_position=1)
        except HparamsError as error:
            raise EnvError(str(error)) from None

    def _make(self) -> Any:
        """Return the simulator.

        Raises:
            EnvError: If it has another number of simulations.
        """
        options = {key: value for key, value in self.config.items() if key not in _OWN}
        if "seed" in signature(self.factory).parameters and options.get("seed") is None:
            options["seed"] = draw_seed()
        with torch_as_before(self.device), prints_aside():
            env = type(self).factory(self.num_envs, device=device_name(self.device), **options)
        made = getattr(env, "num_envs", self.num_envs)
        if made != self.num_envs:
            raise EnvError(
                f"{self._name}: the factory made {made} simulations, expected {self.num_envs}: let it hand "
                "num_envs on"
            )
        check_puts_back(env, self._name)
        return env

    def _change(self, config: Config | None) -> None:
        """Take over options that may change at a reset.

        Raises:
            EnvError: If others do.
        """
        for key, value in (config or {}).items():
            if key not in self.config:
                raise EnvError(
                    f"env_config.{key} is not an option of {self._name}{did_you_mean(key, self.config)}"
                )
            if key not in _ANY_TIME and not same(value, self.config[key]):
                raise EnvError(
                    f"env_config.{key} of {self._name} is {self.config[key]!r} and can't be changed: the "
                    "simulator was made with it, make a new algorithm for another one"
                )
        self.config = {**self.config, **(config or {})}
        self._check_config()

    def _put_back(self, env: Any) -> dict[str, Any]:
        """Put all simulations back and return their observations by group."""
        if not callable(getattr(env, "reset", None)):
            if self._begun:
                raise EnvError(
                    f"{self._name} can't be put back: {type(env).__name__} has no reset; with "
                    "horizons_per_env_reset=-1 it is asked for one at the beginning only"
                )
            return observed_now(env, self._name)
        groups = read_obs(env.reset())
        return groups if all(name in groups for name in self._groups) else observed_now(env, self._name)

    def _put_rows_back(self, env: Any, dones: Tensor, obs: Batch, extras: Mapping[str, Any]) -> Batch:
        """Put rows back that have ended; return observations, the first of their next episodes in those."""
        rows = dones.squeeze(-1).nonzero().squeeze(-1)
        if len(rows) == 0:
            return obs
        said = getattr(env, "unwrapped", env).reset(env_ids=rows)
        self._gather(extras)
        begun, obs = self._obs(read_obs(said), "reset"), obs.clone()
        obs[rows] = begun[rows]
        return obs

    def _says_final(self, env: Any, said: Said) -> bool:
        """Return whether a step says the last observations of rows that ended."""
        if self._tells_final is None:
            self._tells_final = option_of(env, "compute_final_obs") is True or FINAL_OBS in said.extras
        return self._tells_final

    def _gather(self, extras: Mapping[str, Any]) -> None:
        for kind in ("log", "episode"):
            self._metrics.add(kind, extras.get(kind))

    def _obs(self, groups: Mapping[str, Any], where: str) -> Batch:
        """Return copies of the groups that somebody sees: a TensorDict, or the tensor if there is but one.

        Raises:
            EnvError: If one is missing.
        """
        for name in self._groups:
            if name not in groups:
                raise EnvError(f"{self._name}.{where} returned no group {name}, it was there at first")
        seen = {name: owned(groups[name], self.num_envs, self.device) for name in self._groups}
        return seen[self._groups[0]] if len(seen) == 1 else TensorDict(seen, self.num_envs)


def from_vec_env(
    factory: Callable[..., Any],
    /,
    *,
    name: str | None = None,
    obs_groups: Mapping[str, Sequence[str]] | None = None,
    clip_actions: float | None = None,
    init_at_random_ep_len: bool = True,
    cuda_only: bool = False,
    **options: Any,
) -> type[Env]:
    """Return an environment class for a simulator of the form of rsl_rl's VecEnv, of any generation.

    Episodes end by themselves: `horizons_per_env_reset=-1` is its natural setting. It can also be used as a
    decorator of the factory. All options but `name` and `cuda_only` are in `env_config`, too.

    Args:
        factory: `factory(num_envs, device=…, **options)` returns the simulator; `device` is "cpu" or
            "cuda:0". If it has an argument `seed`, that is a number drawn by torch.
        name: Of the class; None takes the factory's.
        obs_groups: Names of observation groups for `actor` and `critic`, as in rsl_rl; None takes the groups
            that are called as in `form.POLICY_GROUPS` and `VALUE_GROUPS`.
        clip_actions: Actions are clipped to ± this on their way to the simulator; None leaves them.
        init_at_random_ep_len: Whether episodes are of random ages after the first reset.
        cuda_only: Whether to refuse any device but a GPU.
        options: Default values of the factory's options.
    """
    own = dict(zip(_OWN, (obs_groups, clip_actions, init_at_random_ep_len), strict=True))
    # Whoever gives the class a name there finds it by that again.
    module = sys._getframe(1).f_globals.get("__name__", __name__)
    called = name or str(getattr(factory, "__name__", type(factory).__name__))
    return make_class(factory, called, {**own, **options}, module=module, cuda_only=cuda_only)


def make_class(
    factory: Callable[..., Any], name: str, options: Mapping[str, Any], *, module: str, **attributes: Any
) -> type[Env]:
    """Return a class, as `from_vec_env` does.

    Args:
        factory: Makes the simulator.
        name: Of the class.
        options: Their default values; those of the adapter's that are left out have its own.
        module: In which it is.
        attributes: Others of the class.
    """
    own = {"obs_groups": None, "clip_actions": None, "init_at_random_ep_len": True}
    made = {"factory": staticmethod(factory), "defaults": {**own, **options}, "__doc__": factory.__doc__}
    return type(name, (_VecEnv,), {**made, "__module__": module, **attributes})
