"""What is known of an optimizer step."""

from typing import NamedTuple


class StepRecord(NamedTuple):
    """What is known of one optimizer step; the fields of `PPOLoss` come first."""

    total: float
    policy: float
    vf: float
    entropy: float
    kl_div: float
    clip_fraction: float
    grad_norm: float
    """Before clipping."""
    tried: float
    """1 if no earlier step of the update was the last one, else 0."""
    loss_ok: float
    """1 if the loss is finite, else 0."""
    grad_ok: float
    """1 if the gradient is finite, else 0."""
    made: float
    """1 if the parameters were changed, else 0."""
