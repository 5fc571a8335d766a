"""Options of a trainer."""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from ..common.errors import HparamsError
from ..common.types import Config
from ..common.validation import explained

OnNonFinite: TypeAlias = Literal["raise", "skip", "restore"]
"""What to do after NaN or infinity."""


@explained("an option of checkpoint_config", title="Options")
@dataclass(
    frozen=True,
    kw_only=True,
    config=ConfigDict(strict=True, allow_inf_nan=False, use_attribute_docstrings=True),
)
class CheckpointConfig:
    """When to write a checkpoint, and which ones to keep.

    Raises:
        HparamsError: If a name is unknown or a value can't be, with what to do about it.
    """

    every_updates: Annotated[int, Field(ge=1)] | None = None
    """Write one after every so many updates."""
    every_seconds: Annotated[float, Field(ge=0)] | None = 300.0
    """Write one when so long has passed since the last one."""
    keep: Annotated[int, Field(ge=1)] = 3
    """How many of the last ones to keep; the best one is kept too."""
    best: str = "returns/mean"
    """Statistic that says which one is the best."""
    best_is: Literal["highest", "lowest"] = "highest"
    """Whether the best one has the highest or the lowest value of it."""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Return the options with these values and the defaults for the rest."""
        return cls(**values)


@explained("a key")
@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, use_attribute_docstrings=True))
class TrainerConfig:
    """How to run a trainer: what configurations, the command line and a run's config.yaml say of it."""

    checkpoint_config: dict[str, Any] = field(default_factory=dict)
    """Fields of `rlstack.CheckpointConfig`."""
    env_config: dict[str, Any] | None = None
    """Options for the environment's resets while training."""
    eval_env_config: dict[str, Any] | None = None
    """Options for the resets of the environments that evaluations run in."""
    steps_per_eval: Annotated[int, Field(ge=1)] | None = None
    """Evaluate after every so many updates; None never does."""
    on_nonfinite: OnNonFinite = "raise"
    """After NaN or infinity: raise the error, skip what it was in, or restore the last checkpoint."""
    system_metrics: bool = False
    """Whether to record the machine's load, too."""
    track: bool = True
    """Whether to track with MLflow."""


def check_trainer(run_dir: Any, checkpoint_config: Config | None, on_nonfinite: str) -> None:
    """Refuse options of a trainer that don't go together.

    Raises:
        HparamsError: With what to change.
    """
    if on_nonfinite not in get_args(OnNonFinite):
        raise HparamsError(f"on_nonfinite is {on_nonfinite!r}, expected raise, skip or restore")
    if run_dir is None and checkpoint_config is not None:
        raise HparamsError("checkpoint_config needs a run_dir to keep checkpoints in")
    if run_dir is None and on_nonfinite == "restore":
        raise HparamsError("on_nonfinite is restore, which needs a run_dir with checkpoints to go back to")
