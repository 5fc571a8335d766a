"""Machine code that is compiled once for a machine, and kept on disk."""

import hashlib
import logging
import time
from pathlib import Path
from typing import Any

import numba

from .compiled import OPTIONS

_log = logging.getLogger(__name__)

kept: Any = numba.njit(**OPTIONS, cache=True)
"""Makes machine code of a function that returns `SOURCES`, of what is around it, among other things.

numba itself looks at the file of this function alone.
"""

SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()


def call(function: Any, what: str, *args: Any) -> Any:
    """Call a function that is kept; say if it had to be compiled first."""
    start, known = time.perf_counter(), len(function.signatures)
    returned = function(*args)
    if len(function.signatures) > known and not sum(function.stats.cache_hits.values()):
        seconds = time.perf_counter() - start
        _log.warning(
            "%s compiled in %.1f s; from now on they are taken from %s",
            what,
            seconds,
            function.stats.cache_path,
        )
    return returned
