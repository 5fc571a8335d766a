"""Many simulations of one model on a CPU, in MuJoCo's own threads."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, Final, final

import torch
from torch import Tensor

from ...common.errors import EnvError
from ...common.types import Config
from ...common.validation import did_you_mean
from ..simulators import needed

INSTALL: Final = "'rlstack[mujoco]'"

STATE_FIELDS: Final = (
    *("time", "qpos", "qvel", "act", "history", "qacc_warmstart", "ctrl", "qfrc_applied", "xfrc_applied"),
    *("eq_active", "mocap_pos", "mocap_quat", "userdata", "plugin_state", "plastic"),
)
"""What all other fields are computed from: MuJoCo's mjSTATE_INTEGRATION."""

_AFTER_CONSTRAINTS: Final = ("cacc", "cfrc_int", "cfrc_ext")
"""What MuJoCo computes only when asked to, with mj_rnePostConstraint."""

_FOR_SENSORS: Final = {"subtree_linvel": "subtreelinvel", "subtree_angmom": "subtreeangmom"}
"""What it computes only for sensors, and for which."""

_BAD: Final = ("BADQPOS", "BADQVEL", "BADQACC")
"""Warnings with which it says that a simulation is unstable, and begins it anew by itself."""


class Simulation(ABC):
    """All simulations of one model.

    Args:
        model: MuJoCo's mjModel.
        num_envs: B.
        reads: Which fields of mjData are read after each step.
        up_to_date: Whether they are those of the state after the step, not of the one before its last part.
    """

    def __init__(self, model: Any, num_envs: int, reads: Collection[str], *, up_to_date: bool) -> None:
        self.model, self.num_envs, self.reads, self.up_to_date = model, num_envs, reads, up_to_date

    @abstractmethod
    def field(self, name: str) -> Tensor:
        """Return an array of mjData, [B, ...]: the memory itself."""

    @abstractmethod
    def field_names(self) -> Collection[str]:
        """Return what `field` knows."""

    @abstractmethod
    def advance(self, steps: int) -> None:
        """Take steps of MuJoCo's with the controls that are in `ctrl`."""

    @abstractmethod
    def restart(self, rows: Tensor | None, values: Mapping[str, Tensor], settle: int) -> None:
        """Put simulations back to the model's own state, then to the values.

        Args:
            rows: [R], in ascending order. Which; None is all.
            values: State by field, each [R, ...].
            settle: Steps of MuJoCo's that are taken then, without controls.
        """

    @abstractmethod
    def unstable(self) -> tuple[int, str] | None:
        """Return the first simulation that MuJoCo says is unstable, and by what; None if none is."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return all that the next steps depend on."""

    @abstractmethod
    def load_state_dict(self, state: Config) -> None:
        """Take over what `state_dict` returned."""

    def checked(self, name: str) -> str:
        """Return the name of a field that can be read.

        Raises:
            AttributeError: If there is none.
            EnvError: If MuJoCo doesn't compute it.
        """
        if name not in self.field_names():
            raise AttributeError(f"MuJoCo's mjData has no {name}{did_you_mean(name, self.field_names())}")
        if name in _FOR_SENSORS:
            sensor = _FOR_SENSORS[name]
            raise EnvError(
                f"MuJoCo computes {name} for sensors only: add <{sensor}> to the model's <sensor>, and read "
                "state.sensor(name)"
            )
        return name

    @property
    def _reads_computed(self) -> bool:
        return any(name not in STATE_FIELDS for name in self.reads)

    @property
    def _reads_after_constraints(self) -> bool:
        return any(name in _AFTER_CONSTRAINTS for name in self.reads)


@final
class BatchSimulation(Simulation):
    """Simulations in MuJoCo's threads, in float64; the results don't depend on how many threads there are.

    Args:
        model: MuJoCo's mjModel.
        num_envs: B.
        reads: Which fields of mjData are read after each step.
        up_to_date: Whether they are those of the state after the step.
        num_threads: How many threads; None is as many as torch has.
    """

    def __init__(
        self,
        model: Any,
        num_envs: int,
        reads: Collection[str] = (),
        *,
        up_to_date: bool,
        num_threads: int | None,
    ) -> None:
        super().__init__(model, num_envs, reads, up_to_date=up_to_date)
        self._mujoco = needed("mujoco", INSTALL, "a simulation of MuJoCo's")
        self._module = needed("mujoco.batch", INSTALL, "a simulation of MuJoCo's")
        # With an mjData for each, MuJoCo goes on from fields that it has computed up to date: they are free.
        persistent = self._reads_after_constraints or (up_to_date and self._reads_computed)
        self._batch = self._module.Batch(
            model, num_envs, num_threads or torch.get_num_threads(), persistent=persistent
        )
        self._fields: dict[str, Tensor] = {}
        self._after = {name: self.field(name) for name in reads if name in _AFTER_CONSTRAINTS}
        self._data = self._mujoco.MjData(model)
        stages = self._mujoco.mjtStage
        self._stage = stages.mjSTAGE_NONE.value
        if up_to_date and self._reads_computed:
            # Forces of contacts need accelerations.
            self._stage = (stages.mjSTAGE_ACC if self._after else stages.mjSTAGE_VEL).value
        self._rows = torch.from_numpy(self._batch.state)
        bad = [getattr(self._mujoco.mjtWarning, f"mjWARN_{name}").value for name in _BAD]
        self._bad = self._batch.warning[:, bad[0] : bad[-1] + 1]

    def field(self, name: str) -> Tensor:
        """Return an array of mjData, [B, ...]: the memory itself."""
        if name not in self._fields:
            self.checked(name)
            if name in _AFTER_CONSTRAINTS:
                self._fields[name] = torch.zeros(self.num_envs, self.model.nbody, 6, dtype=torch.float64)
            else:
                with warnings.catch_warnings():
                    # What MuJoCo computes is marked as not to be written to.
                    warnings.simplefilter("ignore", UserWarning)
                    self._fields[name] = torch.from_numpy(self._batch.bind(name))
        return self._fields[name]

    def field_names(self) -> Collection[str]:
        """Return what `field` knows."""
        return self._module.DATA_FIELDS

    def advance(self, steps: int) -> None:
        """Take steps of MuJoCo's with the controls that are in `ctrl`."""
        self._batch.step(nstep=steps, stage=self._stage)
        if self._after:
            self._compute_after(range(self.num_envs))

    def restart(self, rows: Tensor | None, values: Mapping[str, Tensor], settle: int) -> None:
        """Put simulations back to the model's own state, then to the values."""
        ids = None if rows is None else rows.to(torch.int32).numpy()
        which: Any = slice(None) if rows is None else rows
        self._batch.reset(ids, stage=self._mujoco.mjtStage.mjSTAGE_NONE.value)
        for name, value in values.items():
            self.field(name)[which] = value.to(torch.float64)
        if settle:
            self._batch.step(ids, nstep=settle)
            self.field("time")[which] = 0
        self._batch.forward(ids)
        if self._after and self.up_to_date:
            self._compute_after(range(self.num_envs) if rows is None else rows.tolist())
        for after in () if self.up_to_date else self._after.values():
            # As MuJoCo's own reset leaves them.
            after[which] = 0

    def unstable(self) -> tuple[int, str] | None:
        """Return the first simulation that MuJoCo says is unstable, and by what; None if none is."""
        counts = self._bad[..., 1]
        if not counts.any():
            return None
        row, kind = (int(index) for index in torch.from_numpy(counts.copy()).nonzero()[0])
        return row, f"{_BAD[kind].removeprefix('BAD').lower()}[{int(self._bad[row, kind, 0])}]"

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next steps depend on."""
        computed = {name: self.field(name).clone() for name in sorted(self.reads) if name not in STATE_FIELDS}
        return {"rows": self._rows.clone(), "computed": computed}

    def load_state_dict(self, state: Config) -> None:
        """Take over what `state_dict` returned."""
        self._rows.copy_(state["rows"])
        for name, value in state["computed"].items():
            self.field(name).copy_(value)

    def _compute_after(self, rows: Collection[int]) -> None:
        """Compute what MuJoCo computes when asked to; its batch can't be asked, single simulations can."""
        data, model = self._data, self.model
        fields = [(getattr(data, name), after.numpy()) for name, after in self._after.items()]
        for row in rows:
            self._batch.get_data(row, data)
            self._mujoco.mj_rnePostConstraint(model, data)
            for field, after in fields:
                after[row] = field
