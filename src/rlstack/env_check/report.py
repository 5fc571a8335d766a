"""Whether an environment is what rlstack expects, before anything is trained on it.

`check_env` makes a report, `EnvChecks` is the same for pytest: a class of tests that inherits from it.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Final, Literal, TypeAlias, final

import torch

from ..common.device import resolve_device
from ..common.errors import EnvError, NonFiniteError
from ..common.random_state import keep_random_state
from ..common.types import Config, Device
from ..env.base import EnvFactory, checked_step, most_steps
from ..hparams import Hparams
from ..ppo.horizon_watch import RESETS
from . import checks
from .endings import check_endings, says_endings
from .optional import check_metrics, check_set_config
from .subject import Subject

Check: TypeAlias = Callable[[Subject], str | None]

CHECKS: Final[dict[str, Check]] = {
    "construction": checks.check_construction,
    "reset": checks.check_reset,
    "steps": checks.check_steps,
    "endings": check_endings,
    "metrics": check_metrics,
    "seed": checks.check_seed,
    "config": checks.check_config,
    "set_config": check_set_config,
    "batch sizes": checks.check_batch_sizes,
    "ownership": checks.check_ownership,
    "independence": checks.check_independence,
    "state": checks.check_state,
    "graph": checks.check_graph,
    "training": checks.check_training,
}
"""In the order in which they are made."""

_FIRST: Final = ("construction", "reset", "steps")
"""Those without which the others make no sense."""

_MANY_ENVS: Final = 4096

_TIMED: Final = 0.5
"""How long to measure the speed, s."""

_LONGEST_TO_MAKE: Final = 10.0
"""How long it may take to make so many simulations, s: each may be a process or a model of its own."""


@final
@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    """Of the check."""
    level: Literal["ok", "note", "fault"]
    """A note is nothing that training would suffer from."""
    looked_at: str
    """What the check does."""
    said: str = ""
    """What is wrong, and what to change."""


@final
@dataclass(frozen=True)
class Report:
    """What all checks found."""

    env: str
    findings: tuple[Finding, ...]
    transitions_per_second: float | None = None
    """Of the environment alone, with 4,096 simulations if it takes as many, soon; None if it has faults."""
    resets: str = ""
    """How long simulations last by default, and what to set for longer; empty if it has faults."""

    @property
    def faults(self) -> list[str]:
        """What has to be changed, a sentence each."""
        return [finding.said for finding in self.findings if finding.level == "fault"]

    def raise_for_faults(self) -> None:
        """Raise the faults, if there are any.

        Raises:
            EnvError: With a line for each.
        """
        if self.faults:
            raise EnvError("\n".join(self.faults))

    def as_dict(self) -> dict[str, Any]:
        """Return everything by name, for scripts."""
        return asdict(self)


def check_env(
    env_cls: EnvFactory,
    /,
    *,
    config: Config | None = None,
    num_envs: int = 16,
    steps: int = 32,
    device: Device = "cpu",
) -> Report:
    """Check an environment, and measure its speed.

    Args:
        env_cls: The environment's class, or any callable with the signature of `Env`.
        config: Its options.
        num_envs: How many simulations to check with, B.
        steps: How many steps of each.
        device: Where.

    Returns:
        What was found; `raise_for_faults` makes an error of it.

    Examples:
        >>> from rlstack.env import CartPole
        >>> check_env(CartPole).faults
        []
    """
    subject = Subject(env_cls, config, num_envs, steps, resolve_device(device))
    name = getattr(env_cls, "__name__", type(env_cls).__name__)
    findings: list[Finding] = []
    with keep_random_state(subject.device), torch.no_grad():
        for title, check in CHECKS.items():
            findings.append(_find(title, check, subject))
            if findings[-1].level == "fault" and title in _FIRST:
                # What comes after would say the same again.
                break
        sound = all(finding.level != "fault" for finding in findings)
        speed = _fastest(subject) if sound else None
        resets = _resets(subject, name) if sound else ""
    return Report(name, tuple(findings), speed, resets)


class EnvChecks:
    """Tests of an environment for pytest, to inherit from.

    Example::

        class TestMyEnv(EnvChecks):
            env_cls = MyEnv
    """

    env_cls: ClassVar[EnvFactory]
    """The environment's class."""
    env_config: ClassVar[Config | None] = None
    """Its options."""
    num_envs: ClassVar[int] = 16
    steps: ClassVar[int] = 32
    device: ClassVar[Device] = "cpu"


def _test(title: str, check: Check) -> Callable[[EnvChecks], None]:
    def test(self: EnvChecks) -> None:
        cls = type(self)
        subject = Subject(cls.env_cls, cls.env_config, cls.num_envs, cls.steps, resolve_device(cls.device))
        with keep_random_state(subject.device), torch.no_grad():
            finding = _find(title, check, subject)
        assert finding.level != "fault", finding.said

    test.__doc__ = check.__doc__
    return test


for _title, _check in CHECKS.items():
    setattr(EnvChecks, f"test_{_title.replace(' ', '_')}", _test(_title, _check))


def _find(title: str, check: Check, subject: Subject) -> Finding:
    looked_at = (check.__doc__ or "").strip()
    try:
        note = check(subject)
    except (EnvError, NonFiniteError) as error:
        return Finding(title, "fault", looked_at, str(error))
    return Finding(title, "note" if note else "ok", looked_at, note or "")


def _resets(subject: Subject, name: str) -> str:
    most = getattr(subject.make(), "max_horizon", None)
    hp = Hparams().resolve_for_env(most, name)
    said = f"By default all simulations are reset every {hp.horizon * hp.horizons_per_env_reset} steps"
    if most is None and says_endings(subject):
        return f"{said}: its episodes end by themselves, set horizons_per_env_reset=-1"
    if most is not None and most < 2 * hp.horizon:
        return f"{said}: its max_horizon is {most}"
    advice = RESETS if most is None else min(RESETS, most // hp.horizon)
    return f"{said}: if the task lasts longer, set horizons_per_env_reset={advice} or a longer horizon"


def _fastest(subject: Subject) -> float | None:
    """Return the speed of many simulations, or of as many as were checked, where many take long to make."""
    start = time.perf_counter()
    subject.make()
    expected = (time.perf_counter() - start) * _MANY_ENVS / subject.num_envs
    many = _speed(replace(subject, num_envs=_MANY_ENVS)) if expected < _LONGEST_TO_MAKE else None
    return many or _speed(subject)


def _speed(subject: Subject) -> float | None:
    """Return how many steps all simulations together take in a second; None if there can't be as many."""
    try:
        env = subject.make()
        done = most = most_steps(env, 2**30)
        actions, count, start = subject.actions(env), 0, time.perf_counter()
        while (passed := time.perf_counter() - start) < _TIMED or count < 2:
            if done == most:
                subject.reset(env)
                done = 0
            _, rewards, _ = checked_step(env, subject.num_envs, actions, done, subject.device)
            # Its number is on the host when the step is over.
            rewards[0, 0].item()
            done, count = done + 1, count + 1
    except EnvError:
        return None
    return count * subject.num_envs / passed
