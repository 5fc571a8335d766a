"""What is asked for when a run begins: environment, algorithm, when to stop, what to keep.

    env: cartpole                  # a built-in name, or module:Class
    algorithm: feedforward         # or recurrent
    algorithm_config:              # fields of Hparams, or RecurrentHparams
      horizon: 64
    stop_conditions:               # classes of rlstack.conditions, with their arguments
      - HitsUpperBound: {key: returns/mean, bound: 60}
    trainer:                       # fields of TrainerConfig
      checkpoint_config: {every_updates: 50}
      steps_per_eval: 10

Every key may be left out.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Self, final, get_type_hints

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from . import conditions
from .conditions import And, Condition, Or
from .config import ConfigError, find_classes, parse, plain_values
from .data import is_number
from .hparams import HparamsError, check_options, checked, did_you_mean
from .names import merge
from .nested import flatten
from .run_options import ALGORITHMS, CheckpointConfig, OnNonFinite

_CONDITIONS = {
    name: cls
    for name, cls in vars(conditions).items()
    if isinstance(cls, type) and issubclass(cls, Condition) and not inspect.isabstract(cls) and name[0] != "_"
}


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, use_attribute_docstrings=True))
class TrainerConfig:
    """How to run the trainer, the environment's and the algorithm's options apart."""

    checkpoint_config: dict[str, Any] = field(default_factory=dict)
    """Fields of `rlstack.run_options.CheckpointConfig`."""
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


@final
@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What is asked for, checked as far as can be without making anything."""

    env: str | None = None
    """A built-in name, or `module:Class`."""
    algorithm: str = "feedforward"
    algorithm_config: dict[str, Any] = field(default_factory=dict)
    """With classes in place of their names."""
    stop_conditions: list[Condition] | None = None
    """None: a recipe's own, or none."""
    said_to_stop: list[Any] | None = None
    """The same as the file says it."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what a file asks for.

        Raises:
            ConfigError: If there is something wrong with it, a line each: file and key, what was got and what
                was expected.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} can't be read: {error}") from None
        values = parse(text, str(path))
        try:
            return cls.parse(values)
        except HparamsError as error:
            raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Return what plain values ask for.

        Raises:
            HparamsError: If there is something wrong with them.
        """
        names = list(_KINDS)
        for name in values:
            if name not in names:
                raise ConfigError(f"{name} is not a key{did_you_mean(name, names)}")
        given = {name: value for name, value in values.items() if value is not None}
        for name, value in given.items():
            kind, words = _KINDS[name]
            if not isinstance(value, kind):
                raise ConfigError(f"{name} is {value!r:.60}, expected {words}")
        if ".py:" in given.get("env", ""):
            raise ConfigError(f"env is {given['env']}: a file can be named on the command line alone")
        asked = cls(
            **{name: given[name] for name in ("env", "algorithm") if name in given},
            algorithm_config=find_classes(given.get("algorithm_config", {})),
            stop_conditions=None,
            trainer=_within("trainer", lambda: checked(TrainerConfig, given.get("trainer", {}), "a key")),
        )
        if asked.algorithm not in ALGORITHMS:
            raise ConfigError(f"algorithm is {asked.algorithm}{did_you_mean(asked.algorithm, ALGORITHMS)}")
        options = asked.trainer.checkpoint_config
        _within("trainer.checkpoint_config", lambda: CheckpointConfig.parse(options))
        hparams_cls = ALGORITHMS[asked.algorithm].hparams_cls
        _within("algorithm_config", lambda: hparams_cls.parse(asked.algorithm_config))
        if "stop_conditions" in given:
            stop = [
                _condition(item, f"stop_conditions[{n}]") for n, item in enumerate(given["stop_conditions"])
            ]
            return replace(asked, stop_conditions=stop, said_to_stop=given["stop_conditions"])
        return asked

    def of_run(self, said: Mapping[str, Any]) -> Self:
        """Return this with what a run's config.yaml says of how it is trained; what is asked for goes first.

        Raises:
            HparamsError: If there is something wrong with it.
        """
        before = type(self).parse({key: said.get(key) for key in ("trainer", "stop_conditions")})
        defaults = TrainerConfig()
        asked = {key: value for key, value in vars(self.trainer).items() if value != getattr(defaults, key)}
        checkpoints = {**before.trainer.checkpoint_config, **self.trainer.checkpoint_config}
        trainer = replace(before.trainer, **asked | {"checkpoint_config": checkpoints})
        stop = before.stop_conditions if self.stop_conditions is None else self.stop_conditions
        return replace(self, trainer=replace(trainer, track=self.trainer.track), stop_conditions=stop)

    def ignored_by(self, said: Mapping[str, Any]) -> list[str]:
        """Return what this asks for that the run with this config.yaml is not, by name, when it goes on."""
        mine, theirs = flatten(plain_values(self.algorithm_config)), flatten(said["algorithm_config"])
        names = [f"{k}={value}" for k, value in mine.items() if value not in ({}, theirs.get(k))]
        # That of the default can't be told from none.
        if self.algorithm not in (said["algorithm"], type(self).algorithm):
            names.append(f"algorithm={self.algorithm}")
        return names

    def with_changes(
        self,
        *,
        env: str | None,
        algorithm: str | None,
        algorithm_config: Mapping[str, Any],
        checkpoint_config: Mapping[str, Any] | None,
        trainer: Mapping[str, Any],
    ) -> Self:
        """Return this with what the command line says; what it doesn't say, None, stays."""
        changes = {key: value for key, value in trainer.items() if value is not None}
        if checkpoint_config is not None:
            changes["checkpoint_config"] = {**self.trainer.checkpoint_config, **checkpoint_config}
        return replace(
            self,
            env=self.env if env is None else env,
            algorithm=self.algorithm if algorithm is None else algorithm,
            algorithm_config=merge(self.algorithm_config, algorithm_config),
            trainer=replace(self.trainer, **changes),
        )


_KINDS: dict[str, tuple[type, str]] = {
    "env": (str, "a text"),
    "algorithm": (str, "a text"),
    "algorithm_config": (dict, "names with values"),
    "stop_conditions": (list, "a list"),
    "trainer": (dict, "names with values"),
}


def _within(where: str, make: Any) -> Any:
    """Return what a function returns; an error of it says where it happened."""
    try:
        return make()
    except HparamsError as error:
        raise ConfigError("\n".join(f"{where}.{line}" for line in str(error).splitlines())) from None


def _condition(said: Any, where: str) -> Condition:
    """Return the stop condition that `{Name: {argument: value}}` means."""
    if not isinstance(said, dict) or len(said) != 1:
        example = "TimesOut: {seconds: 60}"
        raise ConfigError(f"{where} is {said!r:.60}, expected one name with arguments, like {example}")
    [(name, arguments)] = said.items()
    if name not in _CONDITIONS:
        raise ConfigError(f"{where} is {name}{did_you_mean(name, _CONDITIONS)}")
    cls, where = _CONDITIONS[name], f"{where}.{name}"
    if cls in (And, Or):
        if not isinstance(arguments, list):
            raise ConfigError(f"{where} is {arguments!r:.60}, expected a list of conditions")
        return cls(*(_condition(item, f"{where}[{n}]") for n, item in enumerate(arguments)))
    if not isinstance(arguments, dict):
        raise ConfigError(f"{where} is {arguments!r:.60}, expected names with values")
    check_options(arguments, cls, where)
    hints = get_type_hints(cls.__init__)
    for key, parameter in inspect.signature(cls).parameters.items():
        if key not in arguments and parameter.default is parameter.empty:
            raise ConfigError(f"{where} lacks {key}")
        value = arguments.get(key, parameter.default)
        fits = is_number(value) if hints[key] is float else type(value) is hints[key]
        if not fits:
            raise ConfigError(f"{where}.{key} is {value!r:.60}, expected {_TYPES[hints[key]]}")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


_TYPES = {str: "a text", int: "an integer", float: "a number"}
