"""A recipe: hyperparameters that solve one environment, and what solved means."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from ..policies.policy import Policy, RecurrentPolicy


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to solve one environment."""

    env: str
    """Name of the class."""
    module: str = "rlstack.env"
    """Where it is."""
    hyperparameters: Mapping[str, Any]
    """Of `Algorithm`, classes by their names; they solve what is in `rlstack.env` within three minutes on two
    CPU cores."""
    recurrent: Mapping[str, Any]
    """Those that differ for `RecurrentAlgorithm`, with which they solve it, too."""
    goal: str
    """What solved means, in words."""
    judge: "Callable[[Tensor, Tensor, Tensor], float]"
    """Score of a deterministic evaluation, from observations [T, N, ...], rewards [T, N, 1] and whether
    episodes end with the step, bool [T, N, 1]."""
    target: float
    """Score from which on the environment is solved."""
    eval_config: Mapping[str, float] = field(default_factory=dict)
    """Options of the fresh environments that the evaluation runs in."""
    eval_steps: int
    """Steps of an evaluation, T."""
    eval_envs: int = 64
    """Environments of an evaluation, N."""
    updates_per_check: int = 5
    """How often training looks whether it is done."""

    def env_cls(self) -> Any:
        """Return the environment's class."""
        return getattr(import_module(self.module), self.env)

    def for_algorithm(self, algorithm: str) -> dict[str, Any]:
        """Return the hyperparameters of an algorithm, `feedforward` or `recurrent`."""
        return {**self.hyperparameters, **(self.recurrent if algorithm == "recurrent" else {})}

    def score(self, policy: "Policy | RecurrentPolicy", env_config: Mapping[str, Any] | None = None) -> float:
        """Return the policy's score on fresh environments; leaves torch's random state as it was.

        Args:
            policy: Whose.
            env_config: Options of the environments that differ from the recipe's.
        """
        import torch

        from ..common.random_state import keep_random_state
        from ..policies.rollout import rollout

        with keep_random_state(policy.device):
            config = {**self.eval_config, **(env_config or {})}
            env = self.env_cls()(self.eval_envs, config=config, device=policy.device)
            history = list(rollout(policy, env, num_envs=self.eval_envs, steps=self.eval_steps))
        observations, rewards, endings = zip(*history, strict=True)
        ended = [torch.zeros_like(rewards[0], dtype=torch.bool) if e is None else e.cut for e in endings]
        return self.judge(*(torch.stack(parts) for parts in (observations, rewards, ended)))


def mean_first_return(obs: "Tensor", rewards: "Tensor", ended: "Tensor") -> float:
    """Return the mean return of each simulation's first episode."""
    over = ended.int().cumsum(0) - ended.int()
    return float(rewards.where(over == 0, 0.0).sum(0).mean())
