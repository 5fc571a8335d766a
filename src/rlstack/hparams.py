"""Hyperparameters: each name, default, range and meaning, once."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from .common.errors import HparamsError
from .common.other_names import ELSEWHERE
from .common.validation import explained
from .schedulers import Kind, Schedule, StepScheduler

_CONFIG = ConfigDict(
    arbitrary_types_allowed=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
)

_explained = explained("a hyperparameter", ELSEWHERE, title="Hyperparameters")

_Positive = Annotated[float, Field(gt=0)]

_NonNegative = Annotated[float, Field(ge=0)]

_Fraction = Annotated[float, Field(ge=0, le=1)]

_Count = Annotated[int, Field(ge=1)]


@_explained
@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Hparams:
    """Hyperparameters of `Algorithm`.

    Raises:
        HparamsError: If a name is unknown or a value can't be, with what to do about it.
    """

    env_config: dict[str, Any] | None = None
    """Options handed to the environment when it is made."""
    model: torch.nn.Module | None = None
    """The policy's model, ready-made; excludes `model_cls` and `model_config`."""
    model_cls: Callable[..., Any] | None = None
    """Class of the policy's model; None takes the default model for the action spec."""
    model_config: dict[str, Any] | None = None
    """Options handed to `model_cls` after the two specs."""
    distribution_cls: type | None = None
    """Class of the action distribution; None takes the default for the action spec."""
    horizon: _Count = 32
    """Environment steps in one `collect`; capped by the environment's `max_horizon`."""
    horizons_per_env_reset: int = 1
    """Reset before every n-th `collect`, -1 once at the start; more than 1 if a task outlasts a horizon."""
    num_envs: _Count = 8192
    """Environments simulated in parallel."""
    optimizer_cls: Callable[..., torch.optim.Optimizer] = torch.optim.Adam
    """Class of the optimizer, one that takes dense gradients of any shape; it is tried when it is made."""
    optimizer_config: dict[str, Any] | None = None
    """Options handed to `optimizer_cls`, with `lr` 1e-3 by default; without a schedule, `lr` may be set on
    `learner.optimizer` later. Under the name of a part of the model, a child module or parameter of it,
    options for that alone: `{"lr": 1e-3, "value": {"lr": 3e-3}}`."""
    accumulate_grads: bool = False
    """Make one optimizer step per SGD iteration, from the gradients of all its minibatches."""
    enable_amp: bool = False
    """Run the model in 16 bits where that is safe: bfloat16, else float16 on a GPU and float32 on a CPU."""
    lr_schedule: Schedule | None = None
    """Learning rate over environment steps, this horizon's included, as (env_steps, value) pairs; those of
    single parts of the model keep their proportion to `optimizer_config`'s `lr`."""
    lr_schedule_kind: Kind = "step"
    """Whether the learning rate jumps from entry to entry or is interpolated between them."""
    adaptive_lr: _Positive | None = None
    """KL estimate to steer the learning rate to, from 1e-5 to 1e-2: before each optimizer step it is
    multiplied by 1.5 where its minibatch's estimate is below half of this, divided by 1.5 where that is above
    twice this. Excludes `lr_schedule`; None leaves the rate alone."""
    entropy_coeff: float = 0.0
    """Weight of the entropy bonus in the loss."""
    entropy_coeff_schedule: Schedule | None = None
    """Entropy coefficient over environment steps, as `lr_schedule`."""
    entropy_coeff_schedule_kind: Kind = "step"
    """Whether the entropy coefficient jumps from entry to entry or is interpolated between them."""
    gae_lambda: _Fraction = 0.95
    """λ of generalized advantage estimation: 0 is the one-step TD error, 1 the full return."""
    gamma: _Fraction = 0.95
    """Discount factor γ per environment step."""
    sgd_minibatch_size: _Count | None = None
    """Transitions per minibatch (recurrent: sequences per minibatch); None is the whole buffer."""
    num_sgd_iters: _Count = 4
    """Passes over the buffer per `step`."""
    shuffle_minibatches: bool = True
    """Draw minibatches in random order; the whole buffer as one minibatch is never shuffled."""
    clip_param: _Positive = 0.2
    """How far the policy ratio may leave 1 before its gradient is cut."""
    clip_param_schedule: Schedule | None = None
    """`clip_param` over environment steps, as `lr_schedule`."""
    clip_param_schedule_kind: Kind = "step"
    """Whether `clip_param` jumps from entry to entry or is interpolated between them."""
    vf_clip_param: _Positive | None = 5.0
    """How far a value may move from the collected one, in units of scaled rewards; None doesn't clip."""
    dual_clip_param: Annotated[float, Field(gt=1)] | None = None
    """Bound of the policy loss for negative advantages, in units of the advantage; None doesn't bound."""
    vf_coeff: _NonNegative = 1.0
    """Weight of the value loss in the loss."""
    target_kl_div: _Positive | None = None
    """Cancel the rest of a `step` as soon as the KL estimate exceeds 1.5 times this; None never does."""
    max_grad_norm: _Positive | None = 5.0
    """Largest global norm of the gradient; a longer one is scaled down. None doesn't clip."""
    normalize_advantages: bool = True
    """Shift and scale the advantages of the whole buffer to mean 0 and standard deviation 1."""
    normalize_rewards: bool = True
    """Divide rewards by the standard deviation of the reversed discounted returns so far."""
    normalize_observations: bool = False
    """Shift and scale real observations by their mean and standard deviation so far, within ±10; bounded
    integers go from their bounds to [-1, 1], as floats."""
    grad_block_size: _Count | None = None
    """Rows computed at a time; bounds memory and doesn't change the result. None suits the device."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Seed of torch's generators, set when the algorithm is made; None leaves them as they are."""
    matmul_precision: Literal["highest", "high"] = "high"
    """How to multiply float32 matrices on a GPU: `high` allows TensorFloat-32, `highest` doesn't."""
    engine: Literal["auto", "eager", "compile", "graph"] = "auto"
    """How to compute: `eager` is the reference, `compile` uses torch.compile, `graph` replays CUDA graphs.

    `auto` is the fastest that gives the same up to rounding: on a CPU written-out passes for the default
    models, on CUDA graphs.
    """
    device: str | torch.device = "auto"
    """Where to simulate and learn; `auto` is CUDA if there is one, else the CPU."""

    def __post_init__(self) -> None:
        """Check what needs more than one field, or no range."""
        if self.model is not None and (self.model_cls is not None or self.model_config is not None):
            raise ValueError(
                "model excludes model_cls and model_config: give an instance or a class, not both"
            )
        if self.adaptive_lr is not None and self.lr_schedule is not None:
            raise ValueError("adaptive_lr excludes lr_schedule: let one of them say the learning rate")
        if self.horizons_per_env_reset < 1 and self.horizons_per_env_reset != -1:
            count = self.horizons_per_env_reset
            raise ValueError(f"horizons_per_env_reset is {count}, expected at least 1, or -1 for once")
        for name, schedule in (
            ("lr_schedule", self.lr_schedule),
            ("entropy_coeff_schedule", self.entropy_coeff_schedule),
            ("clip_param_schedule", self.clip_param_schedule),
        ):
            if schedule is not None:
                try:
                    StepScheduler(schedule)
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{name}: {error}") from None
        least = min((value for _, value in self.clip_param_schedule or ()), default=0.0)
        if least < 0:
            raise ValueError(f"clip_param_schedule has the value {least}, expected none below 0")

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Return the hyperparameters with these values and the defaults for the rest."""
        return cls(**values)

    @property
    def sequence_length(self) -> int:
        """Steps through which gradients are propagated back, L: 1 where there is no recurrent state."""
        return 1

    def resolve_for_env(self, max_horizon: int | None, env: str) -> Self:
        """Return the hyperparameters with horizon and resets as an environment allows them.

        Args:
            max_horizon: Its most steps between two resets; None doesn't bound them.
            env: Its name, for the error.

        Raises:
            HparamsError: If the buffer of such a horizon can't be cut as the hyperparameters say.
        """
        horizon, resets = self.horizon, self.horizons_per_env_reset
        if max_horizon is not None:
            horizon = min(horizon, max_horizon)
            longest = max_horizon // horizon
            resets = longest if resets == -1 else min(resets, longest)
        seq_len = self.sequence_length
        if horizon % seq_len:
            cap = f" (capped by {env}.max_horizon)" if horizon != self.horizon else ""
            raise HparamsError(f"seq_len is {seq_len}, expected a divisor of the horizon {horizon}{cap}")
        self.minibatch_size(self.num_envs * horizon // seq_len)
        return replace(self, horizon=horizon, horizons_per_env_reset=resets)

    def minibatch_size(self, num_sequences: int) -> int:
        """Return the size of a minibatch, given how many sequences (or transitions) the buffer holds.

        Raises:
            HparamsError: If `sgd_minibatch_size` doesn't divide that number.
        """
        size = self.sgd_minibatch_size or num_sequences
        if num_sequences % size:
            divisors = [n for n in range(1, num_sequences + 1) if num_sequences % n == 0]
            nearest = [max(n for n in divisors if n < size), *[n for n in divisors if n > size][:1]]
            raise HparamsError(
                f"sgd_minibatch_size is {size}, expected a divisor of the buffer's {num_sequences}; "
                f"the nearest: {' and '.join(map(str, nearest))}"
            )
        return size


@_explained
@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class RecurrentHparams(Hparams):
    """Hyperparameters of `RecurrentAlgorithm`."""

    seq_len: _Count = 4
    """Steps through which gradients are propagated back; divides the horizon."""
    seqs_per_state_reset: int = 8
    """Zero the recurrent state after every n sequences (and at environment resets); -1 never does."""

    def __post_init__(self) -> None:
        """Check what needs more than one field, or no range."""
        super().__post_init__()
        if self.seqs_per_state_reset < 1 and self.seqs_per_state_reset != -1:
            raise ValueError(
                f"seqs_per_state_reset is {self.seqs_per_state_reset}, expected at least 1, or -1 for never"
            )

    @property
    def sequence_length(self) -> int:
        """Steps through which gradients are propagated back, L."""
        return self.seq_len
