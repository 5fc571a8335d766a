"""Hyperparameters as keyword arguments: what editors and static checkers know of them.

Names and types are those of `Hparams`, as a static checker understands them; tests compare the two.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, Never, Protocol, TypeAlias, TypedDict

import torch

from .schedulers import Kind, Schedule


class HparamsDict(TypedDict, total=False):
    """Hyperparameters of `Algorithm`, by name; `Hparams` says what they mean."""

    env_config: dict[str, Any] | None
    model: torch.nn.Module | None
    model_cls: Callable[..., Any] | None
    model_config: dict[str, Any] | None
    distribution_cls: type | None
    horizon: int
    horizons_per_env_reset: int
    num_envs: int
    optimizer_cls: Callable[..., torch.optim.Optimizer]
    optimizer_config: dict[str, Any] | None
    accumulate_grads: bool
    enable_amp: bool
    lr_schedule: Schedule | None
    lr_schedule_kind: Kind
    adaptive_lr: float | None
    entropy_coeff: float
    entropy_coeff_schedule: Schedule | None
    entropy_coeff_schedule_kind: Kind
    gae_lambda: float
    gamma: float
    sgd_minibatch_size: int | None
    num_sgd_iters: int
    shuffle_minibatches: bool
    clip_param: float
    clip_param_schedule: Schedule | None
    clip_param_schedule_kind: Kind
    vf_clip_param: float | None
    dual_clip_param: float | None
    vf_coeff: float
    target_kl_div: float | None
    max_grad_norm: float | None
    normalize_advantages: bool
    normalize_rewards: bool
    normalize_observations: bool
    grad_block_size: int | None
    seed: int | None
    matmul_precision: Literal["highest", "high"]
    engine: Literal["auto", "eager", "compile", "graph"]
    device: str | torch.device


class RecurrentHparamsDict(HparamsDict, total=False):
    """Hyperparameters of `RecurrentAlgorithm`, by name; `RecurrentHparams` says what they mean."""

    seq_len: int
    seqs_per_state_reset: int


class UntypedHparams(Protocol):
    """Hyperparameters of which static checkers know nothing: a mapping to Any, as files are read into.

    A dictionary that is written out has values of some type: it must be a `HparamsDict` or a
    `RecurrentHparamsDict` then, so checkers refuse misspelled names.
    """

    def keys(self) -> Iterable[str]:
        """Return the names."""

    def __getitem__(self, name: str, /) -> Never:
        """Return a value; of all types Any alone passes for Never."""


AlgorithmConfig: TypeAlias = HparamsDict | RecurrentHparamsDict | UntypedHparams
"""Hyperparameters by name, for the algorithm of a trainer."""
