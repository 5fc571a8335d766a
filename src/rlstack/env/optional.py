"""What an environment may have beside `reset` and `step`: state, metrics, options that change."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..common.errors import EnvError
from ..common.metrics import ENV, ENV_OWN, name_fault, value_fault
from ..common.serialization import detached
from ..common.types import Config
from .faults import faults_of


def env_state(env: Any) -> dict[str, Any] | None:
    """Return what an environment says of its state with `state_dict`; None if it doesn't.

    Raises:
        EnvError: If that raises an error.
    """
    if not callable(getattr(env, "state_dict", None)) or not callable(getattr(env, "load_state_dict", None)):
        return None
    with faults_of(f"{type(env).__name__}.state_dict"):
        return dict(detached(env.state_dict()))


def load_env_state(env: Any, state: Config) -> None:
    """Hand to an environment what its `state_dict` returned.

    Raises:
        EnvError: If that raises an error, or there is no `load_state_dict`.
    """
    with faults_of(f"{type(env).__name__}.load_state_dict"):
        env.load_state_dict(state)


def takes_config(env: Any) -> bool:
    """Return whether an environment changes options without a reset."""
    return callable(getattr(env, "set_config", None))


def set_env_config(env: Any, config: Config) -> None:
    """Hand to an environment that `takes_config` options that differ from now on.

    Raises:
        EnvError: If that raises an error.
    """
    with faults_of(f"{type(env).__name__}.set_config"):
        env.set_config(dict(config))


@torch.no_grad()
def env_metrics(env: Any, device: torch.device) -> dict[str, Tensor]:
    """Return an environment's own metrics by name, `env/…`, each a scalar on a device: nothing waits for it.

    Args:
        env: The environment; one without the method `metrics` has none.
        device: Where the numbers are read from later.

    Raises:
        EnvError: If they aren't numbers by name, or it raises an error.
    """
    if not callable(getattr(env, "metrics", None)):
        return {}
    where = f"{type(env).__name__}.metrics"
    with faults_of(where):
        said = env.metrics()
        if not isinstance(said, Mapping):
            raise EnvError(f"{where} returned a {type(said).__name__}, expected numbers by name, in a dict")
        return {ENV + _checked(name, value, where): _scalar(value, device) for name, value in said.items()}


def _checked(name: object, value: object, where: str) -> str:
    """Return the name of a metric.

    Raises:
        EnvError: If it can't be one, or the value is no number.
    """
    full = ENV + name if isinstance(name, str) else name
    if fault := name_fault(full):
        raise EnvError(f"{where}: the name {full!r:.80} {fault}")
    if full in ENV_OWN:
        raise EnvError(f"{where}: {full} is a statistic of rlstack's own: take another name than {name}")
    if fault := value_fault(value):
        raise EnvError(f"{where}: {name} {fault}")
    return str(name)


def _scalar(value: Any, device: torch.device) -> Tensor:
    if isinstance(value, Tensor) and value.device.type == device.type:
        # A copy: the environment may go on writing into it.
        return value.detach().to(device, torch.float64, copy=True)
    return torch.full((), float(value), dtype=torch.float64, device=device)
