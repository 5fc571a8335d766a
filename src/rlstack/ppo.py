"""The maths of proximal policy optimization: functions of tensors, and nothing else.

`docs/ppo.md` tells where each formula comes from and what other libraries call its parts.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


def gae(rewards: Tensor, values: Tensor, *, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Estimate advantages and returns of rollouts that never terminate.

    Âₜ = δₜ + γλ Âₜ₊₁   with   δₜ = rₜ + γ V(sₜ₊₁) − V(sₜ)   and   Â_T = 0
    R̂ₜ = Âₜ + V(sₜ)

    Schulman et al. 2016, arXiv:1506.02438, equations 11 and 16.

    Args:
        rewards: [B, T]. Reward of the step taken at t.
        values: [B, T + 1]. Value of the observation at t; the last one bootstraps.
        gamma: Discount factor γ.
        gae_lambda: λ, between bias (0) and variance (1).

    Returns:
        Advantages [B, T] and returns [B, T].

    Raises:
        ValueError: If the shapes don't fit.
    """
    if rewards.ndim != 2 or values.shape != (rewards.shape[0], rewards.shape[1] + 1):
        raise ValueError(
            f"rewards has shape {list(rewards.shape)} and values {list(values.shape)}, "
            "expected [B, T] and [B, T + 1]: pass the value of the last observation too"
        )
    deltas = rewards + gamma * values[:, 1:] - values[:, :-1]
    advantages = torch.empty_like(deltas)
    advantage = torch.zeros_like(deltas[:, 0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        advantage = deltas[:, t] + gamma * gae_lambda * advantage
        advantages[:, t] = advantage
    return advantages, advantages + values[:, :-1]


def reversed_discounted_returns(rewards: Tensor, before: Tensor, *, gamma: float) -> Tensor:
    """Sum the rewards up to each step, discounted backward in time.

    Gₜ = γ Gₜ₋₁ + rₜ

    Its standard deviation scales the rewards: Engstrom et al. 2020, arXiv:2005.12729, section 3.

    Args:
        rewards: [B, T]. Reward of the step taken at t.
        before: [B]. The sum before the first step: 0 after a reset, else the last one of the horizon before.
        gamma: Discount factor γ.

    Returns:
        Sums, [B, T].
    """
    sums = torch.empty_like(rewards)
    for t in range(rewards.shape[1]):
        before = gamma * before + rewards[:, t]
        sums[:, t] = before
    return sums


def normalize(values: Tensor) -> Tensor:
    """Shift and scale values to mean 0 and standard deviation 1: (x − mean) / (std + 1e-8)."""
    # The squares of huge ones would leave float32.
    exact = values.to(torch.float64)
    return ((exact - exact.mean()) / (exact.std(correction=0) + 1e-8)).to(values.dtype)


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """Return 1 − Var[R − V] / Var[R], []: 1 for perfect values, 0 for constant ones.

    Where the returns don't vary there is nothing to explain, and the result is 0.
    """
    exact = returns.to(torch.float64)
    variance = exact.var(correction=0)
    share = 1 - (exact - values).var(correction=0) / variance
    return torch.where(variance > 0, share, torch.zeros_like(share)).to(returns.dtype)


def bootstrap_gap(values: Tensor, returns: Tensor) -> Tensor:
    """Return how far values at a horizon's end are from those before: (mean V_T − mean V_t<T) / Std[R], [].

    Where the returns don't vary there is no unit to measure in, and the result is 0.

    Args:
        values: [B, T + 1]. Value of the observation at t; the last one bootstraps.
        returns: [B, T]. Targets of the values.
    """
    deviation = returns.to(torch.float64).std(correction=0)
    gap = (values[:, -1].mean() - values[:, :-1].mean()) / deviation
    return torch.where(deviation > 0, gap, torch.zeros_like(gap)).to(values.dtype)


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
    clip_param: float,
    vf_clip_param: float | None,
    dual_clip_param: float | None,
    vf_coeff: float,
    entropy_coeff: float | Tensor,
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

    Raises:
        ValueError: If the shapes differ.
    """
    shapes = {tuple(x.shape) for x in (logp, old_logp, advantages, values, old_values, returns, entropy)}
    if len(shapes) > 1:
        raise ValueError(f"the tensors have the shapes {sorted(shapes)}, expected one and the same for all")
    log_ratio = logp - old_logp
    ratio = _ratio(log_ratio, advantages, dual_clip_param)
    policy = policy_loss(ratio, advantages, clip_param=clip_param, dual_clip_param=dual_clip_param).mean()
    vf = value_loss(values, old_values, returns, vf_clip_param=vf_clip_param).mean()
    mean_entropy = entropy.mean()
    with torch.no_grad():
        kl_div = kl_divergence(log_ratio).mean()
        clip_fraction = ((ratio - 1).abs() > clip_param).to(ratio.dtype).mean()
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
    advantages: Tensor, *, clip_param: float, dual_clip_param: float | None
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


def policy_loss(
    ratio: Tensor, advantages: Tensor, *, clip_param: float, dual_clip_param: float | None
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
    clipped = ratio.clamp(1 - clip_param, 1 + clip_param)
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
