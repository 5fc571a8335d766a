"""Estimates made of a horizon's rewards and values, as functions of tensors."""

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Moments of samples, float64, of one shape each."""

    number: Tensor
    """How many there are."""
    mean: Tensor
    var: Tensor
    """Population variance."""


def gae(
    rewards: Tensor,
    values: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    ended: Tensor | None = None,
    end_values: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Estimate advantages and returns of rollouts.

    Âₜ = δₜ + γλ Âₜ₊₁   with   δₜ = rₜ + γ V(sₜ₊₁) − V(sₜ)   and   Â_T = 0
    R̂ₜ = Âₜ + V(sₜ)

    Schulman et al. 2016, arXiv:1506.02438, equations 11 and 16. Where an episode ends with step t, Âₜ₊₁ is of
    another one and counts 0, and V(sₜ₊₁) is what its own next state is worth.

    Args:
        rewards: [B, T]. Reward of the step taken at t.
        values: [B, T + 1]. Value of the observation at t; the last one bootstraps.
        gamma: Discount factor γ.
        gae_lambda: λ, between bias (0) and variance (1).
        ended: [B, T], bool. Whether an episode ends with the step; None if none does.
        end_values: [B, T]. What comes after such a step is worth: 0 after a terminal state.

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
    next_values = values[:, 1:]
    if ended is not None and end_values is not None:
        next_values = torch.where(ended, end_values, next_values)
    deltas = rewards + gamma * next_values - values[:, :-1]
    advantages = torch.empty_like(deltas)
    advantage = torch.zeros_like(deltas[:, 0])
    steps = zip(deltas.unbind(1), advantages.unbind(1), strict=True)
    for t, (delta, out) in reversed([*enumerate(steps)]):
        if ended is not None:
            advantage = advantage.masked_fill(ended[:, t], 0.0)
        advantage = torch.add(delta, advantage, alpha=gamma * gae_lambda, out=out)
    return advantages, advantages + values[:, :-1]


def reversed_discounted_returns(
    rewards: Tensor, before: Tensor, *, gamma: float, ended: Tensor | None = None
) -> Tensor:
    """Sum the rewards of an episode up to each step, discounted backward in time.

    Gₜ = γ Gₜ₋₁ + rₜ

    Its standard deviation scales the rewards: Engstrom et al. 2020, arXiv:2005.12729, section 3.

    Args:
        rewards: [B, T]. Reward of the step taken at t.
        before: [B]. The sum before the first step: 0 after a reset, else the last one of the horizon before.
        gamma: Discount factor γ.
        ended: [B, T], bool. Whether an episode ends with the step, and the next sum begins anew; None if none
            does.

    Returns:
        Sums, [B, T].
    """
    sums = torch.empty_like(rewards)
    for t, (reward, out) in enumerate(zip(rewards.unbind(1), sums.unbind(1), strict=True)):
        before = torch.add(reward, before, alpha=gamma, out=out)
        if ended is not None:
            before = before.masked_fill(ended[:, t], 0.0)
    return sums


def mean(values: Tensor, counted: Tensor | None) -> Tensor:
    """Return the mean of those values, [], that `counted` marks, bool of the same shape; None marks all."""
    return values.mean() if counted is None else values.where(counted, 0.0).sum() / counted.sum().clamp_min(1)


def variance(values: Tensor, counted: Tensor | None) -> Tensor:
    """Return the population variance of those values, [], that `counted` marks; None marks all."""
    if counted is None:
        return values.var(correction=0)
    return mean((values - mean(values, counted)).square(), counted)


def moments(values: Tensor, counted: Tensor | None) -> Moments:
    """Return the moments of those values, [] each, that `counted` marks; None marks all."""
    exact = values.to(torch.float64)
    number = exact.new_tensor(exact.numel()) if counted is None else counted.sum().to(torch.float64)
    return Moments(number, mean(exact, counted), variance(exact, counted))


def merged(parts: Moments) -> Moments:
    """Return the moments of all samples, [...], given those of their parts, [R, ...].

    M = Σ n m / Σ n   and   V = Σ n (v + (m − M)²) / Σ n

    Chan, Golub & LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample variances.

    Args:
        parts: What is said of a part without samples doesn't matter.
    """
    number = parts.number.sum(0)
    share = parts.number / number.clamp_min(1)
    total = torch.where(share > 0, share * parts.mean, 0.0).sum(0)
    spread = share * (parts.var + (parts.mean - total).square())
    return Moments(number, total, torch.where(share > 0, spread, 0.0).sum(0))


def normalize(values: Tensor, counted: Tensor | None = None) -> Tensor:
    """Shift and scale values to mean 0 and standard deviation 1: (x − mean) / (std + 1e-8).

    Args:
        values: Numbers.
        counted: Which of them count, bool of the same shape, the others become 0; None counts all.
    """
    # The squares of huge ones would leave float32.
    exact = values.to(torch.float64)
    normalized = (exact - mean(exact, counted)) / (variance(exact, counted).sqrt() + 1e-8)
    return (normalized if counted is None else normalized.where(counted, 0.0)).to(values.dtype)


def explained_variance(values: Tensor, returns: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return 1 − Var[R − V] / Var[R], []: 1 for perfect values, 0 for constant ones.

    Where the returns don't vary there is nothing to explain, and the result is 0.

    Args:
        values: V.
        returns: R, of the same shape.
        counted: Which of them count, bool; None counts all.
    """
    exact = returns.to(torch.float64)
    whole = variance(exact, counted)
    share = 1 - variance(exact - values, counted) / whole
    return torch.where(whole > 0, share, torch.zeros_like(share)).to(returns.dtype)


def bootstrap_gap(values: Tensor, returns: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return how far values at a horizon's end are from those before: (mean V_T − mean V_t<T) / Std[R], [].

    Where the returns don't vary there is no unit to measure in, and the result is 0.

    Args:
        values: [B, T + 1]. Value of the observation at t; the last one bootstraps.
        returns: [B, T]. Targets of the values.
        counted: [B, T], bool. Which of them count; None counts all.
    """
    deviation = variance(returns.to(torch.float64), counted).sqrt()
    gap = (values[:, -1].mean() - mean(values[:, :-1], counted)) / deviation
    return torch.where(deviation > 0, gap, torch.zeros_like(gap)).to(values.dtype)
