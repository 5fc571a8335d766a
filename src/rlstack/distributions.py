"""Action distributions: how an action is drawn from what the model says of an observation."""

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn.functional import softplus

from . import specs
from .data import LOG_STD, LOGITS, MEAN, Batch

if TYPE_CHECKING:
    from .models import Model, RecurrentModel

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Distribution(ABC):
    """Distribution of the actions of N rows, each independent of the others.

    Args:
        features: [N, ...]. What the model returned, its time dimension (if any) merged into the rows.
        model: The model; its `action_spec` tells the shape of an action.
    """

    squashed: ClassVar[bool] = False
    """Whether samples lie in [-1, 1]; the policy then maps them onto the bounds of a Bounded action spec."""

    def __init__(self, features: TensorDict, model: "Model | RecurrentModel", /) -> None:
        self.features = features
        self.model = model

    @abstractmethod
    def sample(self) -> Batch:
        """Return random actions, [N, *A]."""

    @abstractmethod
    def deterministic_sample(self) -> Batch:
        """Return the actions to take when nothing may be random, [N, *A]."""

    @abstractmethod
    def logp(self, samples: Any) -> Tensor:
        """Return the log-probability (or log-density) of samples [N, *A], summed over A: [N, 1]."""

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

    def logp(self, samples: Tensor) -> Tensor:
        """Return log p(samples), summed over A: [N, 1]."""
        choices = samples.to(torch.int64)
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


@final
class Normal(Distribution):
    """Real actions, each normal with its own mean and standard deviation.

    Reads the features `mean` and `log_std`: [N, *A].
    """

    def __init__(self, features: TensorDict, model: "Model | RecurrentModel", /) -> None:
        super().__init__(features, model)
        self._mean, self._log_std = _mean_and_log_std(features, model)

    def sample(self) -> Tensor:
        """Return mean + std · ε with ε ~ N(0, 1): [N, *A]."""
        return self._mean + self._log_std.exp() * torch.randn_like(self._mean)

    def deterministic_sample(self) -> Tensor:
        """Return the mean: [N, *A]."""
        return self._mean

    def logp(self, samples: Tensor) -> Tensor:
        """Return log N(samples; mean, std), summed over A: [N, 1]."""
        return _sum_actions(_normal_logp(samples, self._mean, self._log_std))

    def entropy(self) -> Tensor:
        """Return ½ + ½ log 2π + log std, summed over A: [N, 1]."""
        return _sum_actions(0.5 + HALF_LOG_2PI + self._log_std)


@final
class SquashedNormal(Distribution):
    """Real actions in [-1, 1]: the hyperbolic tangent of a normal variable.

    Reads the features `mean` and `log_std`, both of the variable before the tangent: [N, *A].
    """

    squashed = True

    def __init__(self, features: TensorDict, model: "Model | RecurrentModel", /) -> None:
        super().__init__(features, model)
        self._mean, self._log_std = _mean_and_log_std(features, model)

    def sample(self) -> Tensor:
        """Return tanh(mean + std · ε) with ε ~ N(0, 1), strictly inside (-1, 1): [N, *A]."""
        return _clamp_inside(torch.tanh(self._mean + self._log_std.exp() * torch.randn_like(self._mean)))

    def deterministic_sample(self) -> Tensor:
        """Return tanh(mean), strictly inside (-1, 1): [N, *A]."""
        return _clamp_inside(torch.tanh(self._mean))

    def logp(self, samples: Tensor) -> Tensor:
        """Return the log-density of samples in [-1, 1], summed over A: [N, 1].

        log p(a) = log N(atanh a; mean, std) − log(1 − a²)
        """
        inside = _clamp_inside(samples)
        # 1 − |a| is exact near the bounds, so these logarithms are too; 1 − a² would not be.
        above, below = torch.log1p(inside), torch.log1p(-inside)
        variable = 0.5 * (above - below)
        return _sum_actions(_normal_logp(variable, self._mean, self._log_std) - (above + below))

    def entropy(self) -> Tensor:
        """Return an unbiased estimate of the entropy from one sample u per row, summed over A: [N, 1].

        H = H[N(mean, std)] + E[log(1 − tanh² u)]; the first term is exact, only the second is sampled.
        """
        variable = self._mean + self._log_std.exp() * torch.randn_like(self._mean)
        # log(1 − tanh² u) = 2 (log 2 − u − softplus(−2u)), stable for large |u|.
        log_slope = 2 * (math.log(2) - variable - softplus(-2 * variable))
        return _sum_actions(0.5 + HALF_LOG_2PI + self._log_std + log_slope)


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
        if not (torch.isfinite(action_spec.space.low) & torch.isfinite(action_spec.space.high)).all():
            raise ValueError("action_spec is Bounded with an infinite bound: use finite bounds, or Unbounded")
        return SquashedNormal
    raise TypeError(
        f"action_spec is {cls.__name__} of {action_spec.dtype}, for which there is no default distribution: "
        "use Categorical, MultiCategorical, or floating Unbounded or Bounded, or give a distribution_cls "
        "and a model_cls"
    )


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


def _clamp_inside(samples: Tensor) -> Tensor:
    """Return samples clamped to the largest number below 1, and above −1, of their dtype."""
    bound = 1 - torch.finfo(samples.dtype).eps / 2
    return samples.clamp(-bound, bound)
