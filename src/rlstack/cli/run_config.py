"""What is asked for when a run begins: environment, algorithm, when to stop, what to keep.

    env: cartpole                  # a built-in name, gym:Name, module:Class or path/to/file.py:Class
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, final, get_type_hints

from .. import conditions
from ..common.errors import ConfigError, HparamsError
from ..common.nested import flatten, merge
from ..common.validation import check_options, did_you_mean, is_number
from ..conditions import And, Condition, Or
from ..runs.class_files import anchor
from ..runs.class_paths import find_classes
from ..runs.options import CheckpointConfig, TrainerConfig
from ..runs.saved_config import ALGORITHMS
from ..runs.yaml_format import check_written, decode, parse, plain_values
from .resolve_env import resolve

_CONDITIONS = {
    name: cls
    for name, cls in vars(conditions).items()
    if isinstance(cls, type) and issubclass(cls, Condition) and not inspect.isabstract(cls) and name[0] != "_"
}


@final
@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What is asked for, checked as far as can be without making anything."""

    env: str | None = None
    """A built-in name, `gym:Name`, `module:Class` or `path/to/file.py:Class`, seen from where one is."""
    algorithm: str = "feedforward"
    algorithm_config: dict[str, Any] = field(default_factory=dict)
    """With classes in place of their names."""
    stop_conditions: list[Condition] | None = None
    """None: a recipe's own, or none."""
    said_to_stop: list[Any] | None = None
    """The same as the file says it."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    @classmethod
    def read(cls, path: Path, *, own_env: bool = False) -> Self:
        """Return what a file asks for; files that it names are seen from its directory.

        Args:
            path: The file.
            own_env: Whether the environment that it names must be there, because it will be used.

        Raises:
            ConfigError: If there is something wrong with it, a line each: file and key, what was got and what
                was expected.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path} can't be read: {error}") from None
        values = parse(decode(data, str(path)), str(path))
        try:
            return cls.parse(values, base=path.parent, own_env=own_env)
        except HparamsError as error:
            raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, base: Path | None = None, own_env: bool = False) -> Self:
        """Return what plain values ask for.

        Args:
            values: By key.
            base: Directory from which files are named; None is the working directory.
            own_env: Whether the environment must be there.

        Raises:
            ConfigError: If there is something wrong with them, a line each.
        """
        mistakes = _Mistakes()
        given: dict[str, Any] = {}
        for name, value in values.items():
            kind, words = _KINDS.get(name, (None, ""))
            if kind is None:
                mistakes.lines.append(f"{name} is not a key{did_you_mean(name, _KINDS)}")
            elif isinstance(value, kind):
                given[name] = value
            elif value is not None:
                mistakes.lines.append(f"{name} is {value!r:.60}, expected {words}")
        env, algorithm = given.get("env"), given.get("algorithm", cls.algorithm)
        if own_env and env is not None:
            mistakes.of("", resolve, env, {}, algorithm, base)
        env = None if env is None else anchor(env, base or Path())
        trainer = mistakes.of("trainer.", lambda: TrainerConfig(**given.get("trainer", {})))
        options = given.get("trainer", {}).get("checkpoint_config")
        if isinstance(options, dict):
            mistakes.of("trainer.checkpoint_config.", CheckpointConfig.parse, options)
        mistakes.of("", check_written, given.get("algorithm_config", {}), "algorithm_config")
        hyperparameters: dict[str, Any] = {}
        for name, value in given.get("algorithm_config", {}).items():
            hyperparameters |= mistakes.of("algorithm_config.", find_classes, {name: value}, base) or {}
        if algorithm in ALGORITHMS:
            mistakes.of("algorithm_config.", ALGORITHMS[algorithm].hparams_cls.parse, hyperparameters)
        else:
            mistakes.lines.append(f"algorithm is {algorithm}{did_you_mean(algorithm, ALGORITHMS)}")
        said_to_stop = given.get("stop_conditions")
        stop = [
            mistakes.of("", _condition, item, f"stop_conditions[{n}]")
            for n, item in enumerate(said_to_stop or [])
        ]
        mistakes.raise_any()
        return cls(
            env=env,
            algorithm=algorithm,
            algorithm_config=hyperparameters,
            stop_conditions=None if said_to_stop is None else stop,
            said_to_stop=said_to_stop,
            trainer=trainer or TrainerConfig(),
        )

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
        # An option within a hyperparameter leaves those beside it as they were.
        whole = merge(said["algorithm_config"], self.algorithm_config)
        return replace(
            self,
            algorithm_config={key: whole[key] for key in self.algorithm_config},
            trainer=replace(trainer, track=self.trainer.track),
            stop_conditions=stop,
        )

    def differences(self, said: Mapping[str, Any], directory: Path) -> list[str]:
        """Return the hyperparameters, with values, that the run with this config.yaml hasn't."""
        asked = plain_values(self.algorithm_config, directory)
        mine, theirs = flatten(asked), flatten(said["algorithm_config"])
        return [f"{k}={value}" for k, value in mine.items() if value not in ({}, theirs.get(k))]

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
    # Of the run whose config.yaml it is; a run that begins gets one of its own.
    "id": (str, "a text"),
    "env": (str, "a text"),
    "algorithm": (str, "a text"),
    "algorithm_config": (dict, "names with values"),
    "stop_conditions": (list, "a list"),
    "trainer": (dict, "names with values"),
}


class _Mistakes:
    """All that is wrong with a configuration, a line each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def of(self, where: str, make: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function returns, or None if it finds mistakes; these are said to be `where`."""
        try:
            return make(*arguments)
        except HparamsError as error:
            self.lines += [where + line for line in str(error).splitlines()]
            return None

    def raise_any(self) -> None:
        """Raise an error of all mistakes, if there are any."""
        if self.lines:
            raise ConfigError("\n".join(self.lines))


def _condition(said: Any, where: str) -> Condition:
    """Return the stop condition that `{Name: {argument: value}}` means."""
    if not isinstance(said, dict) or len(said) != 1:
        example = "TimesOut: {seconds: 60}"
        raise ConfigError(f"{where} is {said!r:.60}, expected one name with arguments, like {example}")
    [(name, arguments)] = said.items()
    if name not in _CONDITIONS:
        raise ConfigError(f"{where} is {name}{did_you_mean(name, _CONDITIONS)}")
    cls, where, mistakes = _CONDITIONS[name], f"{where}.{name}", _Mistakes()
    if cls in (And, Or):
        if not isinstance(arguments, list):
            raise ConfigError(f"{where} is {arguments!r:.60}, expected a list of conditions")
        parts = [mistakes.of("", _condition, item, f"{where}[{n}]") for n, item in enumerate(arguments)]
        mistakes.raise_any()
        return cls(*parts)
    if not isinstance(arguments, dict):
        raise ConfigError(f"{where} is {arguments!r:.60}, expected names with values")
    mistakes.of("", check_options, arguments, cls, where)
    hints = get_type_hints(cls.__init__)
    for key, parameter in inspect.signature(cls).parameters.items():
        if key not in arguments and parameter.default is parameter.empty:
            mistakes.lines.append(f"{where} lacks {key}")
            continue
        value = arguments.get(key, parameter.default)
        fits = is_number(value) if hints[key] is float else type(value) is hints[key]
        if not fits:
            mistakes.lines.append(f"{where}.{key} is {value!r:.60}, expected {_TYPES[hints[key]]}")
    mistakes.raise_any()
    try:
        return cls(**arguments)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


_TYPES = {str: "a text", int: "an integer", float: "a number"}
