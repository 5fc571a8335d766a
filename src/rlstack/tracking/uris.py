"""Where MLflow keeps runs: its tracking URIs, and stores in SQLite files of any name."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.request import url2pathname

from ..common.errors import TrackingError

_URI = "MLFLOW_TRACKING_URI"

_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///([^?]*)(?:\?.*)?", re.S)
"""As SQLAlchemy reads it; the path is quoted."""

_FOLDER = re.compile(r"(?:file:(?://[^/]*)?|(?![A-Za-z][\w+.-]+:))(.*)", re.S)
"""A path, or a URI of one."""

_WORDS = ("databricks", "databricks-uc", "uc")
"""URIs of MLflow that have no scheme and aren't paths."""


def tracking_uri(home: str | None = None, before: str | None = None) -> str:
    """Return where MLflow's settings point to; without any, a SQLite file.

    Args:
        home: Where paths that aren't from the root begin; None is the working directory.
        before: Where a run was tracked: without settings it goes on there, if that is a file or folder. To no
            server: credentials of the environment are for those that its user names.

    Raises:
        TrackingError: If MLflow can't work in that directory.
    """
    import mlflow

    home = home or os.getcwd()
    try:
        uri = str(mlflow.get_tracking_uri())
    except UnicodeEncodeError:
        why = "its name isn't UTF-8; set MLFLOW_TRACKING_URI, or work elsewhere"
        raise TrackingError(f"MLflow can't keep a store in {os.getcwd()!r}: {why}") from None
    is_set = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
    if not is_set and before is not None and _is_here(before):
        return before
    if not is_set and os.getcwd() != home:
        # MLflow looks for its default, a file or a folder, in the working directory of now.
        place = Path(home, uri.rpartition("/")[2])
        uri = sqlite_uri(place) if uri.startswith("sqlite:") else place.as_uri()
    return absolute_uri(uri, home)


@contextmanager
def mlflow_at(uri: str) -> Iterator[None]:
    """Let MLflow's own functions go to one store meanwhile, whatever path of it its settings have."""
    import mlflow

    if mlflow.get_tracking_uri() == uri:
        yield
        return
    before = os.environ.get(_URI)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        # MLflow sets and removes the variable, too: with it all is as it was.
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        if before is not None:
            os.environ[_URI] = before


def sqlite_file(uri: str, home: str | None = None) -> Path | None:
    """Return the file that a SQLite URI means, from the root; None if it is another URI, or means no file."""
    found = _SQLITE.fullmatch(uri)
    name = "" if found is None else unquote(found[1])
    if name in ("", ":memory:") or name.startswith("file:"):
        return None
    return Path(os.path.normpath(os.path.join(home or os.getcwd(), name)))


def sqlite_uri(path: Path) -> str:
    """Return the URI of a SQLite file, as little quoted as can be: MLflow takes quoted parts for names."""
    quoted = re.sub(r"[%?\x00-\x1f\x7f]", lambda found: f"%{ord(found[0]):02X}", os.path.abspath(path))
    return f"sqlite:///{quoted}"


def absolute_uri(uri: str, home: str | None = None) -> str:
    """Return where a store is, with a file's path from the root: the working directory may change.

    Args:
        uri: Of SQLite, `file:` or a path alone; all others are as they are.
        home: Where a path that isn't from the root begins; None is the working directory.
    """
    if (file := sqlite_file(uri, home)) is not None:
        options = uri.partition("?")[2]
        return sqlite_uri(file) + (f"?{options}" if options else "")
    if uri and uri not in _WORDS and (found := _FOLDER.fullmatch(uri)):
        # MLflow reads a path as it reads that of a URI.
        return Path(os.path.normpath(os.path.join(home or os.getcwd(), url2pathname(found[1])))).as_uri()
    return uri


def _is_here(uri: str) -> bool:
    """Return whether a store is a file or folder that there is."""
    if (file := sqlite_file(uri)) is not None:
        return file.is_file()
    found = _FOLDER.fullmatch(uri) if uri.startswith("file:") else None
    return found is not None and Path(url2pathname(found[1])).is_dir()


def public_uri(uri: str) -> str:
    """Return where a store is: without user, password and options, with a file's path from the root."""
    if (file := sqlite_file(uri)) is not None:
        return sqlite_uri(file)
    return re.sub(r"(?<=://).*@", "", absolute_uri(uri).partition("?")[0])


def without_passwords(text: str) -> str:
    """Return an error's text without the users and passwords of the addresses in it."""
    return re.sub(r"(?<=://)[^\s/]*@", "", text)


def make_store(uri: str, home: str) -> None:
    """Make a SQLite store that isn't there yet, whole or not at all.

    MLflow makes its tables one by one: two processes at once, or one that is killed meanwhile, would leave a
    store that can't be used.

    Args:
        uri: Where.
        home: Where its models go, to `mlruns`.

    Raises:
        OSError: If it can't be made.
    """
    from filelock import FileLock

    path = sqlite_file(uri)
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            partial = path.with_name(f".{path.name}.{os.getpid()}")
            make_tables(partial, home)
            partial.replace(path)


def make_tables(file: Path, home: str) -> None:
    """Let MLflow make a SQLite store whose models go to `mlruns` in a directory."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    make: Any = SqlAlchemyStore
    uri = sqlite_uri(file)
    with no_quoted_folders(uri):
        # As a URI: MLflow would take a path with a %20, a quote or a backslash for another one.
        store = make(uri, Path(home, "mlruns").as_uri())
    store.engine.dispose()


@contextmanager
def no_quoted_folders(uri: str) -> Iterator[None]:
    """Let MLflow leave no empty folders where it takes quoted names, or `file:`, as they are."""
    file, literal = sqlite_file(uri), Path(os.path.abspath(uri.partition("///")[2]))
    wrong = _SQLITE.fullmatch(uri) is not None and (file is None or literal.parent != file.parent)
    made = [folder for folder in literal.parents if wrong and not folder.exists()]
    try:
        yield
    finally:
        for folder in made:
            # What somebody keeps something in stays.
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
