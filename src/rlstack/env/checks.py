"""The single checks of an environment: each raises EnvError, or returns a note or None."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .. import specs
from ..algorithm import Algorithm
from ..data import OBS, REWARDS, Batch, Config, keep_random_state
from ..holdings import CaptureError, Holdings
from ..trees import pack, unpack
from .base import EnvError, EnvFactory, checked_reset, checked_step, env_state, load_env_state, make_env

_READ_BACK: Final = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal"}
"""Operations whose result the host waits for."""


@final
@dataclass(frozen=True)
class Subject:
    """What is checked, and how."""

    env_cls: EnvFactory
    config: Config | None
    num_envs: int
    steps: int
    device: torch.device

    def __post_init__(self) -> None:
        """Refuse numbers that aren't any."""
        for name in ("num_envs", "steps"):
            number = getattr(self, name)
            if type(number) is not int or number < 1:
                raise ValueError(f"{name} is {number!r}, expected a whole number of at least 1")

    def make(self) -> Any:
        """Return an environment, from seed 0."""
        torch.manual_seed(0)
        return make_env(self.env_cls, self.num_envs, self.config, self.device)

    def reset(self, env: Any) -> Batch:
        """Return the observations after a reset, [B, ...], their form checked."""
        return checked_reset(env, self.num_envs, None, self.device)

    def actions(self, env: Any) -> Batch:
        """Return random actions, [B, *A], from the generator as it stands."""
        return env.action_spec.to(self.device).rand((self.num_envs,))


def check_construction(subject: Subject) -> None:
    """Make it, with specs that can be used."""
    subject.make()


def check_reset(subject: Subject) -> None:
    """Reset it: the observations' form, finite, and within their spec."""
    env = subject.make()
    _check_values(env, subject.reset(env), f"{type(env).__name__}.reset")


def check_steps(subject: Subject) -> None:
    """Take steps with random actions: form, finite, and within the spec."""
    env = subject.make()
    subject.reset(env)
    for step, obs, rewards in _walk(subject, env):
        where = f"{type(env).__name__}.step (step {step})"
        _check_values(env, obs, where)
        assert rewards is not None
        _refuse(REWARDS, ~rewards.isfinite().all(1), "is NaN or infinite", where)


def check_seed(subject: Subject) -> None:
    """Run twice from one seed: the same must come out, and chance must go on from it."""
    env, other = subject.make(), subject.make()
    name = type(env).__name__
    differing = _difference(env, _trajectory(subject, env), _trajectory(subject, other))
    if differing:
        raise EnvError(
            f"{name}: {differing} from one run to another with the same seed: draw random numbers from "
            "torch's generators, and share nothing between instances"
        )
    after = []
    for seed in (1, 2):
        _trajectory(subject, env, seed=seed)
        after.append(torch.rand(4))
    if torch.equal(*after):
        raise EnvError(f"{name} seeds torch's generator itself: every run would be the same; leave that out")


def check_config(subject: Subject) -> None:
    """Reset it with options: none, an empty dictionary, and its own."""
    env = subject.make()
    for config in (None, {}, dict(subject.config or {})):
        checked_reset(env, subject.num_envs, config, subject.device)


def check_batch_sizes(subject: Subject) -> None:
    """Make, reset and step it with other numbers of simulations: 1, and an odd one."""
    for num_envs in (1, subject.num_envs + 1):
        other = replace(subject, num_envs=num_envs, steps=2)
        _trajectory(other, other.make())


def check_ownership(subject: Subject) -> str | None:
    """See whether what it returned or was handed changes later."""
    env = subject.make()
    kept: list[Any] = [(subject.reset(env), None)]
    before: list[Any] = [(kept[0][0].clone(), None)]
    handed = (actions := subject.actions(env)).clone()
    for step in range(most_steps(env, 2)):
        obs, rewards = checked_step(env, subject.num_envs, actions, step, subject.device)
        kept.append((obs, rewards))
        before.append((obs.clone(), rewards.clone()))
    name = type(env).__name__
    said = [
        f"what {name} returned changes later: rlstack copies it, others may not; return a clone"
        for now, then in zip(kept, before, strict=True)
        if _difference(env, [(0, *now)], [(0, *then)])
    ][:1]
    both = (specs.parts(batch, env.action_spec) for batch in (actions, handed))
    if any(not torch.equal(one, two) for (_, one, _), (_, two, _) in zip(*both, strict=True)):
        said.append(f"{name}.step changes the actions that it is handed: work on a clone")
    return "; ".join(said) or None


def check_independence(subject: Subject) -> str | None:
    """See whether a reset forgets what was before."""
    env = subject.make()
    torch.manual_seed(0)
    first = subject.reset(env).clone()
    deque(_walk(subject, env), maxlen=0)
    torch.manual_seed(0)
    differs = _difference(env, [(-1, first, None)], [(-1, subject.reset(env), None)])
    if not differs:
        return None
    return f"what {type(env).__name__}.reset returns depends on what was before it: is that meant?"


def check_state(subject: Subject) -> str | None:
    """Put back a state it told, and compare what comes after."""
    env, other = subject.make(), subject.make()
    name = type(env).__name__
    subject.reset(env)
    subject.reset(other)
    if env_state(env) is None:
        return f"{name} has no state_dict and load_state_dict: a resumed run resets it"
    # As far as it may go, in two parts.
    half = replace(subject, steps=max(1, most_steps(env, subject.steps) // 2))
    deque(_walk(half, env), maxlen=0)
    try:
        packed = pack(env_state(env), f"{name}.state_dict()")
    except TypeError as error:
        raise EnvError(str(error)) from None
    state = unpack(packed[0], {key: value.clone() for key, value in packed[1].items()})
    torch.manual_seed(0)
    after = list(_copies(_walk(half, env)))
    load_env_state(other, state)
    torch.manual_seed(0)
    differing = _difference(env, after, list(_copies(_walk(half, other))))
    if differing:
        raise EnvError(f"{name}: {differing} after load_state_dict: state_dict should hold all that changes")
    return None


def check_graph(subject: Subject) -> str | None:
    """See what a CUDA graph couldn't replay, as far as can be seen without recording one."""
    env = subject.make()
    name = type(env).__name__
    subject.reset(env)
    reads = _ReadsBack()
    try:
        holdings = Holdings(env, name)
        for _ in range(most_steps(env, 2)):
            actions = subject.actions(env)
            with reads:
                env.step(actions)
        if (path := holdings.changed()) is not None:
            return f"no CUDA graph can be made of its steps: {path} changes and is no tensor; make it one"
        holdings.rebind()
    except CaptureError as error:
        return f"no CUDA graph can be made of its steps: {error}"
    if reads.found:
        found = ", ".join(sorted(reads.found))
        return f"no CUDA graph can be made of its steps: they make the host wait for the device ({found})"
    return None


def check_training(subject: Subject) -> str | None:
    """Train on it for two updates, with the default model."""
    try:
        algorithm = Algorithm(
            subject.env_cls,
            num_envs=subject.num_envs,
            horizon=subject.steps,
            env_config=None if subject.config is None else dict(subject.config),
            device=subject.device,
        )
    except EnvError:
        raise
    except (TypeError, ValueError) as error:
        return f"it needs a model or a distribution of its own: {error}"
    with torch.enable_grad():
        for _ in range(2):
            algorithm.collect()
            algorithm.step()
    if subject.device.type == "cuda" and not algorithm.engine.startswith("graph"):
        return f"no CUDA graph could be made of its steps: they are run with engine {algorithm.engine}"
    return None


def _leaves(value: Any, spec: specs.TensorSpec) -> Iterator[tuple[str, Tensor, specs.TensorSpec]]:
    """Yield name, numbers and spec of each part of observations [B, ...]."""
    for path, part, leaf in specs.parts(value, spec):
        yield ".".join((OBS, *path)), part, leaf


def _refuse(name: str, bad: Tensor, what: str, where: str) -> None:
    """Raise an error that names the first environment of those that are bad, [B]."""
    if bad.any():
        raise EnvError(f"{where}: {name} of environment {int(bad.nonzero()[0])} {what}")


def _check_values(env: Any, obs: Batch, where: str) -> None:
    for name, value, leaf in _leaves(obs, env.observation_spec):
        if value.is_floating_point():
            _refuse(name, ~value.isfinite().flatten(1).all(1), "is NaN or infinite", where)
        bad = specs.outside(value, leaf).flatten(1).any(1)
        _refuse(name, bad, f"is outside of its spec {type(leaf).__name__}: widen the spec or bound it", where)


class _ReadsBack(TorchDispatchMode):
    """Notes which operations make the host wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        if name in _READ_BACK:
            self.found.add(name.removeprefix("aten::").lstrip("_"))
        return func(*args, **(kwargs or {}))


def most_steps(env: Any, steps: int) -> int:
    """Return how many of so many steps may be taken after a reset."""
    return min(steps, getattr(env, "max_horizon", None) or steps)


_Moment: TypeAlias = tuple[int, Batch, Tensor | None]
"""A step, -1 after a reset, the observations and the rewards."""


def _walk(subject: Subject, env: Any) -> Iterator[_Moment]:
    """Take steps with random actions that are the same each time, without touching torch's generator."""
    for step in range(most_steps(env, subject.steps)):
        with keep_random_state(subject.device):
            torch.manual_seed(step)
            actions = subject.actions(env)
        yield step, *checked_step(env, subject.num_envs, actions, step, subject.device)


def _copies(moments: Iterable[_Moment]) -> Iterator[_Moment]:
    """Yield them as they are now: the environment may go on writing into them."""
    for step, obs, rewards in moments:
        yield step, obs.clone(), None if rewards is None else rewards.clone()


def _trajectory(subject: Subject, env: Any, *, seed: int = 0) -> list[_Moment]:
    """Return a reset and all steps, from a seed of torch's generator."""
    torch.manual_seed(seed)
    first: _Moment = (-1, subject.reset(env), None)
    return [*_copies([first]), *_copies(_walk(subject, env))]


def _difference(env: Any, ones: list[_Moment], others: list[_Moment]) -> str | None:
    """Return where two trajectories differ first, in words; None if they don't."""
    for (step, obs, rewards), (_, other_obs, other_rewards) in zip(ones, others, strict=True):
        named = [(name, value) for name, value, _ in _leaves(obs, env.observation_spec)]
        others_named = [value for _, value, _ in _leaves(other_obs, env.observation_spec)]
        if rewards is not None and other_rewards is not None:
            named.append((REWARDS, rewards))
            others_named.append(other_rewards)
        for (name, value), other in zip(named, others_named, strict=True):
            bad = (value != other).flatten(1).any(1)
            if bad.any():
                where = "after the reset" if step < 0 else f"in step {step}"
                return f"{name} of environment {int(bad.nonzero()[0])} differs {where}"
    return None
