"""Tasks in MuJoCo: a model, what is observed of it, and what that is worth."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from ...common.errors import EnvError
from ...common.random_state import keep_random_state
from ...common.types import OBS, REWARDS, Batch, Config, Device
from ...specs import Bounded, Composite, TensorSpec, Unbounded
from ..base import Env
from ..ending import FINAL_OBS, TERMINATED, TRUNCATED
from ..faults import unstable
from .model_files import read_model
from .options import COMMON, resolve_options
from .simulation import STATE_FIELDS, BatchSimulation, Simulation
from .state import State


class MujocoEnv(Env):
    """Many simulations of one MuJoCo model; derive a task from it.

    A task has `mjcf`, `observation` and `reward`, and may have `start` and `terminated`: functions of tensors
    of all simulations. Actions are the model's controls, within their ranges where all have one. On a CPU
    simulations run in MuJoCo's own threads, on a GPU in MuJoCo Warp.

    Args:
        num_envs: How many simulations.
        config: `frame_skip`, `max_episode_steps`, `num_threads` (on a CPU; None is as many as torch has), and
            the task's `defaults`.
        device: Where to simulate.
    """

    mjcf: ClassVar[str]
    """The model: path of an MJCF file, or its text."""
    frame_skip: ClassVar[int] = 1
    """Steps of MuJoCo's in one of the task's."""
    max_episode_steps: ClassVar[int | None] = None
    """After how many steps an episode is broken off; None is never."""
    settle: ClassVar[int] = 0
    """Steps of MuJoCo's without controls with which an episode begins, for example to fall to the floor."""
    up_to_date: ClassVar[bool] = True
    """Whether computed fields, like `xpos` and `sensordata`, are those of the state after the step, as DM
    Control has them; else of the state before MuJoCo's last step, as its mj_step leaves them."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Options of the task and their default values; `self.config` has those in force."""
    fixed: ClassVar[tuple[str, ...]] = ()
    """Which of them stay as they were when the environment was made."""

    model: Any
    """MuJoCo's mjModel."""
    age: Tensor
    """[B, 1]. Steps since the episode of each simulation began."""

    def __init__(self, num_envs: int, /, *, config: Config | None = None, device: Device = "cpu") -> None:
        super().__init__(num_envs, config=config, device=device)
        cls = type(self)
        common = {
            "frame_skip": cls.frame_skip,
            "max_episode_steps": cls.max_episode_steps,
            "num_threads": None,
        }
        self.config = resolve_options({**common, **cls.defaults}, config, cls.__name__)
        self.model = self.load_model()
        self._dtype = torch.get_default_dtype()
        self.dt = float(self.model.opt.timestep) * self.config["frame_skip"]
        """Seconds of a step."""
        self.qpos0 = torch.as_tensor(self.model.qpos0, device=self.device)
        """[nq]. Positions that the model itself begins with."""
        self.age = torch.zeros((num_envs, 1), dtype=torch.int64, device=self.device)
        self._variables: dict[str, Tensor] = {}
        self.action_spec = self._make_action_spec()
        self._settle_what_is_read()

    @abstractmethod
    def observation(self, state: State) -> Batch:
        """Return what is observed in a state: [B, ...], or a TensorDict of such."""

    @abstractmethod
    def reward(self, before: State, action: Tensor, after: State) -> Tensor:
        """Return the rewards of a step, [B] or [B, 1].

        Args:
            before: The state before it.
            action: [B, nu].
            after: The state after it.
        """

    def terminated(self, state: State) -> Tensor | None:
        """Return whose episode has come to its end, bool [B] or [B, 1]; None if none ever does."""
        return None

    def start(self, num: int) -> Mapping[str, Tensor]:
        """Return what episodes begin with, by name, each [num, ...]; draw it from torch's generators.

        Fields of MuJoCo's state, `qpos` and `qvel` for example, are those from which a simulation begins; the
        model's own are taken for others. Whatever else is returned is an attribute of `state` until the
        episode ends.

        Args:
            num: How many episodes.
        """
        return {}

    def load_model(self) -> Any:
        """Return MuJoCo's mjModel of the task.

        Raises:
            EnvError: If there is none, or MuJoCo is missing.
        """
        name = type(self).__name__
        mjcf = getattr(type(self), "mjcf", None)
        if not isinstance(mjcf, str):
            raise EnvError(f"{name}.mjcf is {mjcf!r}, expected the path of an MJCF file, or its text")
        return read_model(mjcf, name)

    def reset(self, *, config: Config | None = None) -> Batch:
        """Start anew and return the observations, [B, ...]."""
        fixed = (*COMMON, *self.fixed)
        self.config = resolve_options(self.config, config, type(self).__name__, fixed=fixed)
        self._start(None)
        return self._observe()

    def step(self, action: Tensor) -> TensorDict:
        """Simulate one step under actions [B, nu]; simulations whose episodes end start anew."""
        self._before.keep()
        self._ctrl.copy_(action)
        self._simulation.advance(self.config["frame_skip"])
        if (fault := self._simulation.unstable()) is not None:
            raise unstable(fault[0], type(self).__name__, fault[1])
        rewards = self._column(self.reward(self._before, action, self._after), "reward").to(self._dtype)
        obs = self._observe()
        out = {OBS: obs, REWARDS: rewards}
        if self._terminates or self._truncates:
            self._end(out)
        return TensorDict(out, batch_size=self.num_envs)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each simulation, its age, what the task keeps of it, and the options."""
        config = {
            key: list(value) if isinstance(value, tuple) else value for key, value in self.config.items()
        }
        variables = {name: value.clone() for name, value in self._variables.items()}
        simulation = self._simulation.state_dict()
        return {"simulation": simulation, "age": self.age.clone(), "variables": variables, "config": config}

    def load_state_dict(self, state: Config) -> None:
        """Take over what `state_dict` returned."""
        self.config = resolve_options(self.config, state["config"], type(self).__name__)
        self._simulation.load_state_dict(state["simulation"])
        self.age.copy_(state["age"])
        for name, value in state["variables"].items():
            self._variables[name].copy_(value)

    def make_simulation(self, reads: frozenset[str] = frozenset()) -> Simulation:
        """Return all simulations.

        Args:
            reads: Which fields of MuJoCo's mjData the task reads.
        """
        if self.device.type == "cuda":
            from .warp import WarpSimulation

            return WarpSimulation(
                self.model, self.num_envs, reads, up_to_date=self.up_to_date, device=self.device
            )
        threads = self.config["num_threads"]
        return BatchSimulation(
            self.model, self.num_envs, reads, up_to_date=self.up_to_date, num_threads=threads
        )

    def _settle_what_is_read(self) -> None:
        """Call the task's functions once, and make the simulations for what they read and return."""
        self._simulation = self.make_simulation()
        with keep_random_state(self.device), torch.no_grad():
            self._start(None)
            before, after = (
                State(self._simulation, self._variables, None, copies=copies) for copies in (True, False)
            )
            self.observation_spec = self._spec_of(self.observation(after), "observation")
            action = torch.zeros((self.num_envs, self.model.nu), dtype=self._dtype, device=self.device)
            self._column(self.reward(before, action, after), "reward")
            terminated = self.terminated(after)
            if terminated is not None and self._column(terminated, "terminated").dtype != torch.bool:
                name, dtype = type(self).__name__, terminated.dtype
                raise EnvError(f"{name}.terminated returned {dtype}, expected torch.bool: compare")
            self._terminates = terminated is not None
            self._truncates = self.config["max_episode_steps"] is not None
            self._simulation = self.make_simulation(before.read | after.read)
            self._before = State(self._simulation, self._variables, before.read, copies=True)
            self._after = State(self._simulation, self._variables, after.read, copies=False)
            self._ctrl = self._simulation.field("ctrl")
            self._start(None)

    def _start(self, rows: Tensor | None) -> None:
        """Begin episodes of these rows [R], in ascending order; None is all."""
        num = self.num_envs if rows is None else len(rows)
        which: Any = slice(None) if rows is None else rows
        values = {}
        for name, value in self.start(num).items():
            if len(value) != num:
                raise EnvError(
                    f"{type(self).__name__}.start returned {name} of shape {list(value.shape)}, expected "
                    f"{num} rows"
                )
            if name in STATE_FIELDS:
                values[name] = value
            elif name in self._variables:
                self._variables[name][which] = value
            else:
                self._variables[name] = value.clone()
        self._simulation.restart(rows, values, self.settle)
        self.age[which] = 0

    def _end(self, out: dict[str, Any]) -> None:
        """Say in what a step returns whose episode ends with it, and begin their next ones."""
        self.age += 1
        ended: Tensor | None = None
        if self._terminates:
            terminated = self.terminated(self._after)
            assert terminated is not None
            ended = out[TERMINATED] = self._column(terminated, "terminated")
        if self._truncates:
            truncated = self.age >= self.config["max_episode_steps"]
            if ended is not None:
                truncated &= ~ended
            out[TRUNCATED] = truncated
            ended = truncated if ended is None else ended | truncated
        assert ended is not None
        out[FINAL_OBS] = out[OBS]
        rows = ended.flatten().nonzero().flatten()
        if len(rows):
            self._start(rows)
            out[OBS] = self._observe()

    def _observe(self) -> Batch:
        """Return the observations, a copy of them: what a task returns may be the simulation's memory."""
        obs = self.observation(self._after)
        if isinstance(obs, Tensor):
            return obs.to(self._dtype, copy=True)
        return obs.apply(lambda part: part.to(self._dtype, copy=True))

    def _column(self, value: Tensor, what: str) -> Tensor:
        """Return numbers of all simulations as [B, 1]."""
        if not isinstance(value, Tensor) or tuple(value.shape) not in ((self.num_envs,), (self.num_envs, 1)):
            got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise EnvError(
                f"{type(self).__name__}.{what} returned {got}, expected a tensor of shape [{self.num_envs}]"
            )
        return value.reshape(self.num_envs, 1)

    def _spec_of(self, obs: Any, where: str) -> TensorSpec:
        name = f"{type(self).__name__}.{where}"
        if isinstance(obs, TensorDict):
            return Composite({key: self._spec_of(part, f"{where}.{key}") for key, part in obs.items()})
        if not isinstance(obs, Tensor) or obs.ndim < 2 or len(obs) != self.num_envs:
            got = list(obs.shape) if isinstance(obs, Tensor) else type(obs).__name__
            raise EnvError(f"{name} returned {got}, expected a tensor of shape [{self.num_envs}, ...]")
        return Unbounded(tuple(obs.shape[1:]), dtype=self._dtype, device=self.device)

    def _make_action_spec(self) -> TensorSpec:
        model = self.model
        kind: dict[str, Any] = {"dtype": self._dtype, "device": self.device}
        if not model.nu:
            raise EnvError(f"{type(self).__name__} has nothing to control: add an <actuator> to the model")
        if not model.actuator_ctrllimited.all():
            return Unbounded((model.nu,), **kind)
        low, high = torch.as_tensor(model.actuator_ctrlrange).to(**kind).unbind(-1)
        return Bounded(low, high, (model.nu,), **kind)
