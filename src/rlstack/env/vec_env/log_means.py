"""What simulators log while they are stepped, as metrics of a horizon."""

import re
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ...common.errors import EnvError
from ...common.validation import is_number

_LONGEST = 200
"""Characters of a name: MLflow takes 250, and others put something before it."""


@final
class LogMeans:
    """Gathers numbers by name, and returns their means; nothing waits for the device.

    Args:
        name: Of the environment, for errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._said: dict[str, list[Tensor | float]] = {}
        self._last: dict[str, tuple[Mapping[str, Any], list[tuple[Any, Any, int | None]]]] = {}

    def add(self, kind: str, log: Any) -> None:
        """Take what was logged in a step, unless it is still what was logged before.

        Simulators write a new dictionary where episodes end, and leave it in `extras` until the next do.

        Args:
            kind: Which of its logs it is.
            log: Numbers, or tensors of which the mean counts, by name; None is none.

        Raises:
            EnvError: If there is something else in it.
        """
        if log is None:
            return
        if not isinstance(log, Mapping):
            raise EnvError(f"{self._name}: {kind} is a {type(log).__name__}, expected numbers by name")
        state = [(key, value, _version(value)) for key, value in log.items()]
        if self._is_old(kind, log, state):
            return
        self._last[kind] = (log, state)
        for key, value in log.items():
            self._said.setdefault(metric_name(key), []).append(self._number(key, value))

    def take(self) -> dict[str, Tensor | float]:
        """Return the means since the last time by name; what wasn't logged is left out."""
        said, self._said = self._said, {}
        return {name: _mean(values) for name, values in said.items()}

    def forget(self) -> None:
        """Drop what has been gathered."""
        self._said = {}

    def _is_old(self, kind: str, log: Mapping[str, Any], state: list[tuple[Any, Any, int | None]]) -> bool:
        """Return whether a log is the same dictionary as before, and nothing in it has changed."""
        before, was = self._last.get(kind, (None, []))
        return (
            before is log
            and len(was) == len(state)
            and all(a[0] == b[0] and a[1] is b[1] and a[2] == b[2] for a, b in zip(was, state, strict=True))
        )

    def _number(self, key: object, value: Any) -> Tensor | float:
        if isinstance(value, np.ndarray):
            value = torch.as_tensor(value)
        if isinstance(value, Tensor) and value.numel() and not value.is_complex():
            # A copy: the simulator goes on writing into it.
            return value.detach().to(torch.float64, copy=True).mean()
        if is_number(value) or isinstance(value, bool):
            return float(value)
        raise EnvError(f"{self._name} logs {key} as {value!r:.80}, expected a number or a tensor of them")


def metric_name(key: object) -> str:
    """Return the name of a metric for what a simulator calls it: `/a/b` is `a/b`, and `a` is `Episode/a`.

    That is how rsl_rl shows them. Characters that MLflow doesn't take become `_`.
    """
    parts = [re.sub(r"[^\w.\- :]", "_", part) for part in str(key).split("/") if part not in ("", ".", "..")]
    return "/".join(parts if len(parts) > 1 else ("Episode", *parts))[:_LONGEST].rstrip("/")


def _version(value: object) -> int | None:
    """Return a number that changes where a tensor is written into."""
    return value._version if isinstance(value, Tensor) and not value.is_inference() else None


def _mean(values: list[Tensor | float]) -> Tensor | float:
    """Return the mean of those that aren't NaN; NaN if all are."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors:
        numbers = [value for value in values if value == value]
        return sum(numbers) / len(numbers) if numbers else float("nan")
    device = tensors[0].device
    return torch.stack([torch.as_tensor(v, dtype=torch.float64, device=device) for v in values]).nanmean()
