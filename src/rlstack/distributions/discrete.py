"""Distributions of discrete actions."""

from typing import TYPE_CHECKING, final

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from .. import specs
from ..common.types import LOGITS
from .base import Distribution, check_feature, sum_actions

if TYPE_CHECKING:
    from ..models.base import Model, RecurrentModel


@final
class Categorical(Distribution):
    """Discrete actions by their unnormalized log-probabilities.

    Reads the feature `logits`: [N, *A, n] for a Categorical action spec of n choices; [N, sum(nvec)], one
    part after the other, for a MultiCategorical one.
    """

    noise = "standard exponential"

    def __init__(self, features: TensorDict, model: "Model | RecurrentModel", /) -> None:
        super().__init__(features, model)
        logits, spec = features[LOGITS], model.action_spec
        split = specs.kind(spec) is specs.MultiCategorical
        sizes = spec.nvec.tolist() if split else []
        width = (sum(sizes),) if split else (*spec.shape, int(spec.space.n))
        check_feature(LOGITS, logits, width)
        parts = logits.split(sizes, -1) if split else (logits,)
        self._logps = [part.log_softmax(-1) for part in parts]
        self._split = split

    def sample(self) -> Tensor:
        """Return random choices, int64 [N, *A], by an exponential race: argmin of Exp(1) / p."""
        return self._join([_race(logp, _exponential(logp)) for logp in self._logps])

    def noise_shape(self) -> torch.Size:
        """Return that of the logits: [N, *A, n], or [N, sum(nvec)]."""
        return self.features[LOGITS].shape

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return choices, int64 [N, *A], for numbers drawn from Exp(1), as many as logits."""
        parts = noise.split([logp.shape[-1] for logp in self._logps], -1)
        return self._join([_race(logp, part) for logp, part in zip(self._logps, parts, strict=True)])

    def deterministic_sample(self) -> Tensor:
        """Return the most probable choices, int64 [N, *A]."""
        return self._join([logp.argmax(-1) for logp in self._logps])

    def logp(self, drawn: Tensor) -> Tensor:
        """Return log p(drawn), summed over A: [N, 1]."""
        choices = drawn.to(torch.int64).unsqueeze(-1)
        parts = choices.unbind(-2) if self._split else (choices,)
        picked = [logp.gather(-1, choice) for logp, choice in zip(self._logps, parts, strict=True)]
        return sum_actions(torch.cat(picked, -1) if self._split else picked[0])

    def entropy(self) -> Tensor:
        """Return −Σ p log p, summed over A: [N, 1]."""
        return sum_actions(self._join([_entropy(logp) for logp in self._logps]))

    def _join(self, parts: list[Tensor]) -> Tensor:
        return torch.stack(parts, -1) if self._split else parts[0]


@final
class OneHotCategorical(Distribution):
    """Discrete actions by their unnormalized log-probabilities, each a vector with a single 1.

    Reads the feature `logits`: [N, *A], as the action is, its last dimension that of the choices.
    """

    noise = "standard exponential"

    def __init__(self, features: TensorDict, model: "Model | RecurrentModel", /) -> None:
        super().__init__(features, model)
        check_feature(LOGITS, features[LOGITS], tuple(model.action_spec.shape))
        self._logps = features[LOGITS].log_softmax(-1)

    def sample(self) -> Tensor:
        """Return random choices, bool [N, *A], as `Categorical` draws them."""
        return self.from_noise(_exponential(self._logps))

    def noise_shape(self) -> torch.Size:
        """Return that of the logits: [N, *A]."""
        return self._logps.shape

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return choices, bool [N, *A], for numbers [N, *A] drawn from Exp(1)."""
        return self._hot(_race(self._logps, noise))

    def deterministic_sample(self) -> Tensor:
        """Return the most probable choices, bool [N, *A]."""
        return self._hot(self._logps.argmax(-1))

    def logp(self, drawn: Tensor) -> Tensor:
        """Return log p(drawn), summed over A: [N, 1]."""
        return sum_actions(torch.where(drawn.to(torch.bool), self._logps, 0.0))

    def entropy(self) -> Tensor:
        """Return −Σ p log p, summed over A: [N, 1]."""
        return sum_actions(_entropy(self._logps).unsqueeze(-1))

    def _hot(self, choices: Tensor) -> Tensor:
        return choices.unsqueeze(-1) == torch.arange(self._logps.shape[-1], device=choices.device)


@final
class Bernoulli(Distribution):
    """Binary actions, each 1 with a probability p of its own: z = log p − log(1 − p).

    Reads the feature `logits`, z: [N, *A].
    """

    noise = "uniform in [0, 1)"

    def __init__(self, features: TensorDict, model: "Model | RecurrentModel", /) -> None:
        super().__init__(features, model)
        self._logits = features[LOGITS]
        check_feature(LOGITS, self._logits, tuple(model.action_spec.shape))

    def sample(self) -> Tensor:
        """Return whether each is 1, at random: bool [N, *A]."""
        return self.from_noise(torch.rand_like(self._logits))

    def noise_shape(self) -> torch.Size:
        """Return that of the logits: [N, *A]."""
        return self._logits.shape

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return which are 1, bool [N, *A], for numbers [N, *A] drawn evenly from [0, 1)."""
        return noise < self._logits.sigmoid()

    def deterministic_sample(self) -> Tensor:
        """Return whether each is more probably 1 than 0: bool [N, *A]."""
        return self._logits > 0

    def logp(self, drawn: Tensor) -> Tensor:
        """Return log σ(z) of what is 1 and log σ(−z) of what is 0, summed over A: [N, 1]."""
        return sum_actions(logsigmoid(torch.where(drawn.to(torch.bool), self._logits, -self._logits)))

    def entropy(self) -> Tensor:
        """Return −σ(z) log σ(z) − σ(−z) log σ(−z), summed over A: [N, 1]."""
        # What is sure adds nothing: infinities are made finite first.
        most = torch.finfo(self._logits.dtype).max
        z = self._logits.clamp(-most, most)
        return sum_actions(z.sigmoid() * softplus(-z) + (-z).sigmoid() * softplus(z))


def _exponential(logps: Tensor) -> Tensor:
    """Return numbers drawn from Exp(1), as many as log-probabilities."""
    return torch.empty_like(logps).exponential_()


def _race(logps: Tensor, noise: Tensor) -> Tensor:
    """Return choices drawn by their log-probabilities [..., n], int64 [...], given numbers from Exp(1)."""
    # Clamped: a draw of exactly 0 would win against a choice of probability 0.
    return (logps - noise.clamp_min(torch.finfo(logps.dtype).tiny).log()).argmax(-1)


def _entropy(logps: Tensor) -> Tensor:
    """Return −Σ p log p [...] of log-probabilities [..., n]."""
    # A choice of probability 0 adds nothing: its log-probability is made finite first.
    return -(logps.exp() * logps.clamp_min(torch.finfo(logps.dtype).min)).sum(-1)
