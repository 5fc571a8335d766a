"""Files that are there whole or not at all, whatever happens meanwhile."""

import os
import shutil
from pathlib import Path


def write_file(path: Path, data: bytes) -> None:
    """Write a file, replacing an older one only when complete; it survives a crash from then on.

    Raises:
        OSError: If it can't be written; an older file is as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.filename is None:
            # A full disk shows while writing, where the system names no file.
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make sure that what is in a directory, and under which names, survives a crash.

    Windows needs no such thing, and has no way to do it.
    """
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove a directory; it is renamed first, so that half a one never looks like a whole one."""
    trash = path.with_name(f".{path.name}.old")
    remove(trash)
    path.rename(trash)
    remove(trash)


def remove(path: Path) -> None:
    """Remove a directory, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
