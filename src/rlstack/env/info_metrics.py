"""What simulators say of themselves beside observations and rewards, as metrics of a horizon."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from .spaces import as_tensor

_OF_EPISODES = "episode"

_KNOWN = {"r", "l", "t", "return", "reward", "episode_len"}
"""What is said of episodes that is among rlstack's own statistics."""

_STATES = {"success", "is_success", "fail"}
"""What is said of single steps beside parts of the reward."""


@final
class InfoMetrics:
    """Means, since they were asked for last, of what the infos of steps say.

    Of each step: parts of the reward, `reward_…`, and `success`, over all rows. Of each episode that ended:
    what is in `episode`, but for returns and lengths, which rlstack has itself.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def take(self, infos: Any, ended: Tensor, valid: Tensor | None) -> None:
        """Add what a step says.

        Args:
            infos: Of all rows, arrays by name; beside `name` there may be `_name`, the rows that it is of.
            ended: [B, 1], bool. Whose episode ended with the step.
            valid: [B, 1], bool. Whose step counts; None counts all.
        """
        if not isinstance(infos, Mapping):
            return
        rows = torch.ones_like(ended) if valid is None else valid
        for name in infos:
            if isinstance(name, str) and (name.startswith("reward_") or name in _STATES):
                self._add(name, infos, rows)
        final = infos.get("final_info", infos)
        episodes = final.get(_OF_EPISODES) if isinstance(final, Mapping) else None
        if isinstance(episodes, Mapping):
            said = _rows_of(final, _OF_EPISODES, ended)
            for name in episodes:
                if isinstance(name, str) and not name.startswith("_") and name not in _KNOWN:
                    self._add(name, episodes, said & ended, f"{_OF_EPISODES}_{name}")

    def read(self) -> dict[str, Tensor]:
        """Return the means by name, and begin anew; NaN is one of nothing."""
        found = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return found

    def _add(self, name: str, infos: Mapping[str, Any], rows: Tensor, as_: str | None = None) -> None:
        value = infos[name]
        if isinstance(value, np.ndarray) and value.dtype == object:
            return
        if not isinstance(value, np.ndarray | Tensor) and getattr(value, "__dlpack__", None) is None:
            return
        tensor = as_tensor(value, rows.device, torch.float64)
        if tensor.numel() != rows.numel():
            return
        rows = _rows_of(infos, name, rows)
        key = as_ or name
        total, count = tensor.reshape(-1, 1).where(rows, 0.0).sum(), rows.sum()
        self._sums[key] = self._sums[key] + total if key in self._sums else total
        self._counts[key] = self._counts[key] + count if key in self._counts else count


def _rows_of(infos: Mapping[str, Any], name: str, rows: Tensor) -> Tensor:
    """Return which of these rows something is said of, [B, 1]."""
    mask = infos.get(f"_{name}")
    return rows if mask is None else as_tensor(mask, rows.device).bool().reshape(-1, 1) & rows
