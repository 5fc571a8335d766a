"""What simulators of rsl_rl's form return, in any of its generations, as one: observations by groups."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor

from ... import specs
from ...common.errors import EnvError
from ...common.validation import did_you_mean, is_number

_log = logging.getLogger(__name__)

POLICY_GROUPS = ("actor", "policy", "state")
"""What the group that a policy sees is called: by mjlab, by Isaac Lab and Genesis, and by Playground."""

VALUE_GROUPS = ("critic", "privileged_state")
"""What the group that values are made from is called."""

_OLD_POLICY, _OLD_VALUE = "policy", "critic"
"""What the observations are called that have no names of their own."""

_STEP, _OLDEST_STEP = 4, 5
"""How many values a step has; with privileged observations apart it has one more."""


class Said(NamedTuple):
    """What a step says."""

    groups: dict[str, Any]
    """Observations by group: tensors [B, ...], or mappings of them."""
    rewards: Any
    """[B]."""
    dones: Any
    """[B]. Other than 0 where an episode ends."""
    extras: Mapping[str, Any]
    """All else, `time_outs` and `log` for example."""


def read_step(out: Any, where: str) -> Said:
    """Return what a step says, of any generation.

    Since rsl_rl 3 that is a TensorDict of groups, rewards, dones and extras; before, a tensor in place of
    the TensorDict and `extras["observations"]`; at first, privileged observations (or None) as the second
    of five.

    Args:
        out: What it returned.
        where: Which step it was, for errors.

    Raises:
        EnvError: If it is of no such form.
    """
    size = len(out) if isinstance(out, tuple | list) else 0
    if size == _STEP:
        obs, rewards, dones, extras = out
        groups = read_obs((obs, extras))
    elif size == _OLDEST_STEP and (out[1] is None or _is_batch(out[1])):
        obs, privileged, rewards, dones, extras = out
        groups = read_obs((obs, privileged))
    else:
        form = f"{size} values" if size else f"a {type(out).__name__}"
        hint = "; five are Gymnasium's form: put the simulator's own VecEnv class for rsl_rl around it"
        raise EnvError(
            f"{where} returned {form}, expected obs, rewards, dones and extras, as rsl_rl's VecEnv"
            f"{hint if size == _OLDEST_STEP else ''}"
        )
    if not groups or not isinstance(rewards, Tensor) or not isinstance(dones, Tensor):
        raise EnvError(
            f"{where} returned a {type(obs).__name__}, {type(rewards).__name__} and {type(dones).__name__}, "
            "expected observations, rewards and dones as tensors"
        )
    return Said(groups, rewards, dones, extras if isinstance(extras, Mapping) else {})


def read_obs(said: Any) -> dict[str, Any]:
    """Return observations by group, of what a reset returned or is observed now; empty if there are none.

    Args:
        said: A TensorDict or dictionary of groups, a tensor, or a tuple of one of these and extras, or
            privileged observations, or None.
    """
    if not isinstance(said, tuple | list):
        said = (said, None)
    obs, more = said[0], said[1] if len(said) > 1 else None
    if isinstance(obs, TensorDict | Mapping):
        return dict(obs.items())
    if not isinstance(obs, Tensor):
        return {}
    groups: dict[str, Any] = {_OLD_POLICY: obs}
    if isinstance(more, Tensor):
        groups[_OLD_VALUE] = more
    others = more.get("observations") if isinstance(more, Mapping) else None
    if isinstance(others, Mapping):
        # The tensor itself is what is seen; the dictionary may also have it.
        groups = {key: value for key, value in others.items() if value is not None} | groups
    return groups


def final_groups(said: Said, dones: Tensor, where: str) -> dict[str, Any] | None:
    """Return the last observations by group that a step says; None as long as no episode has ended.

    Args:
        said: What the step says.
        dones: [B, 1], bool. Whose episode ends with it.
        where: Which step it was, for errors.

    Raises:
        EnvError: If there are none although an episode has ended.
    """
    final = said.extras.get("final_obs")
    if final is not None:
        return dict(final.items())
    if dones.any():
        raise EnvError(
            f"{where} returned no final_obs where episodes ended, but the simulator's configuration asks for "
            "them: leave compute_final_obs alone, this version doesn't have it"
        )
    return None


def observed_now(env: Any, where: str) -> dict[str, Any]:
    """Return what an object of rsl_rl's form observes now, by group.

    Args:
        env: The object.
        where: What to call it in errors.

    Raises:
        EnvError: If it says nothing of that.
    """
    name = f"{where}: {type(env).__name__}"
    if not callable(getattr(env, "get_observations", None)):
        raise EnvError(f"{name} has no get_observations: make an object of the form of rsl_rl's VecEnv")
    said = env.get_observations()
    privileged = getattr(env, "get_privileged_observations", None)
    if isinstance(said, Tensor) and callable(privileged):
        said = (said, privileged())
    if not (groups := read_obs(said)):
        raise EnvError(
            f"{name}.get_observations returned a {type(said).__name__}, expected a TensorDict of groups, a "
            "tensor, or a tensor and extras"
        )
    return groups


def who_sees(
    groups: Mapping[str, Any], asked: Mapping[str, Sequence[str]] | None, where: str
) -> tuple[list[str], list[str]]:
    """Return the groups that the policy sees, and those that values are made from.

    Args:
        groups: Those that there are.
        asked: Names of groups for `actor` and `critic`; None goes by the names that simulators use.
        where: Whose they are, for errors.

    Raises:
        EnvError: If they can't be told, or there is no such group.
    """
    known, asked = list(groups), dict(asked or {})
    if "policy" in asked:
        # What rsl_rl 3 calls it.
        asked.setdefault("actor", asked.pop("policy"))
    for name, keys in asked.items():
        if name not in ("actor", "critic"):
            raise EnvError(f"{where}: obs_groups.{name} is nobody's{did_you_mean(name, ('actor', 'critic'))}")
        if isinstance(keys, str) or not isinstance(keys, Sequence) or not keys:
            raise EnvError(
                f"{where}: obs_groups.{name} is {keys!r}, expected a list of at least one group: "
                f"{', '.join(known)}"
            )
        for key in keys:
            if key not in known:
                raise EnvError(f"{where}: obs_groups.{name} has {key!r}, no group{did_you_mean(key, known)}")
    policy = list(asked.get("actor", ())) or [name for name in POLICY_GROUPS if name in known][:1]
    if not policy and len(known) == 1:
        policy = known
    if not policy:
        raise EnvError(
            f"{where}: none of the groups {', '.join(known)} is called {', '.join(POLICY_GROUPS)}: say by "
            'obs_groups={"actor": […], "critic": […]} who sees which'
        )
    value = list(asked.get("critic", ())) or [name for name in VALUE_GROUPS if name in known][:1]
    return policy, value or policy


def owned(value: Any, num_envs: int, device: torch.device) -> Any:
    """Return a copy of observations on a device: a tensor [B, ...], or a TensorDict of them.

    Floats become torch's default dtype; a tensor [B] gets a dimension.
    """
    if isinstance(value, Tensor):
        dtype = torch.get_default_dtype() if value.is_floating_point() else value.dtype
        copy = value.detach().to(device, dtype, copy=True)
        return copy.unsqueeze(-1) if copy.dim() == 1 else copy
    return TensorDict({key: owned(part, num_envs, device) for key, part in value.items()}, num_envs)


def spec_of(obs: Any) -> specs.TensorSpec:
    """Return the spec of one environment's observations, from those of all, [B, ...]."""
    if isinstance(obs, Tensor):
        return specs.Unbounded(obs.shape[1:], dtype=obs.dtype, device=obs.device)
    return specs.Composite({key: spec_of(part) for key, part in obs.items()})


def column(value: Any, what: str, num_envs: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a copy of one number per simulation, [B, 1].

    Args:
        value: [B] or [B, 1], of any dtype.
        what: What it is, for errors.
        num_envs: B.
        device: Where it is to be.
        dtype: What it is to become.

    Raises:
        EnvError: If there are more or fewer.
    """
    copy = torch.as_tensor(value).detach().to(device, dtype, copy=True)
    if copy.numel() != num_envs:
        raise EnvError(f"{what} has shape {list(copy.shape)}, expected [{num_envs}]")
    return copy.reshape(num_envs, 1)


def check_values(config: Mapping[str, Any]) -> None:
    """Refuse values that options of the adapter's own can't have.

    Raises:
        EnvError: If there are any.
    """
    most, spread = config["clip_actions"], config["init_at_random_ep_len"]
    if most is not None and not (is_number(most) and most > 0):
        raise EnvError(f"env_config.clip_actions is {most!r}, expected a number above 0, or None")
    if type(spread) is not bool:
        raise EnvError(f"env_config.init_at_random_ep_len is {spread!r}, expected True or False")


def num_actions(env: Any, where: str) -> int:
    """Return how many numbers an action has.

    Raises:
        EnvError: If the simulator doesn't say that.
    """
    number = getattr(env, "num_actions", None)
    if number is None or not is_number(number):
        raise EnvError(
            f"{where}: {type(env).__name__} has no num_actions: put the simulator's own VecEnv class for "
            "rsl_rl around it"
        )
    return int(number)


def option_of(env: Any, name: str) -> Any:
    """Return an option that a simulator was made with; None if it has none of that name."""
    config = getattr(env, "cfg", None)
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def check_puts_back(env: Any, where: str) -> None:
    """Refuse a simulator that leaves rows as they are where episodes end, and whose rows nobody puts back.

    Raises:
        EnvError: If that is so.
    """
    if getattr(option_of(env, "autoreset_mode"), "name", None) == "DISABLED":
        raise EnvError(
            f"{where}: autoreset_mode is DISABLED, so nobody begins the next episodes: use SAME_STEP, with "
            "compute_final_obs=True"
        )


def spread_ages(env: Any, where: str) -> None:
    """Let all episodes be of a random age, so that time limits don't end them all at once.

    Args:
        env: The simulator; where it doesn't keep ages that can be set, that is logged.
        where: What to call it.
    """
    ages, most = getattr(env, "episode_length_buf", None), getattr(env, "max_episode_length", None)
    if isinstance(ages, Tensor) and most is not None:
        drawn = torch.rand(ages.shape, device=ages.device) * most
        try:
            env.episode_length_buf = drawn.to(ages.dtype)
        except AttributeError:
            # A property that can't be set.
            pass
        else:
            return
    _log.warning(
        "%s has no episode_length_buf that can be set: all its episodes begin at the same time, and a time "
        "limit ends them together; init_at_random_ep_len=False says that this is meant",
        where,
    )


def _is_batch(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() > 1
