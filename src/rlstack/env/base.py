"""The environment contract, and its check at the border of the library."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NoReturn, TypeAlias

import torch
from tensordict import TensorDict
from torch import Tensor

from .. import specs
from ..common.errors import EnvError
from ..common.serialization import detached
from ..common.types import OBS, REWARDS, Batch, Config, Device
from ..common.validation import did_you_mean, is_number
from ..spec_json import differences
from .ending import Ending, read_ending
from .faults import faults_of
from .unread import unread_keys

SPECS = ("observation_spec", "action_spec")
"""The attributes that say what an environment returns and takes."""

_MANY = 1024
"""So large a first dimension, the same as the number of simulations, is no part of an observation."""


class Env(ABC):
    """Many simulations, stepped together, and all reset at the same time.

    Episodes of single simulations may end in between: `step` says so then, and begins their next ones.

    Draw random numbers from torch's generators, and everything about a run follows from its seed.

    An environment that isn't reset in every `collect` should have `state_dict`, which returns its state as
    tensors and plain values, and `load_state_dict`, which takes it over: a run can be resumed exactly then.

    It may have `metrics() -> Mapping[str, Tensor | float]`, numbers and tensors of one without dimensions:
    asked once after each horizon, they are the statistics `env/<name>`. NaN is none for now.

    It may have `set_config(config)`, which changes options without a reset: called, also before the first
    reset, with an `env_config` that isn't the one in force, where no reset brings it.

    It may compute with gradients of its own: what it returns is taken without them, and so are its actions.

    Args:
        num_envs: How many simulations, B.
        config: The environment's own options.
        device: Where to simulate.
    """

    observation_spec: specs.TensorSpec
    """Of one simulation, without the batch dimension."""
    action_spec: specs.TensorSpec
    """Of one simulation, without the batch dimension."""
    max_horizon: int | None = None
    """Most steps that make sense between two resets; None if there is no such bound."""
    policy_keys: Sequence[str] | None = None
    """Keys of Composite observations that a default model's policy sees, "a.b" if nested, unless
    `model_config` says otherwise; None is all."""
    value_keys: Sequence[str] | None = None
    """Keys that its values are made from."""

    def __init__(self, num_envs: int, /, *, config: Config | None = None, device: Device = "cpu") -> None:
        self.num_envs = num_envs
        self.config: dict[str, Any] = config.copy() if isinstance(config, dict) else dict(config or {})
        self.device = torch.device(device)

    @abstractmethod
    def reset(self, *, config: Config | None = None) -> Batch:
        """Start all simulations anew and return their observations, [B, ...].

        Args:
            config: Options that change from now on; None leaves them as they are.
        """

    @abstractmethod
    def step(self, action: Any) -> TensorDict:
        """Simulate one step of all simulations.

        Args:
            action: [B, *A]. One action for each.

        Returns:
            A TensorDict with `obs` [B, ...] and `rewards` [B, 1]. Where episodes end, also, in every step:
            `terminated` [B, 1] and `truncated` [B, 1], bool: whose episode has come to its end, or was broken
            off, by a time limit for example; `obs` is already the first of their next one. `final_obs`
            [B, ...]: observations after the step, before those rows were put back; the other rows may hold
            anything. `valid` [B, 1], bool: False where the action was ignored; such rows count for nothing.
        """


EnvFactory: TypeAlias = Callable[..., Any]
"""An Env class, or any callable with its signature."""


def resolve_config(defaults: Mapping[str, float], config: Config | None, name: str) -> dict[str, float]:
    """Return an environment's options: the defaults, changed by those in `config`.

    Raises:
        EnvError: If an option is unknown or no number.
    """
    for key, value in (config or {}).items():
        if key not in defaults:
            raise EnvError(f"env_config.{key} is not an option of {name}{did_you_mean(key, defaults)}")
        if not is_number(value):
            raise EnvError(f"env_config.{key} of {name} is {value!r}, expected a number")
    return {**defaults, **(config or {})}


def make_env(factory: EnvFactory, num_envs: int, config: Config | None, device: torch.device) -> Any:
    """Return an environment whose specs have been checked.

    Raises:
        EnvError: If its specs are missing or such that rlstack can't store them.
    """
    if not callable(factory):
        raise EnvError(
            f"the environment is {factory!r}, expected a class derived from Env, or a function like it"
        )
    with faults_of(getattr(factory, "__name__", repr(factory))):
        env = factory(num_envs, config=config, device=device)
    name = type(env).__name__
    for attribute in SPECS:
        spec = getattr(env, attribute, None)
        if spec is None:
            raise EnvError(f"{name} has no {attribute}: set self.{attribute} in {name}.__init__")
        try:
            specs.check_spec(spec, f"{name}.{attribute}")
        except (TypeError, ValueError) as error:
            raise EnvError(str(error)) from None
        if num_envs >= _MANY and specs.has_batch(spec, num_envs):
            refuse_batch(name, *next(specs.leaves(spec, (attribute,))))
    max_horizon = getattr(env, "max_horizon", None)
    if max_horizon is not None and (type(max_horizon) is not int or max_horizon < 1):
        raise EnvError(f"{name}.max_horizon is {max_horizon!r}, expected a positive integer, or None")
    return env


def refuse_batch(env: str, path: tuple[str, ...], leaf: specs.TensorSpec) -> NoReturn:
    """Refuse a spec whose first dimension counts an environment's simulations."""
    raise EnvError(
        f"{env}.{'.'.join(path)} has shape {list(leaf.shape)}, where the first dimension counts simulations: "
        f"specs have no batch dimension, make it with shape={tuple(leaf.shape[1:]) or (1,)}"
    )


def refuse_change(env: Any, name: str, before: specs.TensorSpec) -> NoReturn:
    """Refuse a spec that isn't what it was, with what differs."""
    now = getattr(env, name, None)
    what, was, is_ = name, str(before), str(now)
    if isinstance(now, specs.TensorSpec):
        what, was, is_ = next(differences(name, before, now), (what, was, is_))
    raise EnvError(
        f"{type(env).__name__}.{what} is {is_} now, it was {was} when the environment was made: let it stay, "
        "and make a new algorithm for another one"
    )


def checked_reset(
    env: Any,
    num_envs: int,
    config: Config | None,
    device: torch.device,
    *,
    spec: specs.TensorSpec | None = None,
) -> Batch:
    """Return the observations [B, ...] after a reset, their form checked.

    Args:
        env: The environment.
        num_envs: B.
        config: Options that change from now on.
        device: Where the observations must be.
        spec: What one observation must be; None takes the environment's word for it.

    Raises:
        EnvError: If they don't fit the specs.
    """
    with faults_of(f"{type(env).__name__}.reset"):
        obs = env.reset(config=config)
    _check_obs(env, obs, num_envs, "reset", device, spec)
    return detached(obs)


def checked_step(
    env: Any,
    num_envs: int,
    action: Batch,
    step: int,
    device: torch.device,
    *,
    spec: specs.TensorSpec | None = None,
    notice: Callable[[str], object] | None = None,
) -> tuple[Batch, Tensor, Ending | None]:
    """Return the observations [B, ...] and rewards [B, 1] after a step, and what it says of endings.

    Their form is checked.

    Args:
        env: The environment.
        num_envs: B.
        action: [B, *A].
        step: Which step of the horizon this is, for the error.
        device: Where observations and rewards must be.
        spec: What one observation must be; None takes the environment's word for it.
        notice: Takes in a sentence what else the environment returns; None doesn't look.

    Raises:
        EnvError: If they don't fit the specs, or the environment raised an error.
    """
    name, where = type(env).__name__, f"step (step {step} of the horizon)"
    try:
        with faults_of(f"{name}.{where}"):
            out = env.step(detached(action))
        try:
            if isinstance(out, Tensor):
                raise TypeError
            obs, rewards = out[OBS], out[REWARDS]
        except (KeyError, TypeError, IndexError):
            raise EnvError(
                f'{name}.step returned {_contents(out)}, expected a TensorDict with "{OBS}" and "{REWARDS}"'
            ) from None
        _check_obs(env, obs, num_envs, where, device, spec)
        number = _reward_spec(torch.get_default_dtype())
        if problem := specs.mismatch(rewards, number, num_envs, REWARDS, device):
            raise EnvError(f"{name}.{where}: {problem}")
        ending = read_ending(out, f"{name}.{where}", num_envs, device, spec or env.observation_spec)
        if notice is not None and (said := unread_keys(out, name)):
            notice(said)
        return detached(obs), detached(rewards), ending
    except EnvError as error:
        if hint := _batch_hint(env, num_envs):
            raise EnvError(f"{error}; {hint}") from error
        raise


def _batch_hint(env: Any, num_envs: int) -> str | None:
    """Return what to do if actions have a dimension too many, where that may be."""
    for path, leaf in specs.leaves(getattr(env, "action_spec", None), ("action_spec",)):
        if num_envs > 1 and isinstance(leaf, specs.TensorSpec) and leaf.shape[:1] == (num_envs,):
            return (
                f"if the {num_envs} in the shape {list(leaf.shape)} of {'.'.join(path)} counts simulations, "
                "leave it out: specs have no batch dimension"
            )
    return None


def _check_obs(
    env: Any, obs: Batch, num_envs: int, where: str, device: torch.device, spec: specs.TensorSpec | None
) -> None:
    expected = env.observation_spec if spec is None else spec
    if problem := specs.mismatch(obs, expected, num_envs, OBS, device):
        if getattr(env, "observation_spec", None) != expected:
            refuse_change(env, "observation_spec", expected)
        raise EnvError(f"{type(env).__name__}.{where}: {problem}")


@cache
def _reward_spec(dtype: torch.dtype) -> specs.TensorSpec:
    return specs.Unbounded((1,), dtype=dtype)


def _contents(out: object) -> str:
    keys = f" with the keys {sorted(out.keys())}" if isinstance(out, Mapping | TensorDict) else ""
    return f"a {type(out).__name__}{keys}"


def most_steps(env: Any, steps: int) -> int:
    """Return how many of so many steps may be taken after a reset."""
    return min(steps, getattr(env, "max_horizon", None) or steps)
