"""Running mean and variance on the device, for rewards and observations."""

from typing import final

import torch
from torch import Tensor, nn

from . import specs
from .data import Batch


@final
class RunningMoments(nn.Module):
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
    def update(self, samples: Tensor) -> None:
        """Merge a batch.

        Args:
            samples: [..., *shape]. Any number of leading dimensions.
        """
        rows = samples.reshape(-1, *self.mean.shape).to(torch.float64)
        count = self.count + rows.shape[0]
        share = rows.shape[0] / count
        delta = rows.mean(0) - self.mean
        var = (1 - share) * self.var + share * rows.var(0, correction=0) + share * (1 - share) * delta**2
        self.mean.add_(share * delta)
        self.var.copy_(var)
        self.count.copy_(count)

    def normalize(self, samples: Tensor) -> Tensor:
        """Return (samples − mean) / √(var + 1e-8), in the dtype of the samples.

        Args:
            samples: [..., *shape].
        """
        scale = (self.var + 1e-8).rsqrt()
        return (samples - self.mean.to(samples.dtype)) * scale.to(samples.dtype)


@final
class ObservationNormalizer(nn.Module):
    """Running moments of each real leaf of an observation spec; discrete leaves stay as they are.

    Args:
        observation_spec: Of one environment.
    """

    def __init__(self, observation_spec: specs.TensorSpec) -> None:
        super().__init__()
        real = [
            (path, leaf)
            for path, leaf in specs.leaves(observation_spec)
            if specs.kind(leaf) in (specs.Unbounded, specs.Bounded) and leaf.dtype.is_floating_point
        ]
        self._paths = [path for path, _ in real]
        self.moments = nn.ModuleList(RunningMoments(tuple(leaf.shape)) for _, leaf in real)

    def update(self, obs: Batch) -> None:
        """Merge observations [..., *shape], any number of leading dimensions."""
        for path, moments in zip(self._paths, self.moments, strict=True):
            moments.update(obs if isinstance(obs, Tensor) else obs[path])  # type: ignore[operator]

    def forward(self, obs: Batch) -> Batch:
        """Return observations [..., *shape] with their real leaves normalized."""
        if isinstance(obs, Tensor):
            return self.moments[0].normalize(obs) if self._paths else obs  # type: ignore[operator]
        normalized = obs.copy()
        for path, moments in zip(self._paths, self.moments, strict=True):
            normalized[path] = moments.normalize(obs[path])  # type: ignore[operator]
        return normalized
