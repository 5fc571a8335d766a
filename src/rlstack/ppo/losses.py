"""The maths of proximal policy optimization: functions of tensors, and nothing else.

`docs/ppo.md` tells where each formula comes from and what other libraries call its parts.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class PPOLoss(NamedTuple):
    """The loss of some rows and what it is made of, each a mean over the rows, []."""

    total: Tensor
    """policy + vf_coeff · vf − entropy_coeff · entropy; the one to differentiate."""
    policy: Tensor
    """The clipped surrogate, negated."""
    vf: Tensor
    """Half the squared error of the values, clipped."""
    entropy: Tensor
    """Entropy of the policy."""
    kl_div: Tensor
    """Estimate of the divergence KL(old policy ‖ new policy)."""
    clip_fraction: Tensor
    """Share of rows whose policy ratio is outside 1 ± clip_param."""


def ppo_loss(
    *,
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    entropy: Tensor,
    clip_param: float | Tensor,
    vf_clip_param: float | None,
    dual_clip_param: float | None,
    vf_coeff: float,
    entropy_coeff: float | Tensor,
    weights: Tensor | None = None,
) -> PPOLoss:
    """Return the loss of proximal policy optimization; all tensors have the same shape.

    Args:
        logp: Log-probability of the actions under the policy that is updated.
        old_logp: The same under the policy that collected them.
        advantages: Â.
        values: V, of the policy that is updated.
        old_values: V of the policy that collected.
        returns: R̂, the targets of the values.
        entropy: Entropy of the policy that is updated.
        clip_param: ε of `policy_loss`.
        vf_clip_param: Of `value_loss`.
        dual_clip_param: c of `policy_loss`.
        vf_coeff: Weight of the value loss.
        entropy_coeff: Weight of the entropy bonus.
        weights: How much each row counts in the means; None counts all the same.

    Raises:
        ValueError: If the shapes differ.
    """
    shapes = {tuple(x.shape) for x in (logp, old_logp, advantages, values, old_values, returns, entropy)}
    if len(shapes) > 1:
        raise ValueError(f"the tensors have the shapes {sorted(shapes)}, expected one and the same for all")
    log_ratio = logp - old_logp
    ratio = _ratio(log_ratio, advantages, dual_clip_param)
    policy = policy_loss(ratio, advantages, clip_param=clip_param, dual_clip_param=dual_clip_param)
    vf = value_loss(values, old_values, returns, vf_clip_param=vf_clip_param)
    with torch.no_grad():
        kl_div = kl_divergence(log_ratio)
        clip_fraction = ((ratio - 1).abs() > clip_param).to(ratio.dtype)
    policy, vf, mean_entropy, kl_div, clip_fraction = (
        rows.mean() if weights is None else (weights * rows).mean()
        for rows in (policy, vf, entropy, kl_div, clip_fraction)
    )
    total = policy + vf_coeff * vf - entropy_coeff * mean_entropy
    return PPOLoss(total, policy, vf, mean_entropy, kl_div, clip_fraction)


def _ratio(log_ratio: Tensor, advantages: Tensor, dual_clip_param: float | None) -> Tensor:
    """Return ρ = exp(log ρ), no infinity where `policy_loss` is sure to clip it.

    Its derivative is 0 there, and backward would multiply that with ρ.
    """
    largest = math.log(torch.finfo(log_ratio.dtype).max) - 1e-5
    if dual_clip_param is not None:
        return log_ratio.clamp_max(largest).exp()
    bounds = torch.full_like(advantages, largest).masked_fill_(advantages < 0, torch.inf)
    return torch.minimum(log_ratio, bounds).exp()


def policy_loss(
    ratio: Tensor, advantages: Tensor, *, clip_param: float | Tensor, dual_clip_param: float | None
) -> Tensor:
    """Return the negated clipped surrogate of each row.

    L = −min(ρ Â, clip(ρ, 1 − ε, 1 + ε) Â)            Schulman et al. 2017, arXiv:1707.06347, equation 7
    and, for Â < 0, at most −c Â                       Ye et al. 2020, arXiv:1912.09729, equation 5

    Args:
        ratio: ρ, new over old probability of the action.
        advantages: Â.
        clip_param: ε.
        dual_clip_param: c > 1; None doesn't bound.
    """
    clipped = ratio.clamp(min=1 - clip_param, max=1 + clip_param)  # type: ignore[arg-type]
    surrogate = torch.minimum(ratio * advantages, clipped * advantages)
    if dual_clip_param is not None:
        bounded = torch.maximum(surrogate, dual_clip_param * advantages)
        surrogate = torch.where(advantages < 0, bounded, surrogate)
    return -surrogate


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, vf_clip_param: float | None) -> Tensor:
    """Return half the squared error of each row's value, clipped around the collected value.

    L = ½ max((V − R̂)², (V_clip − R̂)²)   with   V_clip = V_old + clip(V − V_old, ±vf_clip_param)

    Engstrom et al. 2020, arXiv:2005.12729, section 3.

    Args:
        values: V.
        old_values: V_old, when the transitions were collected.
        returns: R̂.
        vf_clip_param: How far a value may move; None doesn't clip.
    """
    errors = (values - returns).square()
    if vf_clip_param is not None:
        clipped = old_values + (values - old_values).clamp(-vf_clip_param, vf_clip_param)
        errors = torch.maximum(errors, (clipped - returns).square())
    return 0.5 * errors


def kl_divergence(log_ratio: Tensor) -> Tensor:
    """Estimate KL(old ‖ new) from each row's log-ratio of new to old: ρ − 1 − log ρ.

    The k3 estimator: unbiased, never negative, of low variance (Schulman 2020, Approximating KL Divergence).
    """
    return log_ratio.expm1() - log_ratio
