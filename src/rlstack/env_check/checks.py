"""The single checks of an environment: each raises EnvError, or returns a note or None."""

from collections import deque
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .. import specs
from ..algorithm import Algorithm
from ..common.errors import CaptureError, EnvError
from ..common.serialization import pack, unpack
from ..common.types import REWARDS, Batch
from ..engine.snapshot import ObjectSnapshot
from ..env.base import checked_reset, checked_step, most_steps, refuse_batch
from ..env.optional import env_state, load_env_state
from ..env.unread import OptionReads
from .subject import Subject, copies, difference, named_leaves, spec_leaves, trajectory, walk

_READ_BACK: Final = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal"}
"""Operations whose result the host waits for."""


def check_construction(subject: Subject) -> None:
    """Make it, with specs that can be used."""
    env, rows = subject.make(), subject.num_envs
    suspects = [(path, leaf) for path, leaf in spec_leaves(env) if leaf.shape[0] == rows]
    others = dict(spec_leaves(replace(subject, num_envs=rows + 1).make())) if suspects else {}
    for path, leaf in suspects:
        if path in others and others[path].shape[0] == rows + 1:
            refuse_batch(type(env).__name__, path, leaf)


def check_reset(subject: Subject) -> None:
    """Reset it: the observations' form, finite, and within their spec."""
    env = subject.make()
    _check_values(env, subject.reset(env), f"{type(env).__name__}.reset")


def check_steps(subject: Subject) -> str | None:
    """Take steps with random actions: form, finite, and within the spec."""
    env = subject.make()
    subject.reset(env)
    notes: list[str] = []
    for step, obs, rewards in walk(subject, env, notes.append):
        where = f"{type(env).__name__}.step (step {step})"
        _check_values(env, obs, where)
        assert rewards is not None
        _refuse(REWARDS, ~rewards.isfinite().all(1), "is NaN or infinite", where)
    return notes[0] if notes else None


def check_seed(subject: Subject) -> None:
    """Run twice from one seed: the same must come out, and chance must go on from it."""
    env, other = subject.make(), subject.make()
    name = type(env).__name__
    differing = difference(env, trajectory(subject, env), trajectory(subject, other))
    if differing:
        raise EnvError(
            f"{name}: {differing} from one run to another with the same seed: draw random numbers from "
            "torch's generators, and share nothing between instances"
        )
    after = []
    for seed in (1, 2):
        trajectory(subject, env, seed=seed)
        after.append(torch.rand(4))
    if torch.equal(*after):
        raise EnvError(f"{name} seeds torch's generator itself: every run would be the same; leave that out")


def check_config(subject: Subject) -> str | None:
    """Reset it with options: none, an empty dictionary, and its own; see whether it reads its own."""
    env = subject.make()
    for config in (None, {}, dict(subject.config or {})):
        checked_reset(env, subject.num_envs, config, subject.device)
    if not subject.config:
        return None
    reads = OptionReads(subject.config)
    env = replace(subject, config=reads).make()
    subject.reset(env)
    deque(walk(subject, env), maxlen=0)
    checked_reset(env, subject.num_envs, reads, subject.device)
    return reads.unread(type(env).__name__)


def check_batch_sizes(subject: Subject) -> None:
    """Make, reset and step it with other numbers of simulations: 1, and an odd one."""
    for num_envs in (1, subject.num_envs + 1):
        other = replace(subject, num_envs=num_envs, steps=2)
        trajectory(other, other.make())


def check_ownership(subject: Subject) -> str | None:
    """See whether what it returned or was handed changes later."""
    env = subject.make()
    kept: list[Any] = [(subject.reset(env), None)]
    before: list[Any] = [(kept[0][0].clone(), None)]
    handed = (actions := subject.actions(env)).clone()
    for step in range(most_steps(env, 2)):
        obs, rewards, _ = checked_step(env, subject.num_envs, actions, step, subject.device)
        kept.append((obs, rewards))
        before.append((obs.clone(), rewards.clone()))
    name = type(env).__name__
    said = [
        f"what {name} returned changes later: rlstack copies it, others may not; return a clone"
        for now, then in zip(kept, before, strict=True)
        if difference(env, [(0, *now)], [(0, *then)])
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
    deque(walk(subject, env), maxlen=0)
    torch.manual_seed(0)
    differs = difference(env, [(-1, first, None)], [(-1, subject.reset(env), None)])
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
    deque(walk(half, env), maxlen=0)
    try:
        packed = pack(env_state(env), f"{name}.state_dict()")
    except TypeError as error:
        raise EnvError(str(error)) from None
    state = unpack(packed[0], {key: value.clone() for key, value in packed[1].items()})
    torch.manual_seed(0)
    after = list(copies(walk(half, env)))
    load_env_state(other, state)
    torch.manual_seed(0)
    differing = difference(env, after, list(copies(walk(half, other))))
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
        snapshot = ObjectSnapshot(env, name)
        for _ in range(most_steps(env, 2)):
            actions = subject.actions(env)
            with reads:
                env.step(actions)
        if (path := snapshot.changed()) is not None:
            return f"no CUDA graph can be made of its steps: {path} changes and is no tensor; make it one"
        snapshot.rebind()
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
    # It has been said of the steps.
    algorithm.collector.notice = None
    with torch.enable_grad():
        for _ in range(2):
            algorithm.collect()
            algorithm.step()
    if subject.device.type == "cuda" and not algorithm.engine.startswith("graph"):
        return f"no CUDA graph could be made of its steps: they are run with engine {algorithm.engine}"
    return None


def _refuse(name: str, bad: Tensor, what: str, where: str) -> None:
    """Raise an error that names the first environment of those that are bad, [B]."""
    if bad.any():
        raise EnvError(f"{where}: {name} of environment {int(bad.nonzero()[0])} {what}")


def _check_values(env: Any, obs: Batch, where: str) -> None:
    for name, value, leaf in named_leaves(obs, env.observation_spec):
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
