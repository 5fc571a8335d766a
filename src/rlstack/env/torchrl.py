"""Environments of TorchRL: any batched `EnvBase`, whose specs are rlstack's already."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn.functional import one_hot

from .. import specs
from ..common.errors import EnvError
from ..common.types import OBS, REWARDS, Batch, Config, Device
from ..common.validation import did_you_mean
from .base import SPECS, Env
from .ending import FINAL_OBS, TERMINATED, TRUNCATED
from .foreign import draw_seed

Key = tuple[str, ...]


def from_torchrl(
    factory: Callable[..., Any], /, *, observations: Sequence[str] | None = None, **options: Any
) -> type[Env]:
    """Return the environment class of what a function makes: environments of TorchRL.

    Args:
        factory: `factory(num_envs, device, **options)` returns an `EnvBase` of batch size [num_envs], or one
            without batch size that takes batches of any (`batch_locked=False`).
        observations: Keys of the observations that are taken, with dots where they are nested, and what is
            below them; all by default. A single one is a tensor, several are a TensorDict.
        options: What the function takes beside. They are the defaults of `env_config`.

    Raises:
        EnvError: If the function takes no such options.
    """
    name = getattr(factory, "__name__", type(factory).__name__)
    members = {
        "__module__": __name__,
        "factory": staticmethod(factory),
        "observations": None if observations is None else list(observations),
        "defaults": _checked(factory, options),
    }
    return type(name if name.isidentifier() else "TorchRLEnv", (_TorchRL,), members)


class _TorchRL(Env):
    """A batched environment of TorchRL; rows whose episodes end are put back by its own partial resets.

    Args:
        num_envs: How many simulations.
        config: Options of the function that makes it.
        device: Where it simulates.
    """

    factory: ClassVar[Callable[..., Any]]
    """Makes it."""
    observations: ClassVar[list[str] | None]
    """Keys of the observations that are taken; None takes all."""
    defaults: ClassVar[Mapping[str, Any]]
    """Options and their default values."""

    def __init__(self, num_envs: int, /, *, config: Config | None = None, device: Device = "cpu") -> None:
        super().__init__(num_envs, config=config, device=device)
        self.config = {**self.defaults, **_checked(type(self).factory, config or {})}
        self._open()

    def reset(self, *, config: Config | None = None) -> Batch:
        """Start all simulations anew and return their observations, [B, ...]."""
        changed = {**self.config, **_checked(type(self).factory, config or {})}
        if changed != self.config:
            self._open_again(changed, config or {})
        self._env.set_seed(draw_seed())
        # Without a batch size of its own it takes that of what it is handed.
        free = None if self._env.batch_size else TensorDict({}, [self.num_envs], device=self._env.device)
        self._now = self._env.reset(free)
        return self._obs(self._now)

    def step(self, action: Batch) -> TensorDict:
        """Take one step of all simulations under actions [B, *A]; those whose episodes end start anew."""
        for key, leaf in self._actions.items():
            part = action if isinstance(action, Tensor) else action[key]
            self._now[key] = _as_torchrl(part, leaf, self.num_envs)
        after, self._now = self._env.step_and_maybe_reset(self._now)
        said = after["next"]
        terminated, done = said["terminated"], said["done"]
        content = {
            OBS: self._obs(self._now),
            REWARDS: said[self._env.reward_key].to(self.device, torch.get_default_dtype(), copy=True),
            TERMINATED: terminated.to(self.device, copy=True),
            TRUNCATED: (done & ~terminated).to(self.device),
        }
        if self._has_final_obs:
            content[FINAL_OBS] = self._obs(said)
        return TensorDict(content, batch_size=self.num_envs)

    def _open(self) -> None:
        """Make the environment and take its specs over."""
        name = type(self).__name__
        env = type(self).factory(self.num_envs, self.device, **self.config)
        size = tuple(getattr(env, "batch_size", ("?",)))
        if size != (self.num_envs,) and (size or env.batch_locked):
            raise EnvError(
                f"{name} has batch size {list(size)}, expected [{self.num_envs}]: make it with "
                f"batch_size=[num_envs]"
            )
        if set(env.done_keys) - {"done", "terminated", "truncated"} or len(env.reward_keys) != 1:
            raise EnvError(
                f"{name} has the done keys {env.done_keys} and the reward keys {env.reward_keys}, expected "
                "done, terminated and truncated at the top, and one reward: rlstack trains one agent"
            )
        if env.full_reward_spec_unbatched[env.reward_key].shape.numel() != 1:
            raise EnvError(f"{name} has several rewards in a step, expected one number: sum them")
        self._env = env
        found = dict(specs.leaves(env.full_observation_spec_unbatched))
        self._keys = _selected(found, self.observations, name)
        self._actions = dict(specs.leaves(env.full_action_spec_unbatched))
        # Environments that put rows back themselves have no last observations to tell.
        self._has_final_obs = not getattr(env, "_torchrl_native_autoreset", False)
        self.observation_spec = _spec({key: _obs_spec(found[key]) for key in self._keys}, self.device)
        self.action_spec = _spec(
            {key: _action_spec(leaf) for key, leaf in self._actions.items()}, self.device
        )

    def _open_again(self, options: dict[str, Any], said: Config) -> None:
        """Make the environment with these options; if that can't be, it stays what it was.

        Raises:
            EnvError: If it can't, or specs would change.
        """
        before = dict(vars(self))
        self.config = options
        try:
            self._open()
            if any(before[name] != getattr(self, name) for name in SPECS):
                raise EnvError(
                    f"{type(self).__name__} can't change its observations or actions at a reset, by "
                    f"{', '.join(said)}: make a new environment with these options"
                )
        except BaseException:
            vars(self).update(before)
            raise

    def _obs(self, said: Any) -> Batch:
        """Return a copy of observations, [B, ...], of the form of their specs."""
        parts = {}
        for key in self._keys:
            part = said[key].to(self.device, copy=True)
            part = part.float() if part.is_floating_point() else part
            parts[key] = part.unsqueeze(-1) if part.dim() == 1 else part
        if len(parts) == 1:
            return next(iter(parts.values()))
        batch = TensorDict({}, batch_size=self.num_envs)
        for key, part in parts.items():
            batch[key] = part
        return batch


def _checked(factory: Callable[..., Any], options: Config) -> dict[str, Any]:
    """Return options that a function takes after the number of simulations and the device.

    Raises:
        EnvError: If it doesn't.
    """
    # The signature of a class of TorchRL's is that of its metaclass.
    callee, before = (factory.__init__, 3) if inspect.isclass(factory) else (factory, 2)
    others = [*inspect.signature(callee).parameters.values()][before:]
    known = [one.name for one in others if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if not any(one.kind is one.VAR_KEYWORD for one in others):
        for key in options:
            if key not in known:
                name = getattr(factory, "__name__", repr(factory))
                meant = did_you_mean(key, known) if known else ", which takes none"
                raise EnvError(f"env_config.{key} is not an option of {name}{meant}")
    return dict(options)


def _selected(found: Mapping[Key, Any], asked: Sequence[str] | None, name: str) -> list[Key]:
    """Return the keys of the observations that are taken.

    Raises:
        EnvError: If there are none of a name that was asked for.
    """
    if asked is None:
        return list(found)
    chosen = []
    for one in asked:
        path = tuple(one.split("."))
        below = [key for key in found if key[: len(path)] == path]
        if not below:
            raise EnvError(
                f"{one} is not an observation of {name}{did_you_mean(one, ('.'.join(key) for key in found))}"
            )
        chosen += [key for key in below if key not in chosen]
    return chosen


def _spec(parts: Mapping[Key, specs.TensorSpec], device: torch.device) -> specs.TensorSpec:
    """Return a single spec as it is, several as a Composite."""
    if len(parts) == 1:
        return next(iter(parts.values())).to(device)
    made = specs.Composite()
    for key, leaf in parts.items():
        made[key] = leaf
    return made.to(device)


def _obs_spec(leaf: specs.TensorSpec) -> specs.TensorSpec:
    """Return an observation's spec with a dimension at least, real numbers as float32."""
    leaf = leaf.to(torch.float32) if leaf.dtype.is_floating_point else leaf
    return leaf if leaf.shape else leaf.unsqueeze(-1)


def _action_spec(leaf: specs.TensorSpec) -> specs.TensorSpec:
    """Return an action's spec with a dimension at least; one of several choices is its number."""
    if isinstance(leaf, specs.OneHot):
        return specs.Categorical(leaf.space.n, shape=(*leaf.shape[:-1],) or (1,), device=leaf.device)
    leaf = leaf.to(torch.float32) if leaf.dtype.is_floating_point else leaf
    return leaf if leaf.shape else leaf.unsqueeze(-1)


def _as_torchrl(action: Tensor, leaf: specs.TensorSpec, num_envs: int) -> Tensor:
    """Return actions of the form that the environment's own spec has."""
    if isinstance(leaf, specs.OneHot):
        action = one_hot(action, leaf.space.n)
    return action.reshape(num_envs, *leaf.shape).to(leaf.dtype)
