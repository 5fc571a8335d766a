"""Whether there is machine code for small networks here, and for which sizes."""

import logging
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

from ...ppo.bounds import NARROW, NARROW_PARAMETERS

_log = logging.getLogger(__name__)


class MachineCode(NamedTuple):
    """What there is."""

    program: Any
    """The class `Program`, which makes optimizer steps."""
    actor: Any
    """The class `Actor`."""
    critic: Any
    """The class `Critic`."""
    wide: bool
    """Whether this processor multiplies 256 bits at a time, or more."""


def machine_code(rows: int, parameters: int) -> MachineCode | None:
    """Return what there is for so many rows and parameters; None without numba, or where torch is faster."""
    found = _imported()
    if found is None or found.wide:
        return found
    return found if parameters <= NARROW_PARAMETERS and rows * parameters <= NARROW else None


@cache
def _imported() -> MachineCode | None:
    """Return what there is; None without numba, or with one that can't be used."""
    if find_spec("numba") is None:
        return None
    try:
        from .acting import Actor, Critic
        from .products import BYTES
        from .program import Program
    except ImportError as error:
        _log.warning("numba is installed but can't be imported, small networks are slower: %s", error)
        return None
    return MachineCode(Program, Actor, Critic, BYTES >= 32)
