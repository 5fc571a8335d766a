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


_said: set[Any] = set()


def call(function: Any, what: str, *args: Any) -> Any:
    """Call a function that is kept; say if it had to be compiled first, for `what`."""
    start, known = time.perf_counter(), len(function.overloads)
    returned = function(*args)
    if len(function.overloads) > known and not sum(function.stats.cache_hits.values()):
        seconds = time.perf_counter() - start
        # Of threads that have waited for it, one says so.
        if function not in _said:
            _said.add(function)
            _log.warning(
                "machine code for %s was compiled in %.1f s; from now on it is taken from %s",
                what,
                seconds,
                function.stats.cache_path,
            )
    return returned
