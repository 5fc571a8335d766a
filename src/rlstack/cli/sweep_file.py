"""The file of a sweep: what `rlstack train -f` takes, and a section `sweep`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

from ..common.atomic_files import write_file
from ..common.errors import ConfigError, HparamsError, RunDirError
from ..common.nested import flatten, unflatten
from ..runs.class_paths import find_classes
from ..runs.saved_config import ALGORITHMS
from ..runs.yaml_format import decode, parse
from ..sweeps.options import SweepConfig
from .run_config import RunConfig

COPY = "sweep.yaml"
"""Its name in the directory of a sweep."""

_MAY_CHANGE = ("sweep.trials", "sweep.pruner", "trainer")
"""What may be another one when a sweep goes on."""


@final
@dataclass(frozen=True, kw_only=True)
class SweepFile:
    """What a file asks for, checked as far as can be without making anything."""

    data: bytes
    said: Mapping[str, Any]
    asked: RunConfig
    """What each run has in common."""
    config: SweepConfig

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what a file asks for; files that it names are seen from its directory.

        Raises:
            ConfigError: If there is something wrong with it, a line each.
            OSError: If it can't be read.
        """
        data = path.read_bytes()
        said = parse(decode(data, str(path)), str(path))
        run = {key: value for key, value in said.items() if key != "sweep"}
        try:
            config = sweep_of(said)
            asked = RunConfig.parse(run, base=path.parent, own_env=True)
            if asked.env is None:
                raise ConfigError("env is missing: name the environment")
            _check_search(config, asked.algorithm, path.parent)
        except HparamsError as error:
            raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None
        return cls(data=data, said=said, asked=asked, config=config)

    def keep_in(self, directory: Path) -> None:
        """Write a copy to the directory of its sweep.

        Raises:
            RunDirError: If that is the directory of another sweep.
            OSError: If it can't be written.
        """
        path = directory / COPY
        if path.exists():
            before, now = (
                {key: value for key, value in flatten(said).items() if not key.startswith(_MAY_CHANGE)}
                for said in (_read(path), self.said)
            )
            if other := [key for key in {**before, **now} if before.get(key) != now.get(key)]:
                raise RunDirError(
                    f"{directory} is a sweep with another {other[0]}: put it back, or give another --run-dir"
                )
        directory.mkdir(parents=True, exist_ok=True)
        write_file(path, self.data)


def config_in(directory: Path) -> SweepConfig:
    """Return what a sweep's directory says of it.

    Raises:
        RunDirError: If it is none.
        ConfigError: If what it says can't be used.
    """
    path = directory / COPY
    if not path.is_file():
        raise RunDirError(f"{directory} is not the directory of a sweep: there is no {COPY} in it")
    return sweep_of(_read(path))


def sweep_of(said: Mapping[str, Any]) -> SweepConfig:
    """Return the section `sweep` of what a file says.

    Raises:
        ConfigError: A line for each mistake.
    """
    section = said.get("sweep")
    if not isinstance(section, dict) or "search" not in section:
        example = "sweep: {search: {gamma: {low: 0.9, high: 0.99}}, max_updates: 100}"
        raise ConfigError(f"there is no section sweep with a search: add one, like {example}")
    try:
        config = SweepConfig(**section)
        config.check()
    except HparamsError as error:
        raise ConfigError("\n".join(f"sweep.{line}" for line in str(error).splitlines())) from None
    return config


def _check_search(config: SweepConfig, algorithm: str, base: Path) -> None:
    """Refuse hyperparameters that there aren't, and values that none of them can have."""
    mistakes = dict[str, None]()
    for name, dimension in config.dimensions().items():
        if name.partition(".")[0] == "seed":
            mistakes["sweep.search.seed can't be searched: give seeds"] = None
        for value in dimension.ends:
            try:
                values = find_classes(unflatten({name: value}), base)
                ALGORITHMS[algorithm].hparams_cls.parse(values)
            except HparamsError as error:
                mistakes |= {f"sweep.search.{line}": None for line in str(error).splitlines()}
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _read(path: Path) -> dict[str, Any]:
    return parse(decode(path.read_bytes(), str(path)), str(path))
