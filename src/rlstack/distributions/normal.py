"""Distributions of real actions."""

import math
from typing import TYPE_CHECKING, final

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn.functional import softplus

from .. import specs
from ..common.types import LOG_STD, MEAN
from .base import Distribution, check_feature, sum_actions

if TYPE_CHECKING:
    from ..models.base import Model, RecurrentModel

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class _Gaussian(Distribution):
    """What is drawn is normal, with its own mean and standard deviation for each action."""

    squashed = True
    noise = "standard normal"

    def __init__(self, features: TensorDict, model: "Model | RecurrentModel", /) -> None:
        super().__init__(features, model)
        self._mean, self._log_std = _mean_and_log_std(features, model)

    def sample(self) -> Tensor:
        """Return mean + std · ε with ε ~ N(0, 1): [N, *A]."""
        return self.from_noise(torch.randn_like(self._mean))

    def noise_shape(self) -> torch.Size:
        """Return that of the mean: [N, *A]."""
        return self._mean.shape

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return mean + std · ε for ε [N, *A]."""
        return self._mean + self._log_std.exp() * noise

    def deterministic_sample(self) -> Tensor:
        """Return the mean: [N, *A]."""
        return self._mean


@final
class Normal(_Gaussian):
    """Real actions, each normal with its own mean and standard deviation.

    For a Bounded action spec their unit is half the distance of the bounds: what was drawn is clipped to
    [-1, 1] on its way to the environment, and -1 and 1 are the bounds. It is what recipes for MuJoCo do; the
    log-probability stays that of what was drawn.

    Reads the features `mean` and `log_std`: [N, *A].
    """

    def to_env(self, drawn: Tensor) -> Tensor:
        """Return what was drawn, clipped to [-1, 1] if the action spec is Bounded: [N, *A]."""
        return drawn.clamp(-1, 1) if isinstance(self.model.action_spec, specs.Bounded) else drawn

    def logp(self, drawn: Tensor) -> Tensor:
        """Return log N(drawn; mean, std), summed over A: [N, 1]."""
        return sum_actions(_normal_logp(drawn, self._mean, self._log_std))

    def entropy(self) -> Tensor:
        """Return ½ + ½ log 2π + log std, summed over A: [N, 1]."""
        return sum_actions(0.5 + HALF_LOG_2PI + self._log_std)


@final
class SquashedNormal(_Gaussian):
    """Real actions in [-1, 1]: the hyperbolic tangent of a normal variable.

    What is drawn is the variable before the tangent: where that saturates, the action doesn't tell any more
    what was drawn, and its density can't be found again.

    Reads the features `mean` and `log_std`, both of the variable: [N, *A].
    """

    def to_env(self, drawn: Tensor) -> Tensor:
        """Return tanh u: [N, *A]."""
        return drawn.tanh()

    def logp(self, drawn: Tensor) -> Tensor:
        """Return the log-density of the actions tanh u for drawn u, summed over A: [N, 1].

        log p(tanh u) = log N(u; mean, std) − log(1 − tanh² u)              Haarnoja et al. 2018, appendix C
        """
        return sum_actions(_normal_logp(drawn, self._mean, self._log_std) - log_slope(drawn))

    def entropy(self) -> Tensor:
        """Return H[N(mean, std)] + E[log(1 − tanh² u)], summed over A: [N, 1]; no number is drawn for it."""
        slope = expected_log_slope(self._mean, self._log_std.exp())
        return sum_actions(0.5 + HALF_LOG_2PI + self._log_std + slope)


def log_slope(u: Tensor) -> Tensor:
    """Return log(1 − tanh² u) = 2 (log 2 − u − softplus(−2u)), which is exact for any u; elementwise."""
    return 2 * (math.log(2) - u - softplus(-2 * u))


def expected_log_slope(mean: Tensor, std: Tensor) -> Tensor:
    """Return E[log(1 − tanh² u)] for u ~ N(mean, std), elementwise, within 1e-5.

    log cosh u + log 2 ≈ Σ wᵢ E|N(u, sᵢ)|
    E[log(1 − tanh² u)] ≈ 2 log 2 − 2 Σ wᵢ E|N(mean, √(std² + sᵢ²))|
    with   E|N(m, t)| = m erf(m / √2 t) + t √(2/π) exp(−m² / 2t²)

    The logistic distribution is a scale mixture of normal ones (Andrews & Mallows 1974), few of which suffice
    (Monahan & Stefanski 1992); log cosh is an integral of it.
    """
    expected = torch.full_like(mean, 2 * math.log(2))
    for weight, scale in zip(*slope_mixture(), strict=True):
        spread = (std.square() + scale * scale).sqrt()
        ratio = mean / spread * math.sqrt(0.5)
        distance = mean * ratio.erf() + spread * math.sqrt(2 / math.pi) * (-ratio.square()).exp()
        expected = expected - 2 * weight * distance
    return expected


def slope_mixture() -> tuple[list[float], list[float]]:
    """Return wᵢ and sᵢ of `expected_log_slope`: fitted to log cosh, which they miss by at most 4e-6."""
    # A function of literals: the kernels' TorchScript knows no globals.
    weights = [0.14622889, 0.50048178, 0.31609475, 0.03719458]
    scales = [0.50917713, 0.75689751, 1.12052179, 1.64741002]
    return weights, scales


def _mean_and_log_std(features: TensorDict, model: "Model | RecurrentModel") -> tuple[Tensor, Tensor]:
    mean, log_std = features[MEAN], features[LOG_STD]
    shape = tuple(model.action_spec.shape)
    check_feature(MEAN, mean, shape)
    check_feature(LOG_STD, log_std, shape)
    return mean, log_std


def _normal_logp(samples: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return −½ ((x − mean) / std)² − log std − ½ log 2π, elementwise."""
    return -0.5 * ((samples - mean) * torch.exp(-log_std)) ** 2 - log_std - HALF_LOG_2PI
