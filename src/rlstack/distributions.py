"""Action distributions: how an action is drawn from what the model says of an observation."""

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn.functional import softplus

from . import specs
from .common.types import LOG_STD, LOGITS, MEAN, Batch

if TYPE_CHECKING:
    from .models.base import Model, RecurrentModel


HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Distribution(ABC):
    """Distribution of the actions of N rows, each independent of the others.

    Args:
        features: [N, ...]. What the model returned, its time dimension (if any) merged into the rows.
        model: The model; its `action_spec` tells the shape of an action.
    """

    squashed: ClassVar[bool] = False
    """Whether `to_env` returns numbers in [-1, 1] where the action spec is Bounded; the policy then maps them
    onto its bounds."""

    def __init__(self, features: TensorDict, model: "Model | RecurrentModel", /) -> None:
        self.features = features
        self.model = model

    @abstractmethod
    def sample(self) -> Batch:
        """Return what is drawn at random, [N, *A]; it is kept as it is until the policy is updated."""

    @abstractmethod
    def deterministic_sample(self) -> Batch:
        """Return what to take when nothing may be random, [N, *A]."""

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


@final
class Categorical(Distribution):
    """Discrete actions by their unnormalized log-probabilities.

    Reads the feature `logits`: [N, *A, n] for a Categorical action spec of n choices; [N, sum(nvec)], one
    part after the other, for a MultiCategorical one.
    """

    def __init__(self, features: TensorDict, model: "Model | RecurrentModel", /) -> None:
        super().__init__(features, model)
        logits, spec = features[LOGITS], model.action_spec
        split = specs.kind(spec) is specs.MultiCategorical
        sizes = spec.nvec.tolist() if split else []
        width = (sum(sizes),) if split else (*spec.shape, int(spec.space.n))
        _check_feature(LOGITS, logits, width)
        parts = logits.split(sizes, -1) if split else (logits,)
        self._logps = [part.log_softmax(-1) for part in parts]
        self._split = split

    def sample(self) -> Tensor:
        """Return random choices, int64 [N, *A], by an exponential race: argmin of Exp(1) / p."""
        draws = []
        for logp in self._logps:
            # Clamped: a draw of exactly 0 would win against a choice of probability 0.
            race = torch.empty_like(logp).exponential_().clamp_min_(torch.finfo(logp.dtype).tiny)
            draws.append((logp - race.log_()).argmax(-1))
        return self._join(draws)

    def deterministic_sample(self) -> Tensor:
        """Return the most probable choices, int64 [N, *A]."""
        return self._join([logp.argmax(-1) for logp in self._logps])

    def logp(self, drawn: Tensor) -> Tensor:
        """Return log p(drawn), summed over A: [N, 1]."""
        choices = drawn.to(torch.int64)
        parts = choices.unbind(-1) if self._split else (choices,)
        picked = [
            logp.gather(-1, choice.unsqueeze(-1)).squeeze(-1)
            for logp, choice in zip(self._logps, parts, strict=True)
        ]
        return _sum_actions(self._join(picked))

    def entropy(self) -> Tensor:
        """Return −Σ p log p, summed over A: [N, 1]."""
        # A choice of probability 0 adds nothing: its log-probability is made finite first.
        smallest = torch.finfo(self._logps[0].dtype).min
        terms = [-(logp.exp() * logp.clamp_min(smallest)).sum(-1) for logp in self._logps]
        return _sum_actions(self._join(terms))

    def _join(self, parts: list[Tensor]) -> Tensor:
        return torch.stack(parts, -1) if self._split else parts[0]


class _Gaussian(Distribution):
    """What is drawn is normal, with its own mean and standard deviation for each action."""

    squashed = True

    def __init__(self, features: TensorDict, model: "Model | RecurrentModel", /) -> None:
        super().__init__(features, model)
        self._mean, self._log_std = _mean_and_log_std(features, model)

    def sample(self) -> Tensor:
        """Return mean + std · ε with ε ~ N(0, 1): [N, *A]."""
        return self._mean + self._log_std.exp() * torch.randn_like(self._mean)

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
        return _sum_actions(_normal_logp(drawn, self._mean, self._log_std))

    def entropy(self) -> Tensor:
        """Return ½ + ½ log 2π + log std, summed over A: [N, 1]."""
        return _sum_actions(0.5 + HALF_LOG_2PI + self._log_std)


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
        return _sum_actions(_normal_logp(drawn, self._mean, self._log_std) - log_slope(drawn))

    def entropy(self) -> Tensor:
        """Return H[N(mean, std)] + E[log(1 − tanh² u)], summed over A: [N, 1]; no number is drawn for it."""
        slope = expected_log_slope(self._mean, self._log_std.exp())
        return _sum_actions(0.5 + HALF_LOG_2PI + self._log_std + slope)


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


def default_distribution(action_spec: specs.TensorSpec) -> type[Distribution]:
    """Return the distribution for an action spec when none is given.

    Raises:
        TypeError: If there is none for it.
    """
    if isinstance(action_spec, specs.Composite):
        raise TypeError("action_spec is a Composite: give a distribution_cls and a model_cls for its actions")
    cls = specs.kind(action_spec)
    if cls is specs.Categorical:
        return Categorical
    if cls is specs.MultiCategorical:
        if len(action_spec.shape) != 1:
            raise ValueError(
                f"action_spec is a MultiCategorical of shape {list(action_spec.shape)}, "
                "expected one dimension: flatten nvec"
            )
        return Categorical
    if cls in (specs.Unbounded, specs.Bounded) and action_spec.dtype.is_floating_point:
        if cls is specs.Unbounded:
            return Normal
        check_bounds(action_spec)
        return SquashedNormal
    raise TypeError(
        f"action_spec is {cls.__name__} of {action_spec.dtype}, for which there is no default distribution: "
        "use Categorical, MultiCategorical, or floating Unbounded or Bounded, or give a distribution_cls "
        "and a model_cls"
    )


def check_bounds(action_spec: specs.Bounded) -> None:
    """Refuse bounds that [-1, 1] can't be mapped onto.

    Raises:
        ValueError: If one is infinite.
    """
    if not (torch.isfinite(action_spec.space.low) & torch.isfinite(action_spec.space.high)).all():
        raise ValueError("action_spec is Bounded with an infinite bound: use finite bounds, or Unbounded")


def _mean_and_log_std(features: TensorDict, model: "Model | RecurrentModel") -> tuple[Tensor, Tensor]:
    mean, log_std = features[MEAN], features[LOG_STD]
    shape = tuple(model.action_spec.shape)
    _check_feature(MEAN, mean, shape)
    _check_feature(LOG_STD, log_std, shape)
    return mean, log_std


def _check_feature(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a feature [N, *shape] of another shape: it would be broadcast, or say nothing sensible."""
    if value.shape[1:] != shape:
        expected = ", ".join(map(str, ("N", *shape)))
        raise ValueError(f"the feature {name} has shape {list(value.shape)}, expected [{expected}]")


def _normal_logp(samples: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return −½ ((x − mean) / std)² − log std − ½ log 2π, elementwise."""
    return -0.5 * ((samples - mean) * torch.exp(-log_std)) ** 2 - log_std - HALF_LOG_2PI


def _sum_actions(values: Tensor) -> Tensor:
    """Return values [N, *A] summed over A: [N, 1]."""
    return values.flatten(1).sum(1, keepdim=True)
