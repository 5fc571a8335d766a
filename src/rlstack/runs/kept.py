"""Which checkpoints of a run are kept, and which ones `latest` and `best` name."""

from pathlib import Path

from ..common.atomic_files import discard, remove, write_file
from .checkpoint import NAME, numbered


def point(directory: Path, pointer: str, target: Path) -> None:
    """Let a pointer, `latest` or `best`, name a checkpoint."""
    write_file(directory / pointer, f"{target.name}\n".encode())


def pointed(directory: Path, pointer: str) -> Path | None:
    """Return the checkpoint that a pointer names; None if there is no such pointer or checkpoint."""
    try:
        name = (directory / pointer).read_text(errors="replace").strip()
    except OSError:
        return None
    path = directory / name
    return path if NAME.fullmatch(name) and path.is_dir() else None


def prune(directory: Path, keep: int, last: Path) -> None:
    """Remove all but the last checkpoints and the best one, and what a killed process left half done.

    Args:
        directory: Where they are.
        keep: How many to keep, the last one among them.
        last: The last one; those of later updates, which couldn't be used, stay.
    """
    best, paths = pointed(directory, "best"), numbered(directory)
    for path in paths[paths.index(last) + keep :]:
        if path != best:
            discard(path)
    for path in directory.iterdir():
        if path.name.startswith(".ckpt-"):
            remove(path)
