"""What is known of all simulations at one moment, by MuJoCo's own names."""

from collections.abc import Collection, Mapping
from typing import final

from torch import Tensor

from ...common.errors import EnvError
from .simulation import STATE_FIELDS, Simulation


@final
class State:
    """All simulations at one moment: `qpos` [B, nq], `qvel` [B, nv], `xpos` [B, nbody, 3] and so on.

    Attributes are the arrays of MuJoCo's mjData with a batch dimension in front, in MuJoCo's precision, and
    what a task's `start` returns beside them. They are the simulation's own memory: read them, and keep no
    reference.

    Args:
        simulation: Whose.
        variables: What a task keeps of each simulation itself.
        known: Which fields will be read; None if that has yet to be seen.
        copies: Whether they are kept as they were when `keep` was called.
    """

    def __init__(
        self,
        simulation: Simulation,
        variables: Mapping[str, Tensor],
        known: Collection[str] | None,
        *,
        copies: bool,
    ) -> None:
        self._simulation, self._variables, self._known, self._copies = simulation, variables, known, copies
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._read: set[str] = set()
        for name in known or ():
            getattr(self, name)

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        value = self._variables.get(name)
        if value is None:
            if self._known is not None and name not in self._known:
                self._refuse_late(name)
            value = self._simulation.field(name)
            self._read.add(name)
            if self._copies:
                self._kept.append((value.clone(), value))
                value = self._kept[-1][0]
        # The memory stays where it is: it is looked up once.
        setattr(self, name, value)
        return value

    def sensor(self, name: str) -> Tensor:
        """Return what one of the model's sensors says: [B, dim]."""
        sensor = self._simulation.model.sensor(name)
        start = int(sensor.adr[0])
        return self.sensordata[:, start : start + int(sensor.dim[0])]

    def keep(self) -> None:
        """Take over what the simulations are now, where copies are kept."""
        for copy, live in self._kept:
            copy.copy_(live)

    @property
    def read(self) -> frozenset[str]:
        """Which fields have been read."""
        return frozenset(self._read)

    def _refuse_late(self, name: str) -> None:
        """Refuse a field that isn't there yet: what is read is settled when an environment is made."""
        if name in STATE_FIELDS and not self._copies:
            return
        if name in self._simulation.field_names():
            when = "before a step" if self._copies else "after a step"
            raise EnvError(
                f"{name} of the state {when} is read now, and wasn't when the environment was made: read it "
                "in every call of observation, reward and terminated"
            )
