"""Recurrent states that begin anew within a sequence."""

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor

from ..common.types import Batch


class Breaks(NamedTuple):
    """Where the recurrent state begins anew within sequences."""

    ended: Tensor
    """[N, L - 1], bool. Whether it does so after a step of a sequence."""
    steps: list[int]
    """After which steps it may do so at all."""


def run(model: Any, obs: Batch, state: TensorDict | None, breaks: Breaks) -> tuple[TensorDict, Tensor]:
    """Return what a recurrent model says of sequences in which its state begins anew.

    It is called for one piece of the sequences after the other; between two of them the state is zeroed in
    the rows that ended.

    Args:
        model: A `RecurrentModel`.
        obs: [N, L, ...]. Sequences of observations.
        state: [N, ...]. State before the first step of each.
        breaks: Where it begins anew.

    Returns:
        Features [N, L, ...] and values [N, L, 1].
    """
    length = breaks.ended.shape[1] + 1
    said = []
    for start, stop in pairwise([0, *(step + 1 for step in breaks.steps), length]):
        features, values, state = model(obs[:, start:stop], state)
        said.append((features, values))
        if stop < length and state is not None:
            state = with_zeros(state, breaks.ended[:, stop - 1])
    every_features, every_values = zip(*said, strict=True)
    return torch.cat(every_features, 1), torch.cat(every_values, 1)


def with_zeros(batch: Any, rows: Tensor) -> Any:
    """Return a batch [N, ...] with zeros in the rows, bool [N] or [N, 1], that are marked."""
    if isinstance(batch, Tensor):
        return batch.masked_fill(rows.view(-1, *[1] * (batch.ndim - 1)), 0)
    return batch.apply(lambda part: with_zeros(part, rows))
