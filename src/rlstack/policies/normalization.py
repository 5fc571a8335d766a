"""Running mean and variance on the device, for rewards and observations."""

from typing import final

import torch
from torch import Tensor, nn

from .. import specs
from ..common.types import OBS, Batch

LARGEST = 10.0
"""How many standard deviations from the mean a normalized observation can be; what is farther is clipped."""

_ROUNDING = 1e-12
"""Standard deviation, in units of the mean, that sums in float64 leave of a value that never changes."""


@final
class RunningMeanStd(nn.Module):
    """Mean and variance of everything seen so far, merged batch by batch.

    Batches are merged with the parallel formula of Chan, Golub & LeVeque (1979), in float64.

    Args:
        shape: Shape of one sample.
    """

    mean: Tensor
    """[*shape]. Mean so far, 0 before the first update."""
    var: Tensor
    """[*shape]. Population variance so far, 1 before the first update."""
    count: Tensor
    """[]. Samples so far."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, samples: Tensor, counted: Tensor | None = None) -> None:
        """Merge a batch.

        Args:
            samples: [..., *shape]. Any number of leading dimensions.
            counted: [...], or with a last dimension of 1, bool. Which of them count; None counts all.
        """
        rows = samples.reshape(-1, *self.mean.shape).to(torch.float64)
        number, mean, spread = _moments(rows, counted)
        count = self.count + number
        share = number / count.clamp_min(1)
        delta = mean - self.mean
        var = (1 - share) * self.var + share * spread + share * (1 - share) * delta**2
        self.mean.add_(share * delta)
        self.var.copy_(var)
        self.count.copy_(count)

    @torch.no_grad()
    def copy_from(self, other: "RunningMeanStd") -> None:
        """Take over what another one has seen."""
        for mine, theirs in zip(self.buffers(), other.buffers(), strict=True):
            mine.copy_(theirs)

    def normalize(self, samples: Tensor) -> Tensor:
        """Return (samples − mean) / √(var + 1e-8), within ±10, in the dtype of the samples.

        The variance of what has never changed counts as 1.

        Args:
            samples: [..., *shape].
        """
        var = torch.where(self.var <= (_ROUNDING * self.mean).square(), 1.0, self.var)
        scale = (var + 1e-8).rsqrt()
        return ((samples - self.mean.to(samples.dtype)) * scale.to(samples.dtype)).clamp(-LARGEST, LARGEST)


def _moments(rows: Tensor, counted: Tensor | None) -> tuple[int | Tensor, Tensor, Tensor]:
    """Return number, mean and variance of the rows that count."""
    if counted is None:
        return rows.shape[0], rows.mean(0), rows.var(0, correction=0)
    weights = counted.reshape(-1, *[1] * (rows.ndim - 1)).to(rows.dtype)
    number = weights.sum()
    mean = (weights * rows).sum(0) / number.clamp_min(1)
    return number, mean, (weights * (rows - mean).square()).sum(0) / number.clamp_min(1)


@final
class _Range(nn.Module):
    """Scales the numbers of a bounded integer leaf to [-1, 1]."""

    low: Tensor
    width: Tensor

    def __init__(self, spec: specs.TensorSpec) -> None:
        super().__init__()
        low, high = (bound.to(torch.get_default_dtype()) for bound in (spec.space.low, spec.space.high))
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("width", (high - low).clamp_min(1.0), persistent=False)

    def normalize(self, samples: Tensor) -> Tensor:
        """Return 2 (samples − low) / (high − low) − 1, in torch's default dtype."""
        return 2 * (samples.to(self.low.dtype) - self.low) / self.width - 1


@final
class ObservationNormalizer(nn.Module):
    """Normalizes real leaves by running moments, integers by their bounds; discrete leaves stay as they are.

    Args:
        observation_spec: Of one environment.

    Raises:
        ValueError: If a leaf has integers without bounds.
    """

    def __init__(self, observation_spec: specs.TensorSpec) -> None:
        super().__init__()
        real = [
            (path, leaf)
            for path, leaf in specs.leaves(observation_spec)
            if specs.kind(leaf) in (specs.Unbounded, specs.Bounded) and leaf.dtype != torch.bool
        ]
        floats = [(path, leaf) for path, leaf in real if leaf.dtype.is_floating_point]
        integers = [(path, leaf) for path, leaf in real if not leaf.dtype.is_floating_point]
        for path, leaf in integers:
            if specs.kind(leaf) is specs.Unbounded:
                raise ValueError(
                    f"{'.'.join((OBS, *path))} is Unbounded with dtype {leaf.dtype}, which "
                    "normalize_observations can't scale: make it Bounded, or a float"
                )
        self._paths = [path for path, _ in floats]
        self.moments = nn.ModuleList(RunningMeanStd(tuple(leaf.shape)) for _, leaf in floats)
        self._integer_paths = [path for path, _ in integers]
        self._ranges = nn.ModuleList(_Range(leaf) for _, leaf in integers)
        self._scales_integers = bool(integers)
        if integers:
            self.register_buffer("scales_integers", torch.tensor(True))
            self.register_load_state_dict_pre_hook(_leave_integers)  # type: ignore[no-untyped-call]

    def update(self, obs: Batch, counted: Tensor | None = None) -> None:
        """Merge observations [..., *shape], any number of leading dimensions, those that are `counted`."""
        for path, moments in zip(self._paths, self.moments, strict=True):
            moments.update(obs if isinstance(obs, Tensor) else obs[path], counted)  # type: ignore[operator]

    def restore(self, normalized: Batch) -> Batch:
        """Return observations [..., *shape], given their standard deviations from the mean; the way back."""

        def back(given: Tensor, moments: nn.Module) -> Tensor:
            assert isinstance(moments, RunningMeanStd)
            return moments.mean.to(given.dtype) + moments.var.sqrt().to(given.dtype) * given

        if isinstance(normalized, Tensor):
            return back(normalized, self.moments[0]) if self._paths else normalized
        obs = normalized.copy()
        for path, moments in zip(self._paths, self.moments, strict=True):
            obs[path] = back(normalized[path], moments)
        return obs

    def forward(self, obs: Batch, known: specs.TensorSpec | None = None) -> Batch:
        """Return observations [..., *shape] with their real and integer leaves normalized.

        Args:
            obs: [..., *shape]. Observations.
            known: Of the part of them to normalize, others may be absent; None is all.
        """
        normalized = obs if isinstance(obs, Tensor) else obs.copy()
        parts = list(zip(self._paths, self.moments, strict=True))
        if self._scales_integers:
            parts += zip(self._integer_paths, self._ranges, strict=True)
        if known is not None:
            paths = {path for path, _ in specs.leaves(known)}
            parts = [(path, part) for path, part in parts if path in paths]
        for path, part in parts:
            if isinstance(obs, Tensor):
                return part.normalize(obs)  # type: ignore[operator]
            normalized[path] = part.normalize(obs[path])  # type: ignore[operator,index]
        return normalized


def _leave_integers(
    normalizer: ObservationNormalizer, state: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """Leave integers as they are in a policy of rlstack 0.1.0, which did so and says nothing of it."""
    said = state.setdefault(f"{prefix}scales_integers", torch.tensor(False))
    normalizer._scales_integers = bool(said)
