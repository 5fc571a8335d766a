"""Gradients of the losses, written out."""

import torch
from torch import Tensor


def policy_gradient(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, caps: Tensor, floors: Tensor | None
) -> Tensor:
    """Return minus the derivative of each row's `policy_loss` with respect to its log-probability.

    −∂L/∂ log p = ρ Â,   0 where ρ Â is above its cap or not above its floor

    Args:
        logp: Log-probability of the action under the policy that is updated.
        old_logp: The same under the policy that collected it.
        advantages: Â; multiplied by a positive number, with the bounds, they give so many times the result.
        caps: Upper bound of the surrogate, as of `surrogate_bounds`.
        floors: Lower bound of it, or None.
    """
    surrogate = (logp - old_logp).exp_().mul_(advantages)
    # Also where it is NaN: an infinite ratio of an advantage of 0.
    cut = (surrogate <= caps).logical_not_()
    if floors is not None:
        cut |= surrogate <= floors
    return surrogate.masked_fill_(cut, 0.0)


def surrogate_bounds(
    advantages: Tensor, *, clip_param: float | Tensor, dual_clip_param: float | None
) -> tuple[Tensor, Tensor | None]:
    """Return how large, and how small, the surrogate ρ Â may be before `policy_loss` clips it.

    The clipped surrogate is the smaller one where ρ Â > (1 ± ε) Â, with the sign of Â; and if dual_clip_param
    is c, c Â is the larger one where Â < 0 and ρ Â < c Â.
    """
    caps = advantages + clip_param * advantages.abs()
    if dual_clip_param is None:
        return caps, None
    return caps, torch.where(advantages < 0, dual_clip_param * advantages, -torch.inf)


def value_gradient(values: Tensor, returns: Tensor, lowest: Tensor | None, highest: Tensor | None) -> Tensor:
    """Return the derivative of each row's `value_loss` with respect to its value.

    ∂L/∂V = V − R̂,   0 where the clipped value has the larger error

    Args:
        values: V.
        returns: R̂.
        lowest: As of `error_bounds`.
        highest: As of `error_bounds`.
    """
    errors = values - returns
    if lowest is None:
        return errors
    cut = errors.clamp(lowest, highest).abs_() > errors.abs()
    return errors.masked_fill_(cut, 0.0)


def error_bounds(
    old_values: Tensor, returns: Tensor, *, vf_clip_param: float | None
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Return between which bounds `value_loss` clips the error V − R̂: V_old ± vf_clip_param − R̂."""
    if vf_clip_param is None:
        return None, None
    middle = old_values - returns
    return middle - vf_clip_param, middle + vf_clip_param
