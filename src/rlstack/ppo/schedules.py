"""What schedules say of an update."""

from typing import NamedTuple, final

from torch import Tensor

from ..hparams import Hparams
from ..schedulers import scheduler


class Coefficients(NamedTuple):
    """What schedules change in the loss."""

    entropy_coeff: float | Tensor
    """Weight of the entropy bonus."""
    clip_param: float | Tensor
    """How far the policy ratio may leave 1."""


@final
class Schedules:
    """Learning rate and coefficients of the loss over environment steps.

    Args:
        hparams: Whose schedules.
    """

    def __init__(self, hparams: Hparams) -> None:
        hp = hparams
        self._lr = hp.lr_schedule and scheduler(0.0, hp.lr_schedule, hp.lr_schedule_kind)
        self._entropy_coeff = scheduler(
            hp.entropy_coeff, hp.entropy_coeff_schedule, hp.entropy_coeff_schedule_kind
        )
        self._clip_param = scheduler(hp.clip_param, hp.clip_param_schedule, hp.clip_param_schedule_kind)

    def lr(self, env_steps: int) -> float | None:
        """Return the learning rate; None leaves the optimizer's own, which may be set by hand."""
        return self._lr(env_steps) if self._lr else None

    def coefficients(self, env_steps: int) -> Coefficients:
        """Return the coefficients, as numbers."""
        return Coefficients(self._entropy_coeff(env_steps), self._clip_param(env_steps))
