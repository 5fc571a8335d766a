"""The directories of runs, by name."""

import re
from datetime import date
from pathlib import Path
from typing import Any

from ..common.errors import CheckpointError
from . import checkpoint


def _stem(name: str) -> str:
    return name.replace(":", ".").rpartition(".")[2].rpartition("/")[2]


def make_run_dir(name: str) -> Path:
    """Return a new directory `runs/<env>-<date>-<n>`, the first free n from 1 on."""
    stem = f"{_stem(name)}-{date.today():%Y%m%d}"
    number = 1
    while True:
        directory = Path("runs") / f"{stem}-{number}"
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return directory


def runs_of(name: str) -> list[Path]:
    """Return the directories under `runs` of an environment, the last one last."""
    pattern = re.compile(rf"{re.escape(_stem(name))}-(\d{{8}})-(\d+)")
    found = [(pattern.fullmatch(path.name), path) for path in Path("runs").glob("*-*-*")]
    return [path for *_, path in sorted((m[1], int(m[2]), path) for m, path in found if m)]


def runs(directory: Path) -> list[dict[str, Any]]:
    """Return the runs in a directory, 2 before 10, and how far each is; only manifests are read."""
    found = []
    for path in sorted(directory.iterdir(), key=_by_number) if directory.is_dir() else []:
        if not (path / "config.yaml").is_file():
            continue
        last: dict[str, Any] = {"name": path.name, "updates": 0}
        for number in checkpoint.numbered(path / "checkpoints"):
            try:
                info = checkpoint.manifest(number)["info"]
            except (CheckpointError, OSError) as error:
                last["fault"] = str(error)
                continue
            last |= {name: info[name] for name in ("updates", "env_steps")}
            last["returns/mean"] = info["stats"].get("returns/mean")
            break
        found.append(last)
    return found


def _by_number(path: Path) -> list[tuple[bool, int, str]]:
    """Return a key that sorts names as people count."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
