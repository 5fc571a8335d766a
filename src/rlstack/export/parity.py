"""Whether an exported policy does what the policy does."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..common.errors import ExportError
from .acting import Acting
from .programs import Run
from .tensors import apart, random_obs

if TYPE_CHECKING:
    from ..policies.base import PolicyBase

TOLERANCE = 1e-5
"""Largest difference, in units of the number itself where that is larger than 1."""

_BATCHES = (1, 9, 30, 60)
"""100 observations, in batches of several sizes."""

_TIE = 1e-4
"""By how much the log-probability of a choice may be below the best one's, if rounding has made it win."""

_STEPS_BEFORE = 3
"""With which recurrent states become what they usually are."""


def example(policy: "PolicyBase", rows: int, *, deterministic: bool) -> list[Tensor]:
    """Return random inputs [rows, ...] of an `Acting`, as a policy usually sees them."""
    obs, state = _typical_obs(policy, rows), policy.initial_state(rows)
    for _ in range(_STEPS_BEFORE if state is not None else 0):
        _, _, state = policy.acting_step(_typical_obs(policy, rows), state)
    inputs = apart(policy.acting_spec, obs)
    if state is not None:
        inputs += apart(policy.state_spec, state)
    if not deterministic:
        features, _, _ = policy.acting_step(obs, state)
        shape = policy.distribution_cls(features, policy.model).noise_shape()
        # Between 0 and 1, which numbers of any of these kinds can be.
        inputs.append(torch.rand(shape))
    # ONNX Runtime and torch.export want tensors in order.
    return [value.contiguous() for value in inputs]


def _typical_obs(policy: "PolicyBase", rows: int) -> Any:
    """Return random observations, such as a normalizer has seen them; of acting's part alone."""
    obs = random_obs(policy.observation_spec, rows, torch.device("cpu"))
    return obs if policy.normalizer is None else policy.normalizer.restore(obs)


@torch.no_grad()
def largest_error(acting: Acting, run: Run, *, deterministic: bool) -> float:
    """Return by how much features, actions and states differ at most, for 100 random observations.

    Args:
        acting: The policy.
        run: What was exported.
        deterministic: Whether it acts without chance.

    Raises:
        ExportError: If they differ by more than rounding, or a discrete action does that isn't a tie.
    """
    largest = 0.0
    for rows in _BATCHES:
        inputs = example(acting.policy, rows, deterministic=deterministic)
        expected, found = acting(*inputs), run(inputs)
        for name, value in expected.items():
            other = found[name]
            if other.shape != value.shape or other.dtype != value.dtype:
                raise ExportError(
                    f"{name} of the exported policy is {other.dtype} of shape {list(other.shape)}, expected "
                    f"{value.dtype} of shape {list(value.shape)}: this is a fault of torch's exporter"
                )
            error = _error(value, other)
            if deterministic and name == "action" and not value.dtype.is_floating_point:
                error[_ties(acting, inputs, value, other)] = 0
            if not error.max() <= max(largest, TOLERANCE):
                raise ExportError(
                    f"{name} of the exported policy differs by {error.max().item():.3g}, more than "
                    f"{TOLERANCE:g}: it must be the same function of the observations each time, without "
                    "random numbers, counters or other things that are kept between calls"
                )
            largest = max(largest, error.max().item())
    return largest


def _error(value: Tensor, other: Tensor) -> Tensor:
    """Return by how much two tensors [N, ...] differ in each row, float64 [N]."""
    one, two = value.double().flatten(1), other.double().flatten(1)
    # Of what is masked, infinities are the same.
    error = torch.where(one == two, 0.0, (one - two).abs() / one.abs().clamp_min(1))
    return error.max(1).values


def _ties(acting: Acting, inputs: list[Tensor], value: Tensor, other: Tensor) -> Tensor:
    """Return in which rows another discrete action [N, *A] is as probable as this one, bool [N]."""
    distribution, _ = acting.distribution(*inputs)
    drawn = distribution.deterministic_sample()
    if not isinstance(drawn, Tensor) or drawn.shape != other.shape:
        return torch.zeros(len(other), dtype=torch.bool)
    lost = distribution.logp(drawn) - distribution.logp(other.to(drawn.dtype))
    return (lost <= _TIE).squeeze(1)
