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
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, Any] = {}

    def take(self, infos: Any, ended: Tensor, valid: Tensor | None) -> None:
        """Add what a step says.

        Args:
            infos: Of all rows, arrays by name; beside `name` there may be `_name`, the rows that it is of.
            ended: [B, 1], bool. Whose episode ended with the step.
            valid: [B, 1], bool. Whose step counts; None counts all.
        """
        if not isinstance(infos, Mapping):
            return
        for name in infos:
            if isinstance(name, str) and (name.startswith("reward_") or name in _STATES):
                self._add(name, infos, len(ended), [] if valid is None else [valid])
        final = infos.get("final_info", infos)
        episodes = final.get(_OF_EPISODES) if isinstance(final, Mapping) else None
        if isinstance(episodes, Mapping):
            rows = [ended, *([] if (said := final.get(f"_{_OF_EPISODES}")) is None else [said])]
            for name in episodes:
                if isinstance(name, str) and not name.startswith("_") and name not in _KNOWN:
                    self._add(name, episodes, len(ended), rows, f"{_OF_EPISODES}_{name}")

    def read(self) -> dict[str, Tensor]:
        """Return the means by name, and begin anew; NaN is one of nothing."""
        found = {
            name: torch.as_tensor(total, dtype=torch.float64) / self._counts[name]
            for name, total in self._sums.items()
        }
        self._sums, self._counts = {}, {}
        return found

    def _add(
        self, name: str, infos: Mapping[str, Any], size: int, rows: list[Any], as_: str | None = None
    ) -> None:
        """Add a value's rows that are True in all of `rows`, [B] or [B, 1], if it is a number for each."""
        value, said = infos[name], infos.get(f"_{name}")
        masks = rows if said is None else [*rows, said]
        total: Any
        count: Any
        # On the host a few of NumPy's operations take less time than torch's.
        if isinstance(value, np.ndarray) and value.dtype != object and value.size == size:
            kept = np.ones(size, bool)
            for mask in masks:
                kept &= np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask, bool).reshape(-1)
            total, count = float(value.reshape(-1)[kept].sum()), int(kept.sum())
        elif getattr(value, "__dlpack__", None) is not None and not isinstance(value, np.ndarray):
            device = value.device if isinstance(value, Tensor) else torch.device("cpu")
            tensor = as_tensor(value, device, torch.float64).reshape(-1)
            if len(tensor) != size:
                return
            counted = torch.ones_like(tensor, dtype=torch.bool)
            for mask in masks:
                counted &= as_tensor(mask, device).bool().reshape(-1)
            total, count = tensor.where(counted, 0.0).sum(), counted.sum()
        else:
            return
        key = as_ or name
        self._sums[key] = self._sums.get(key, 0.0) + total
        self._counts[key] = self._counts.get(key, 0) + count
