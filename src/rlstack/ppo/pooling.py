"""What is known of a horizon of which each rank has simulated a part: the numbers of all of it."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from ..common.errors import NonFiniteError, RankError
from ..common.metrics import EPISODES
from ..distributed.ranks import Ranks, Said
from ..policies.normalization import RunningMeanStd
from ..policies.policy import Policy, RecurrentPolicy
from .advantages import AdvantageEstimator
from .estimates import Moments, merged
from .rollout_buffer import RolloutBuffer

_ROWS, _DIGEST, _SUMS = "rows", "digest", "sums"
"""Names of what is read back in addition: steps that count, what the parameters are, sums of rewards."""


def merge_stats(reads: Sequence[Mapping[str, float]], num_envs: int) -> dict[str, float]:
    """Return the statistics of a horizon from those of its parts, each of so many environments.

    Counts are added. Means and deviations count as what they are of: `returns/…` as environments,
    `rewards/…` as steps, `episodes/…` as episodes, what an environment says itself as ranks.
    """
    names = dict.fromkeys(name for read in reads for name in read)
    return {name: _merge(name, [read for read in reads if name in read], num_envs) for name in names}


def _merge(name: str, reads: list[Mapping[str, float]], num_envs: int) -> float:
    group, _, kind = name.rpartition("/")
    if name == f"{EPISODES}/count":
        return sum(read[name] for read in reads)
    weights = [_weight(group, read, num_envs) for read in reads]
    parts = [(weight, read) for weight, read in zip(weights, reads, strict=True) if weight]
    if not parts:
        return reads[0][name]
    total = sum(weight for weight, _ in parts)
    own = f"{group}/mean" in parts[0][1] and f"{group}/max" in parts[0][1]
    if own and kind in ("min", "max"):
        return (min if kind == "min" else max)(read[name] for _, read in parts)
    if own and kind == "std":
        means = [read[f"{group}/mean"] for _, read in parts]
        mean = sum(weight * each for (weight, _), each in zip(parts, means, strict=True)) / total
        spread = sum(
            weight * (read[name] ** 2 + (each - mean) ** 2)
            for (weight, read), each in zip(parts, means, strict=True)
        )
        return float((spread / total) ** 0.5)
    return sum(weight * read[name] for weight, read in parts) / total


def _weight(group: str, read: Mapping[str, float], num_envs: int) -> float:
    if group == "returns":
        return float(num_envs)
    if group == "rewards":
        return read[_ROWS]
    return read[f"{EPISODES}/count"] if group.partition("/")[0] == EPISODES else 1.0


def begin_together(ranks: Ranks, params: Mapping[str, str], policy: Policy | RecurrentPolicy) -> None:
    """Compare what the ranks were made with, and let all begin with the policy of rank 0.

    Raises:
        RankError: If a hyperparameter differs; how many rows a machine computes at a time may.
    """
    if not ranks.many:
        return
    mine = {key: value for key, value in params.items() if key not in ("grad_block_size", "device")}
    for rank, said in enumerate(ranks.exchange("beginning", mine)):
        names = sorted(key for key in {**mine, **said.words} if mine.get(key) != said.words.get(key))
        if names:
            name, here, there = names[0], mine.get(names[0]), said.words.get(names[0])
            raise RankError(
                f"{name} is {there!s:.100} on rank {rank} and {here!s:.100} on rank {ranks.index}: give all "
                "ranks the same"
            )
    # In an order that is the same everywhere; normalizers' buffers among them.
    ranks.take_from_first([value for _, value in sorted(policy.state_dict().items())])


@final
class Pool:
    """Makes the numbers of one rank's horizons those of all ranks', in one exchange each.

    Args:
        ranks: All of them.
        buffer: Where this rank's horizon is.
        policy: What has simulated it.
        advantages: Sums the rewards; None if nobody learns from the horizon.
    """

    def __init__(
        self,
        ranks: Ranks,
        buffer: RolloutBuffer,
        policy: Policy | RecurrentPolicy,
        advantages: AdvantageEstimator | None,
    ) -> None:
        self._ranks, self._buffer, self._policy, self._advantages = ranks, buffer, policy, advantages
        self._what = "horizon" if advantages else "evaluation"
        self._met = False
        """Whether the numbers of the horizon at hand have been exchanged."""
        self._observed: list[Moments] = []

    def unread(self) -> dict[str, Tensor]:
        """Return what is to be read back of this rank's horizon in addition; a horizon begins to be known."""
        self._met = False
        buffer, advantages = self._buffer, self._advantages
        rows = (
            buffer.rewards.new_tensor(buffer.rewards.numel()) if buffer.valid is None else buffer.valid.sum()
        )
        parameters = [each.detach().flatten() for each in self._policy.parameters()]
        digest = torch.stack([each.view(torch.int16).sum() for each in parameters]).sum()
        found = {_ROWS: rows.to(torch.float64), _DIGEST: digest}
        return found if advantages is None else {**found, _SUMS: advantages.next_moments.count}

    def __call__(self, read: Mapping[str, Any]) -> dict[str, Any]:
        """Return the numbers of all ranks' horizons for those of this one, by name.

        Raises:
            NonFiniteError: If another rank's horizon isn't sound; then nobody learns from it.
            RankError: If a rank is gone, or has other parameters.
        """
        learns = self._advantages is not None
        every = self._exchange({"read": dict(read)}, self._observe() if learns else None)
        self._compare([said.words["read"][_DIGEST] for said in every])
        reads = [said.words["read"] for said in every]
        pooled = merge_stats(reads, self._buffer.num_envs)
        if self._advantages is not None:
            names = (_SUMS, "mean", "var")
            sums = [[[each[name]] for each in reads] for name in names]
            whole = merged(Moments(*torch.tensor(sums, dtype=torch.float64)))
            after = self._advantages.take_in(*(float(each) for each in whole))
            pooled |= {name: float(value) for name, value in after._asdict().items()}
            self._observed = self._split(torch.stack([said.numbers for said in every]))
        return pooled

    def failed(self, error: BaseException) -> None:
        """Let the others drop their horizons, too, if this one isn't sound."""
        if isinstance(error, NonFiniteError) and not self._met:
            self._exchange({"nonfinite": str(error)}, None)

    def absorb(self) -> None:
        """Take the observations of all ranks into the policy's statistics."""
        for moments, seen in zip(self._moments(), self._observed, strict=True):
            shape, device = moments.mean.shape, moments.mean.device
            mean, var = (each.view(shape).to(device) for each in (seen.mean, seen.var))
            moments.merge(seen.number.view(()).to(device), mean, var)

    def _exchange(self, words: dict[str, Any], numbers: Tensor | None) -> list[Said]:
        self._met = True
        every = self._ranks.exchange(self._what, words, numbers)
        mine = self._ranks.index
        for rank, said in enumerate(every):
            if rank != mine and "nonfinite" in said.words and "nonfinite" not in words:
                raise NonFiniteError(f"on rank {rank}: {said.words['nonfinite']}")
        return every

    def _compare(self, digests: list[float]) -> None:
        other = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
        if other:
            raise RankError(
                f"the parameters of rank {', '.join(map(str, other))} are not those of rank 0 after update "
                f"{self._ranks.updates}: change them on all ranks alike, and let no rank draw random numbers "
                "for them alone"
            )

    def _moments(self) -> list[RunningMeanStd]:
        normalizer = self._policy.normalizer
        return [] if normalizer is None else list(normalizer.moments)  # type: ignore[arg-type]

    def _observe(self) -> Tensor | None:
        """Return the moments of this rank's observations, [n]; None if none are kept."""
        normalizer, buffer = self._policy.normalizer, self._buffer
        if normalizer is None:
            return None
        flat = []
        for number, mean, var in normalizer.observed(buffer.obs[:-1], buffer.valid):
            count = torch.as_tensor(number, dtype=torch.float64, device=mean.device)
            flat += [count.view(1), mean.flatten(), var.flatten()]
        return torch.cat(flat) if flat else None

    def _split(self, numbers: Tensor) -> list[Moments]:
        """Return the moments of all ranks' observations by leaf, given those of each, [R, n]."""
        found, at = [], 0
        for moments in self._moments():
            size = moments.mean.numel()
            count, mean, var = numbers[:, at : at + 1 + 2 * size].split([1, size, size], 1)
            found.append(merged(Moments(count, mean, var)))
            at += 1 + 2 * size
        return found


def make_pool(
    ranks: Ranks,
    buffer: RolloutBuffer,
    policy: Policy | RecurrentPolicy,
    advantages: AdvantageEstimator | None = None,
) -> Pool | None:
    """Return what makes the numbers of a rank's horizons those of all; None where there is one alone."""
    return Pool(ranks, buffer, policy, advantages) if ranks.many else None
