"""Options of a trainer."""

from collections.abc import Mapping
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
