"""Hyperparameters as keyword arguments: what editors, `help` and `inspect.signature` know of them.

Names and types are those of `Hparams`, as a static checker understands them; tests compare the two.
"""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal, TypedDict, get_type_hints

import torch

from .hparams import Hparams
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
    entropy_coeff: float
    entropy_coeff_schedule: Schedule | None
    entropy_coeff_schedule_kind: Kind
    gae_lambda: float
    gamma: float
    sgd_minibatch_size: int | None
    num_sgd_iters: int
    shuffle_minibatches: bool
    clip_param: float
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


def meanings(cls: type) -> dict[str, str]:
    """Return the texts below the fields of a dataclass of pydantic's, by field, each in one line."""
    return {
        name: " ".join(inspect.cleandoc(field.description).split())
        for base in reversed(cls.__mro__)
        for name, field in vars(base).get("__pydantic_fields__", {}).items()
        if field.description
    }


def document(cls: type, hparams_cls: type[Hparams]) -> None:
    """Let the signature of a class name all its hyperparameters, and its docstring say what they mean.

    Args:
        cls: It takes an environment's class and hyperparameters as keywords.
        hparams_cls: What hyperparameters.
    """
    hints = get_type_hints(hparams_cls)
    [env_cls, *_] = list(inspect.signature(cls).parameters.values())[:1]
    keywords = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(hparams_cls)
    ]
    cls.__signature__ = inspect.Signature([env_cls, *keywords])  # type: ignore[attr-defined]
    texts = [
        textwrap.fill(f"{name}: {text}", 100, initial_indent="    ", subsequent_indent="        ")
        for name, text in meanings(hparams_cls).items()
    ]
    cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Hyperparameters:", *texts, ""])
