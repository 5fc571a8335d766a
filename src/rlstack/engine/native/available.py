"""Whether there is machine code for small optimizer steps here."""

import logging
from functools import cache
from importlib.util import find_spec
from typing import Any

_log = logging.getLogger(__name__)


@cache
def program_class() -> Any:
    """Return `Program`; None without numba, or with one that can't be used."""
    if find_spec("numba") is None:
        return None
    try:
        from .program import Program
    except ImportError as error:
        _log.warning("numba is installed but can't be imported, small optimizer steps are slower: %s", error)
        return None
    return Program
