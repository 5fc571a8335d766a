"""What every action distribution has."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from ..common.types import Batch

if TYPE_CHECKING:
    from ..models.base import Model, RecurrentModel


class Distribution(ABC):
    """Distribution of the actions of N rows, each independent of the others.

    Args:
        features: [N, ...]. What the model returned, its time dimension (if any) merged into the rows.
        model: The model; its `action_spec` tells the shape of an action.
    """

    squashed: ClassVar[bool] = False
    """Whether `to_env` returns numbers in [-1, 1] where the action spec is Bounded; the policy then maps them
    onto its bounds."""

    noise: ClassVar[str | None] = None
    """Which random numbers `from_noise` takes, in words; None where it isn't there."""

    def __init__(self, features: TensorDict, model: "Model | RecurrentModel", /) -> None:
        self.features = features
        self.model = model

    @abstractmethod
    def sample(self) -> Batch:
        """Return what is drawn at random, [N, *A]; it is kept as it is until the policy is updated."""

    @abstractmethod
    def deterministic_sample(self) -> Batch:
        """Return what to take when nothing may be random, [N, *A]."""

    def noise_shape(self) -> torch.Size:
        """Return the shape of the random numbers that `from_noise` takes: [N, ...].

        Defined together with `noise` and `from_noise`, so that sampling can be exported.
        """
        raise NotImplementedError(f"{type(self).__name__} has no noise_shape")

    def from_noise(self, noise: Tensor) -> Batch:
        """Return what `sample` draws, [N, *A], given the random numbers [N, ...]."""
        raise NotImplementedError(f"{type(self).__name__} has no from_noise")

    def to_env(self, drawn: Any) -> Any:
        """Return what was drawn as actions, [N, *A]: as it is, unless a subclass squashes or clips it.

        Log-probabilities are of what was drawn: what is lost here is not lost to the update.
        """
        return drawn

    @abstractmethod
    def logp(self, drawn: Any) -> Tensor:
        """Return the log-probability (or log-density) of what was drawn [N, *A], summed over A: [N, 1]."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Return the entropy, summed over A: [N, 1]."""


def check_feature(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a feature [N, *shape] of another shape: it would be broadcast, or say nothing sensible."""
    if value.shape[1:] != shape:
        expected = ", ".join(map(str, ("N", *shape)))
        raise ValueError(f"the feature {name} has shape {list(value.shape)}, expected [{expected}]")


def sum_actions(values: Tensor) -> Tensor:
    """Return values [N, *A] summed over A: [N, 1]."""
    rows = values.flatten(1)
    return rows if rows.shape[1] == 1 else rows.sum(1, keepdim=True)
