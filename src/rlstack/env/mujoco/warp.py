"""Many simulations of one model in MuJoCo Warp: on a GPU, in tensors that share its memory."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, final

import torch
from torch import Tensor

from ...common.errors import EnvError
from ...common.types import Config
from ..simulators import needed
from .simulation import INSTALL, STATE_FIELDS, Simulation

_INSTALL: Final = "'rlstack[mujoco-warp]'"


@final
class WarpSimulation(Simulation):
    """Simulations in MuJoCo Warp, in float32; on a GPU the kernels of a step are recorded once and replayed.

    Args:
        model: MuJoCo's mjModel.
        num_envs: B.
        reads: Which fields of mjData are read after each step.
        up_to_date: Whether they are those of the state after the step.
        device: Where to simulate.
    """

    def __init__(
        self,
        model: Any,
        num_envs: int,
        reads: Collection[str] = (),
        *,
        up_to_date: bool,
        device: torch.device,
    ) -> None:
        super().__init__(model, num_envs, reads, up_to_date=up_to_date)
        self._mujoco = needed("mujoco", INSTALL, "a simulation of MuJoCo's")
        self._warp = needed("warp", _INSTALL, "a simulation of MuJoCo's on a GPU")
        self._mjw = needed("mujoco_warp", _INSTALL, "a simulation of MuJoCo's on a GPU")
        # Otherwise it prints a line for each kernel that it compiles or loads.
        self._warp.config.log_level = max(self._warp.config.log_level, self._warp.LOG_WARNING)
        self._warp.init()
        self._torch_device, self._device = device, self._warp.device_from_torch(device)
        self._template = self._mujoco.MjData(model)
        try:
            with self._warp.ScopedDevice(self._device):
                self._m = self._mjw.put_model(model)
                self._d = self._mjw.make_data(model, nworld=num_envs)
        except NotImplementedError as error:
            raise EnvError(f"MuJoCo Warp can't simulate this model: {error}") from None
        self._fields: dict[str, Tensor] = {}
        self._graphs: dict[int, Any] = {}
        self._state = [name for name in STATE_FIELDS if self._has(name) and self.field(name).numel()]
        self._computed = sorted(name for name in reads if name not in STATE_FIELDS)

    def field(self, name: str) -> Tensor:
        """Return an array of mjData, [B, ...]: the memory itself."""
        if name not in self._fields:
            self.checked(name)
            shape = getattr(getattr(self._template, name), "shape", ())
            tensor = self._warp.to_torch(getattr(self._d, name))
            try:
                self._fields[name] = tensor.view(self.num_envs, *shape)
            except RuntimeError:
                raise EnvError(
                    f"{name} is {list(tensor.shape)} in MuJoCo Warp and {list(shape)} for each simulation in "
                    "MuJoCo: a task that reads it runs on a CPU only"
                ) from None
        return self._fields[name]

    def field_names(self) -> Collection[str]:
        """Return what `field` knows."""
        return [name for name in dir(self._template) if not name.startswith("_") and self._has(name)]

    def advance(self, steps: int) -> None:
        """Take steps of MuJoCo's with the controls that are in `ctrl`."""
        if not self._device.is_cuda:
            with self._warp.ScopedDevice(self._device):
                self._advance(steps)
            return
        if steps not in self._graphs:
            # Kernels are compiled and loaded by a first run, which can't be recorded: it is taken back.
            before = self.state_dict()
            with self._on_stream():
                self._advance(steps)
            torch.cuda.synchronize(self._torch_device)
            with self._warp.ScopedDevice(self._device), self._warp.ScopedCapture() as capture:
                self._advance(steps)
            self._graphs[steps] = capture.graph
            self.load_state_dict(before)
        with self._on_stream() as stream:
            self._warp.capture_launch(self._graphs[steps], stream=stream)

    def restart(self, rows: Tensor | None, values: Mapping[str, Tensor], settle: int) -> None:
        """Put simulations back to the model's own state, then to the values."""
        which: Any = slice(None) if rows is None else rows
        mask = torch.zeros(self.num_envs, dtype=torch.bool, device=self._torch_device)
        mask[which] = True
        with self._keep(~mask), self._on_stream():
            self._mjw.reset_data(self._m, self._d, reset=self._warp.from_torch(mask))
            for name, value in values.items():
                field = self.field(name)
                field[which] = value.to(field.dtype)
            if settle:
                for _ in range(settle):
                    self._mjw.step(self._m, self._d)
                self.field("time")[which] = 0
            self._mjw.forward(self._m, self._d)
            if self._reads_after_constraints and self.up_to_date:
                self._mjw.rne_postconstraint(self._m, self._d)

    def unstable(self) -> None:
        """Return None: NaN is found by whoever looks at what a task returns."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next steps depend on."""
        return {name: self.field(name).clone() for name in (*self._state, *self._computed)}

    def load_state_dict(self, state: Config) -> None:
        """Take over what `state_dict` returned."""
        for name, value in state.items():
            self.field(name).copy_(value)

    def _advance(self, steps: int) -> None:
        for _ in range(steps):
            self._mjw.step(self._m, self._d)
        if self.up_to_date and self._reads_computed:
            self._mjw.forward(self._m, self._d)
        if self._reads_after_constraints:
            self._mjw.rne_postconstraint(self._m, self._d)

    def _has(self, name: str) -> bool:
        return isinstance(getattr(self._d, name, None), self._warp.array)

    @contextmanager
    def _keep(self, mask: Tensor) -> Iterator[None]:
        """Put simulations back afterwards: MuJoCo Warp computes all of them.

        Args:
            mask: [B], bool. Which.
        """
        before = self.state_dict()
        yield
        for name, value in before.items():
            field = self.field(name)
            field.copy_(torch.where(mask.view(-1, *[1] * (field.ndim - 1)), value, field))

    @contextmanager
    def _on_stream(self) -> Iterator[Any]:
        """Let Warp work in the order of torch's operations."""
        with self._warp.ScopedDevice(self._device):
            if not self._device.is_cuda:
                yield None
                return
            stream = self._warp.stream_from_torch(torch.cuda.current_stream(self._torch_device))
            with self._warp.ScopedStream(stream):
                yield stream
