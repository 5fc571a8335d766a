"""What a run is made with: the options of its trainer, and all of it as its config.yaml says it."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..algorithm import Algorithm, RecurrentAlgorithm
from ..common.errors import ConfigError, RunDirError
from ..common.nested import flatten, same
from ..common.types import Config
from ..env.base import EnvFactory
from ..keywords import AlgorithmConfig
from ..ppo.params import texts
from .checkpoint import Checkpoint
from .class_paths import find_class, find_classes
from .options import CheckpointConfig
from .yaml_format import check_written, decode, parse, plain_values

ALGORITHMS: dict[str, type[Algorithm] | type[RecurrentAlgorithm]] = {
    "feedforward": Algorithm,
    "recurrent": RecurrentAlgorithm,
}
"""By their names in a configuration."""

CONFIG = "config.yaml"

_KINDS: dict[str, type] = {"env": str, "algorithm": str, "algorithm_config": dict, "trainer": dict}
"""What a config.yaml must have."""

_TRAINER_KINDS: dict[str, type] = {"checkpoint_config": dict, "on_nonfinite": str, "system_metrics": bool}
"""What the trainer itself reads of it."""

_WORDS: dict[type, str] = {str: "a text", dict: "names with values", bool: "true or false"}

_log = logging.getLogger(__name__)


def make_algorithm(
    env_cls: EnvFactory, algorithm_cls: Any, algorithm_config: AlgorithmConfig | None
) -> Algorithm | RecurrentAlgorithm:
    """Return an algorithm with hyperparameters by name.

    Raises:
        TypeError: If the class is another one, or there are no names.
        HparamsError, EnvError: As the algorithm raises them.
    """
    if algorithm_cls not in ALGORITHMS.values():
        raise TypeError(f"algorithm_cls is {algorithm_cls!r}, expected Algorithm or RecurrentAlgorithm")
    if algorithm_config is not None and not isinstance(algorithm_config, Mapping):
        raise TypeError(f"algorithm_config is {algorithm_config!r}, expected hyperparameters by name")
    made: Algorithm | RecurrentAlgorithm = algorithm_cls(env_cls, **(algorithm_config or {}))
    return made


def trainer_of(
    path: Path, env_cls: EnvFactory | None, algorithm_config: AlgorithmConfig | None, options: Config | None
) -> tuple[EnvFactory, dict[str, Any], CheckpointConfig]:
    """Return the environment, the options of its trainer and those of its checkpoints, as a run began.

    Args:
        path: The run's directory.
        env_cls: The environment's class, if its name in the run's config.yaml doesn't do.
        algorithm_config: Hyperparameters that can't be read from there, like a `model`.
        options: Of the trainer, those that differ.

    Raises:
        RunDirError: If there is no such run.
        ConfigError, HparamsError: If its config.yaml can't be used.
    """
    said = read_config(path)
    given = dict(algorithm_config or {})
    if "model" in given:
        given |= {"model_cls": None, "model_config": None}
    kept = {key: value for key, value in said["algorithm_config"].items() if key not in given}
    check_written(kept, str(path / CONFIG))
    trainer = {**said["trainer"], **(options or {})}
    checkpoints = {**said["trainer"].get("checkpoint_config", {}), **trainer.get("checkpoint_config", {})}
    made_with = {
        "algorithm_cls": ALGORITHMS[said["algorithm"]],
        "algorithm_config": find_classes(kept, path) | find_classes(given),
        **{name: trainer[name] for name in ("on_nonfinite", "system_metrics") if name in trainer},
    }
    env_cls = find_class(said["env"], "env", path) if env_cls is None else env_cls
    return env_cls, made_with, CheckpointConfig.parse(checkpoints)


def training(path: Path) -> dict[str, str]:
    """Return what a run's config.yaml says beside its algorithm, as texts by dotted name."""
    said = read_config(path)
    return texts({key: said[key] for key in ("trainer", "stop_conditions") if key in said})


def describe(algorithm: Algorithm | RecurrentAlgorithm) -> dict[str, Any]:
    """Return the hyperparameters in use, all defaults resolved."""
    hparams = algorithm.hparams
    values = {field.name: getattr(hparams, field.name) for field in fields(hparams)}
    if hparams.model is None:
        values["model_config"] = algorithm.policy.model.config
    values["optimizer_config"] = {"lr": 1e-3, **(hparams.optimizer_config or {})}
    return {**values, "device": str(algorithm.device)}


def facts(algorithm: Algorithm | RecurrentAlgorithm, run: Path | None) -> dict[str, Any]:
    """Return what a checkpoint says of its algorithm: steps so far, and what it is made with, as texts.

    Args:
        algorithm: The algorithm.
        run: The directory of its run, from which files are named; None if it has none.
    """
    config = _texts(algorithm, run)
    return {"env_steps": algorithm.env_steps, "params": algorithm.params, "config": config}


def _texts(algorithm: Algorithm | RecurrentAlgorithm, run: Path | None) -> dict[str, str]:
    """Return what `describe` returns as a run's config.yaml would say it, as texts by dotted name."""
    return texts(plain_values(describe(algorithm), run))


def check_config(
    path: Path, algorithm: Algorithm | RecurrentAlgorithm, said: Checkpoint, given: Iterable[str]
) -> None:
    """Compare what a run goes on with to what its last checkpoint was made with.

    What was edited is used from now on, and named in the log.

    Args:
        path: The run's directory.
        algorithm: What goes on.
        said: The checkpoint.
        given: Hyperparameters that aren't taken from the config.yaml.

    Raises:
        ConfigError: If the config.yaml has lost a key without which a value would be another one.
    """
    before: Any = said.info.get("config")
    now, edited = _texts(algorithm, path), _edited_training(path, said)
    written = flatten(read_config(path)["algorithm_config"])
    given, lost = {*given, *(("model_cls", "model_config") if "model" in given else ())}, []
    for key in {**before, **now} if isinstance(before, dict) else ():
        was, here = (str(values[key]) if key in values else None for values in (before, now))
        name = key.partition(".")[0]
        if name in given or (was is not None and here is not None and same(was, here)):
            continue
        if _says(written, key):
            # Without a value of its own there are some below it.
            if here is not None:
                edited.append(f"{key} is {here:.60} and was {was!s:.60}")
        elif was is not None and _says(now, name):
            lost.append(f"{key}, which was {was:.200}")
    if lost:
        where = f"in algorithm_config of {path / CONFIG} there is no"
        raise ConfigError(f"{where} {'; no '.join(lost)}: put it back, or give another value")
    if edited:
        _log.warning("%s was edited since %s: %s", path / CONFIG, said.path.name, "; ".join(edited))


def _edited_training(path: Path, said: Checkpoint) -> list[str]:
    """Return what is edited of what a run's config.yaml says beside its algorithm.

    Raises:
        ConfigError: If something of it is gone: a default would take its place.
    """
    found, now = said.info.get("training"), training(path)
    # An rlstack that didn't write it compares nothing.
    before = {key: str(was) for key, was in found.items()} if isinstance(found, dict) else {}
    # A value may stand where there were others below it.
    lost = [
        f"{key}, which was {was:.200}"
        for key, was in before.items()
        if not _says(now, key) and not any(key.startswith(f"{name}.") for name in now)
    ]
    if lost:
        raise ConfigError(f"in {path / CONFIG} there is no {'; no '.join(lost)}: put it back")
    changed = [key for key in before.keys() & now.keys() if not same(before[key], now[key])]
    return [f"{key} is {now[key]:.60} and was {before[key]:.60}" for key in sorted(changed)]


def _says(values: Mapping[str, Any], key: str) -> bool:
    """Return whether flat values have a key, or any below it."""
    return any(f"{name}.".startswith(f"{key}.") for name in values)


def config_file(path: Path) -> Path:
    """Return a run's config.yaml.

    Raises:
        RunDirError: If there is none.
    """
    file = path / CONFIG
    if not file.is_file():
        raise RunDirError(f"{path} is not a run directory: there is no {CONFIG} in it")
    return file


def read_config(path: Path) -> dict[str, Any]:
    """Return what a run's config.yaml says.

    Raises:
        RunDirError: If there is none.
        ConfigError: If it isn't what a run was made with.
    """
    file = config_file(path)
    said = parse(decode(file.read_bytes(), str(file)), str(file))
    if lacking := [f"`{key}:`" for key in _KINDS if key not in said]:
        raise ConfigError(f"{file} lacks {' and '.join(lacking)}: put back what the run began with")
    for key, kind in _KINDS.items():
        if not isinstance(said[key], kind):
            raise ConfigError(f"{file}: {key} is {said[key]!r:.60}, expected {_WORDS[kind]}")
    for key, kind in _TRAINER_KINDS.items():
        if key in said["trainer"] and not isinstance(value := said["trainer"][key], kind):
            raise ConfigError(f"{file}: trainer.{key} is {value!r:.60}, expected {_WORDS[kind]}")
    if not isinstance(said.get("id", ""), str):
        raise ConfigError(f"{file}: id is {said['id']!r:.60}, expected the text that it was")
    if said["algorithm"] not in ALGORITHMS:
        raise ConfigError(f"{file}: algorithm is {said['algorithm']}, expected {' or '.join(ALGORITHMS)}")
    return said
