"""Why nothing can be sent to MLflow, in words, and what to do about it."""

import re
import textwrap

from ..common.errors import told
from .uris import without_passwords

_LONGEST = 200
"""Characters of an error's own text."""

_FAULTS = (
    (
        r"UNAUTHENTICATED|PERMISSION_DENIED",
        "the server doesn't let you in: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
        "MLFLOW_TRACKING_TOKEN, to one who may write to the experiment",
    ),
    (
        r"Current state is deleted",
        "the experiment or run is deleted: restore it, or name another experiment, MLFLOW_EXPERIMENT_NAME",
    ),
    (
        r"out-of-date database schema|Can't locate revision",
        "the store is that of another version of MLflow: if of an older one, make a copy of it, then run "
        "mlflow db upgrade {uri}",
    ),
    (
        r"readonly database|(?i:read-only)|unable to open database file|PermissionError|FileNotFoundError"
        r"|FileExistsError|NotADirectoryError",
        "the store can't be written: let its file and directory be writable, or use another store",
    ),
    (r"file is not a database", "the store's file is no SQLite database: use another store"),
    (r"unsupported URI", "MLflow knows no stores like {uri}: begin with https://, http:// or sqlite:///"),
    (
        r"ModuleNotFoundError|NoSuchModuleError",
        "a package for stores like this one isn't installed: install it, or use another store",
    ),
    (r"ENDPOINT_NOT_FOUND", "what answers at {uri} is not MLflow: see whether the address is right"),
    (
        r"NameResolutionError|Failed to resolve|getaddrinfo|gaierror",
        "there is no host as in {uri}: see whether the address is right, and this machine online",
    ),
    (r"Connection ?[Rr]efused", "nothing answers at {uri}: see whether the server is running"),
    (r"INVALID_PARAMETER_VALUE|RESOURCE_DOES_NOT_EXIST", "MLflow refuses it"),
)
"""Regular expressions for errors, and what they mean; the first that is found counts."""


def say_why(error: Exception, uri: str | None) -> str:
    """Return what `explain` says, and the beginning of the error itself."""
    said = textwrap.shorten(without_passwords(told(error)), _LONGEST, placeholder=" …")
    return f"{explain(error, uri)} ({said})"


def explain(error: Exception, uri: str | None) -> str:
    """Return in one sentence what an error of MLflow's means, and what to do.

    Args:
        error: What was raised.
        uri: Where was to be sent to, without user and password.
    """
    said = f"{type(error).__name__} {getattr(error, 'error_code', '')} {error}"
    for pattern, meaning in _FAULTS:
        if re.search(pattern, said):
            return meaning.format(uri=uri or "this one")
    return "MLflow can't be reached"
