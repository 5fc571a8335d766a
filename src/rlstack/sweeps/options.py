"""What a sweep is: what is searched, by which measure, and for how long. Without Optuna.

search:
  optimizer_config.lr: {low: 1e-4, high: 1e-2, log: true}
  num_sgd_iters: {low: 2, high: 10}          # integers
  model_config.hiddens: [[32, 32], [64, 64]] # one of these
metric: returns/mean
trials: 20
seeds: [0, 1]
max_env_steps: 500000                        # of each run
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from typing import Annotated, Any, Literal, TypeAlias, final

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from ..common.errors import ConfigError
from ..common.metrics import ENV_TOTAL_STEPS
from ..common.validation import did_you_mean, explained, is_number

UPDATES = "algorithm/steps"

PRUNERS = (
    "MedianPruner",
    "PercentilePruner",
    "SuccessiveHalvingPruner",
    "HyperbandPruner",
    "ThresholdPruner",
    "NopPruner",
)
"""Classes of `optuna.pruners` that a file may name."""

SAMPLERS = ("TPESampler", "RandomSampler", "GPSampler", "CmaEsSampler")
"""Classes of `optuna.samplers` that a file may name."""


@final
@plain_dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers between two bounds, both included; integers if both bounds are."""

    low: float
    high: float
    log: bool = False
    """Whether the search is even in the logarithm."""
    step: float | None = None
    """Distance between two values; None is any, of integers 1."""

    @property
    def is_integer(self) -> bool:
        """Whether its values are integers."""
        return type(self.low) is type(self.high) is int

    @property
    def ends(self) -> tuple[float, ...]:
        """Values that stand for all, to be checked."""
        return self.low, self.high


@final
@plain_dataclass(frozen=True)
class Choices:
    """One of some plain values."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all, to be checked."""
        return self.values

    @property
    def labels(self) -> dict[str | int | float | bool | None, Any]:
        """The values by what a database keeps of each: lists and names with values as JSON."""
        plain = (str, int, float, bool, type(None))
        return {value if isinstance(value, plain) else json.dumps(value): value for value in self.values}


Dimension: TypeAlias = Range | Choices


@explained("a key of sweep")
@dataclass(
    frozen=True,
    kw_only=True,
    config=ConfigDict(strict=True, allow_inf_nan=False, use_attribute_docstrings=True),
)
class SweepConfig:
    """The section `sweep` of a file.

    Raises:
        HparamsError: If a name is unknown or a value can't be, with what to do about it.
    """

    search: dict[str, Any]
    """Hyperparameters by name, with a dot options within them: the bounds `low` and `high` of a range, with
    `log` and `step`, or a list of values."""
    metric: str = "returns/mean"
    """The statistic that is to be as good as can be: a run's value is its mean over the last of `reports`."""
    direction: Literal["maximize", "minimize"] = "maximize"
    """Whether a higher or a lower value is better."""
    trials: Annotated[int, Field(ge=1)] = 20
    """How many points of the search space to try."""
    seeds: list[Annotated[int, Field(ge=0)]] = field(default_factory=lambda: [0])
    """Each trial trains once with each; its value is the mean of theirs."""
    max_env_steps: Annotated[int, Field(ge=1)] | None = None
    """How long each run is, in environment steps."""
    max_updates: Annotated[int, Field(ge=1)] | None = None
    """How long each run is, in updates: instead of `max_env_steps`."""
    reports: Annotated[int, Field(ge=1)] = 10
    """Into how many parts a run is divided. After each of them a trial may be pruned."""
    pruner: dict[str, Any] = field(default_factory=lambda: {"MedianPruner": {}})
    """A class of `optuna.pruners` with its arguments: which trials aren't worth going on with."""
    sampler: dict[str, Any] = field(default_factory=lambda: {"TPESampler": {}})
    """A class of `optuna.samplers` with its arguments: which point is tried next."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the sampler."""

    @property
    def budget(self) -> tuple[str, int]:
        """The statistic that says how long a run has been, and its value at the end."""
        if self.max_updates is not None:
            return UPDATES, self.max_updates
        assert self.max_env_steps is not None
        return ENV_TOTAL_STEPS, self.max_env_steps

    def dimensions(self) -> dict[str, Dimension]:
        """Return what is searched, by name.

        Raises:
            ConfigError: If something of it can't be, a line each.
        """
        found, mistakes = dict[str, Dimension](), list[str]()
        for name, said in self.search.items():
            try:
                found[name] = _dimension(name, said)
            except ConfigError as error:
                mistakes.append(str(error))
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        return found

    def check(self) -> None:
        """Refuse what can't be, as far as can be told without Optuna.

        Raises:
            ConfigError: A line for each mistake.
        """
        mistakes = list[str]()
        if (self.max_env_steps is None) == (self.max_updates is None):
            mistakes.append("how long a run is, is said by one of max_env_steps and max_updates")
        if not self.search:
            mistakes.append("search is empty, expected hyperparameters with what to try of each")
        if not self.seeds or len({*self.seeds}) < len(self.seeds):
            mistakes.append(f"seeds is {self.seeds}, expected one or more, each once")
        for key, said, known in (("pruner", self.pruner, PRUNERS), ("sampler", self.sampler, SAMPLERS)):
            [name, options] = next(iter(said.items()), ("nothing", {}))
            if len(said) != 1 or not isinstance(options, dict):
                mistakes.append(
                    f"{key} is {said!r:.60}, expected one name with arguments, like {{{known[0]}: {{}}}}"
                )
            elif name not in known:
                mistakes.append(f"{key} is {name}{did_you_mean(name, known)}")
        try:
            self.dimensions()
        except ConfigError as error:
            mistakes.append(str(error))
        if mistakes:
            raise ConfigError("\n".join(mistakes))


def _dimension(name: str, said: Any) -> Dimension:
    if not re.fullmatch(r"\w+(\.\w+)*", name):
        raise ConfigError(f"search.{name} is not the name of a hyperparameter")
    if isinstance(said, list) and said:
        return Choices(tuple(said))
    if not isinstance(said, Mapping) or not {"low", "high"} <= said.keys() <= {"low", "high", "log", "step"}:
        example = "{low: 0.9, high: 0.99}, with log: true or a step if need be, or a list of values"
        raise ConfigError(f"search.{name} is {said!r:.60}, expected {example}")
    for key, value in said.items():
        if not (isinstance(value, bool) if key == "log" else is_number(value)):
            kind = "true or false" if key == "log" else "a number"
            raise ConfigError(f"search.{name}.{key} is {value!r:.60}, expected {kind}")
    found = Range(**said)
    if found.low >= found.high:
        raise ConfigError(f"search.{name} is from {found.low} to {found.high}, expected low below high")
    if found.log and (found.low <= 0 or found.step is not None):
        raise ConfigError(f"search.{name} is even in the logarithm, expected low above 0 and no step")
    if found.step is not None and found.step <= 0:
        raise ConfigError(f"search.{name}.step is {found.step}, expected more than 0")
    return found
