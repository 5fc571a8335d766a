"""How the processes of one start of `torchrun` find each other, and nobody of an earlier one.

The launcher keeps one store over all its restarts, where the addresses of those that died still stand; a rank
that is quicker than its neighbors would call these. So all ranks of a start agree on a name that is new.
"""

import time
from typing import Any, Final
from uuid import uuid4

from ..common.errors import RankError

_PATIENCE: Final = 600.0
"""How long to wait for the others, s."""

_PAUSE: Final = 0.02


def meet(store: Any, rank: int, count: int) -> str:
    """Return a name that all ranks of this start have, and none before.

    Each rank says hello with a word that is new; rank 0 answers with the word and the name; who finds its own
    word in the answer takes the name, and says so. An old hello is answered in vain, and then the new one.

    Raises:
        RankError: If a rank doesn't come.
    """
    name, until = uuid4().hex, time.monotonic() + _PATIENCE
    if rank:
        store.set(f"hello/{rank}", name)
        while True:
            word, _, found = _read(store, f"answer/{rank}").partition(" ")
            if word == name:
                store.set(f"taken/{rank}", found)
                return found
            _wait(until, "rank 0")
    others = set(range(1, count))
    while others:
        for other in sorted(others):
            if _read(store, f"taken/{other}") == name:
                others.discard(other)
            elif hello := _read(store, f"hello/{other}"):
                store.set(f"answer/{other}", f"{hello} {name}")
        if others:
            _wait(until, f"rank {', '.join(map(str, sorted(others)))}")
    return name


def _read(store: Any, key: str) -> str:
    return str(store.get(key).decode()) if store.check([key]) else ""


def _wait(until: float, whom: str) -> None:
    if time.monotonic() > until:
        raise RankError(f"{whom} has not come within {_PATIENCE:.0f} s: look at what is printed there")
    time.sleep(_PAUSE)
