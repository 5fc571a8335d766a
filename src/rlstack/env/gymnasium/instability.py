"""Simulations of MuJoCo's that it has found unstable, in environments of Gymnasium's.

MuJoCo puts such a simulation back to where its model begins, and goes on: no number that it returns tells.
It counts that in its warnings, up to the next reset.
"""

# A worker has the wrapper's code alone, and not the names of its annotations.
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..faults import unstable

_TOLD = "rlstack_unstable"
"""In infos: where MuJoCo has found it, of the rows that have it."""


def tells_instability() -> Callable[[Any], Any]:
    """Return a wrapper of single environments: where one is of MuJoCo, its infos say what is unstable."""

    # Pickled by its contents, as it has no name: a worker needn't import rlstack, and torch with it.
    def wrapper(env: Any) -> Any:
        import sys

        from gymnasium import Wrapper

        mujoco = sys.modules.get("mujoco")
        if mujoco is None or not hasattr(getattr(env.unwrapped, "data", None), "warning"):
            return env
        kinds = {
            name: int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{name.upper()}"))
            for name in ("qpos", "qvel", "qacc")
        }

        class Watched(Wrapper):  # type: ignore[misc]
            def step(self, action: Any) -> Any:
                out = self.env.step(action)
                # A view of MuJoCo's own numbers: reading three takes less than 1 µs.
                counts = warnings.number
                for name, kind in kinds.items():
                    if counts[kind]:
                        out[4][_TOLD] = f"{name}[{warnings.lastinfo[kind]}]"
                return out

        warnings = env.unwrapped.data.warning
        return Watched(env)

    return wrapper


def check_stable(infos: Any, name: str) -> None:
    """Refuse what a step of all simulations returned if one of them is unstable.

    Args:
        infos: Of the step.
        name: Of the environment.

    Raises:
        NonFiniteError: If one is.
    """
    if isinstance(infos, Mapping) and _TOLD in infos:
        row, where = next((row, where) for row, where in enumerate(infos[_TOLD]) if where is not None)
        raise unstable(row, name, where)
