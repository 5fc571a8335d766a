"""Environments of Brax and MuJoCo Playground by name, `brax:ant` and `playground:CartpoleSwingup`.

They are stepped as one compiled program over all simulations. A simulation whose episode ends goes on from a
start of its own that is drawn then; Playground's own wrapper returns to the first one. Tensors and JAX's
arrays change hands by DLPack, on the same device. `done` is a termination, as Brax takes it by default.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from ...common.errors import EnvError, told
from ...common.nested import flatten
from ...common.types import OBS, REWARDS, Batch, Config, Device
from ...common.validation import did_you_mean
from ...specs import Bounded, Composite, TensorSpec, Unbounded
from ..base import Env
from ..ending import FINAL_OBS, TERMINATED, TRUNCATED
from ..foreign import draw_seed
from ..simulators import needed, unknown
from .program import Program, Rows

Simulated = tuple[Any, int | None, int]
"""What is simulated, after how many steps its episodes are broken off, and how many of its steps one is."""


def make_brax(name: str, /, **options: Any) -> type[Env]:
    """Return the environment class of one of Brax's environments.

    Args:
        name: `ant`, for example.
        options: `episode_length`, steps until an episode is broken off, 1000 by default and None for never;
            `action_repeat`; all else is for the environment itself, `backend="mjx"` for example. They are the
            defaults of `env_config`.

    Raises:
        EnvError: If Brax is missing, or has no such environment or option.
    """
    full = f"brax:{name}"
    envs = needed("brax.envs", "'rlstack[jax]'", full)
    # There is no public list of them.
    known: dict[str, Any] = envs._envs
    if name not in known:
        raise unknown(full, "an environment of Brax", [f"brax:{other}" for other in known])
    own = {
        option
        for callee in (known[name].__init__, envs.PipelineEnv.__init__)
        for option in inspect.signature(callee).parameters
    } - {"self", "kwargs", "sys"}

    def simulated(config: Mapping[str, Any], platform: str) -> Simulated:
        rest = dict(config)
        length, repeat = rest.pop("episode_length", 1000), rest.pop("action_repeat", 1)
        return envs.get_environment(name, **rest), length, repeat

    return _class(full, ["episode_length", "action_repeat", *sorted(own)], options, simulated)


def make_playground(name: str, /, **options: Any) -> type[Env]:
    """Return the environment class of one of MuJoCo Playground's environments.

    Args:
        name: `CartpoleSwingup`, for example.
        options: What the environment's own configuration has, `episode_length` and `action_repeat` among it;
            nested ones as dictionaries or with dots, `reward_config.scales.orientation=-1.0`. `impl` is "jax"
            by default on a CPU, the environment's own on a GPU. They are the defaults of `env_config`.

    Raises:
        EnvError: If MuJoCo Playground is missing, or has no such environment or option.
    """
    full = f"playground:{name}"
    registry = needed("mujoco_playground", "'rlstack[jax]'", full).registry
    if name not in registry.ALL_ENVS:
        known = [f"playground:{other}" for other in registry.ALL_ENVS]
        raise unknown(full, "an environment of MuJoCo Playground", known)
    defaults = flatten(registry.get_default_config(name).to_dict())

    def simulated(config: Mapping[str, Any], platform: str) -> Simulated:
        changed = dict(config)
        if platform == "cpu" and "impl" in defaults:
            changed.setdefault("impl", "jax")
        has = {**defaults, **changed}
        env = registry.load(name, config_overrides=changed)
        return env, has.get("episode_length"), has.get("action_repeat", 1)

    return _class(full, list(defaults), flatten(options), simulated)


def _class(
    full: str, known: list[str], options: Mapping[str, Any], simulated: Callable[..., Simulated]
) -> type[Env]:
    """Return the class of an environment.

    Args:
        full: Its name with prefix.
        known: Its options.
        options: Those that are said.
        simulated: What makes what is simulated, from options and JAX's platform.
    """
    members = {
        "__module__": __name__,
        "simulator_name": full,
        "simulator_options": dict(options),
        "known": known,
        "defaults": {},
        "simulated": staticmethod(simulated),
        "_programs": {},
    }
    made: Any = type(full.partition(":")[2], (_Jax,), members)
    made.defaults = made._options({}, options)
    cls: type[Env] = made
    return cls


class _Jax(Env):
    """Simulations of one environment in JAX, all of them one compiled program.

    Args:
        num_envs: How many.
        config: Options.
        device: Where to simulate; a GPU must be one that JAX sees.
    """

    simulator_name: ClassVar[str]
    """As the command line takes it."""
    known: ClassVar[list[str]]
    """Names of all options."""
    defaults: ClassVar[Mapping[str, Any]]
    """Options that were said, and their values."""
    simulated: ClassVar[Callable[..., Simulated]]
    """Makes what is simulated."""
    _programs: ClassVar[dict[str, Program]]
    """What has been compiled, by options and device: it takes seconds, and depends on nothing else."""

    def __init__(self, num_envs: int, /, *, config: Config | None = None, device: Device = "cpu") -> None:
        super().__init__(num_envs, config=config, device=device)
        self._jax = needed("jax", "'rlstack[jax]'", self.simulator_name)
        self.config = self._options(self.defaults, config)
        self._held = _Held(self._made(self.config))
        self.observation_spec, self.action_spec = self._specs(self._held.program)
        self._steps = 0

    def reset(self, *, config: Config | None = None) -> Batch:
        """Start all simulations anew and return their observations, [B, ...]."""
        changed = self._options(self.config, config)
        if changed != self.config:
            program = self._made(changed)
            if (self.observation_spec, self.action_spec) != self._specs(program):
                raise EnvError(
                    f"{type(self).__name__} can't change its observations or actions at a reset, by "
                    f"{', '.join(config or {})}: make a new environment with these options"
                )
            self.config, self._held.program = changed, program
        seed = draw_seed()
        self._held.rows, obs = self._held.program.begin(seed, self.num_envs)
        self._steps = 0
        return self._batch(obs)

    def step(self, action: Tensor) -> TensorDict:
        """Take one step of all simulations under actions [B, A]; those whose episodes end start anew.

        The host reads how many those are, and so waits for the simulation.
        """
        # A copy: JAX may read it when the caller has long gone on.
        given = self._jax.numpy.from_dlpack(action.clone(memory_format=torch.contiguous_format))
        rows, moment = self._held.program.step(self._held.rows, given)
        self._steps += 1
        count = int(moment.count)
        final_obs = obs = self._batch(moment.obs)
        if count:
            rows, begun = self._held.program.put_back_all(rows, moment.ended, count)
            obs = self._batch(begun)
        self._held.rows = rows
        content = {
            OBS: obs,
            REWARDS: _owned(moment.rewards).to(torch.get_default_dtype()),
            TERMINATED: _owned(moment.terminated),
            TRUNCATED: _owned(moment.truncated),
            FINAL_OBS: final_obs,
        }
        return TensorDict(content, batch_size=self.num_envs)

    def metrics(self) -> dict[str, Tensor]:
        """Return means of the simulator's own metrics since they were asked for last, or since a reset."""
        if not self._steps:
            return {}
        rows: Rows = self._held.rows
        means = _owned(rows.sums) / self._steps
        self._held.rows, self._steps = rows._replace(sums=rows.sums * 0), 0
        return dict(zip(self._held.program.metric_names, means.unbind(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return the options and all arrays of the simulations' states, in order."""
        leaves = self._jax.tree.leaves(self._held.rows._replace(sums=None))
        return {"config": self.config, "arrays": [_as_tensor(np.array(leaf)) for leaf in leaves]}

    def load_state_dict(self, state: Config) -> None:
        """Take over what `state_dict` returned."""
        if state["config"] != self.config:
            self.config = dict(state["config"])
            self._held.program = self._made(self.config)
        shapes = self._held.program.shapes(self.num_envs)
        leaves, form = self._jax.tree.flatten(shapes._replace(sums=None))
        arrays = [
            value.cpu().numpy().view(leaf.dtype) for value, leaf in zip(state["arrays"], leaves, strict=True)
        ]
        rows = self._jax.tree.unflatten(form, arrays)._replace(
            sums=np.zeros(shapes.sums.shape, shapes.sums.dtype)
        )
        self._held.rows, self._steps = self._jax.device_put(rows, self._jax_device()), 0

    @classmethod
    def _options(cls, options: Config, changes: Config | None) -> dict[str, Any]:
        """Return options with changes.

        Raises:
            EnvError: If there is no such option.
        """
        changes = flatten(changes or {})
        for key in changes:
            if key not in cls.known:
                raise EnvError(
                    f"env_config.{key} is not an option of {cls.__name__}{did_you_mean(key, cls.known)}"
                )
        return {**options, **changes}

    def _made(self, options: Config) -> Program:
        """Return the program for options, made once."""
        device = self._jax_device()
        name = f"{device} {sorted(options.items())}"
        if name not in self._programs:
            with self._jax.default_device(device):
                simulated = type(self).simulated(options, device.platform)
                self._programs[name] = Program(self._jax, simulated[0], device, *simulated[1:])
        return self._programs[name]

    def _jax_device(self) -> Any:
        """Return JAX's device for torch's.

        Raises:
            EnvError: If there is none.
        """
        platform, index = ("gpu", self.device.index or 0) if self.device.type == "cuda" else ("cpu", 0)
        try:
            if self.device.type in ("cpu", "cuda"):
                return self._jax.devices(platform)[index]
            fault = "JAX shares tensors with CPUs and NVIDIA's GPUs only"
        except (RuntimeError, IndexError) as error:
            fault = f"JAX sees no such device ({told(error)}): pip install 'jax[cuda12]', or take device=cpu"
        raise EnvError(f"{self.simulator_name} can't run on {self.device}: {fault}")

    def _specs(self, program: Program) -> tuple[TensorSpec, TensorSpec]:
        shape = (program.action_size,)
        action = Bounded(-1.0, 1.0, shape, dtype=torch.float32, device=self.device)
        return _spec(program.state.obs, self.device), action

    def _batch(self, obs: Any) -> Batch:
        """Return observations as tensors of their own, [B, ...]."""
        if not isinstance(obs, Mapping):
            part = _owned(obs)
            return part.unsqueeze(-1) if part.dim() == 1 else part
        return TensorDict({key: self._batch(part) for key, part in obs.items()}, batch_size=self.num_envs)


class _Held:
    """Keeps arrays of JAX out of the sight of whoever looks for tensors."""

    __slots__ = ("program", "rows")
    rows: Rows

    def __init__(self, program: Program) -> None:
        self.program = program


def _owned(array: Any) -> Tensor:
    """Return a copy of an array of JAX: its memory is JAX's to use again."""
    return from_dlpack(array.block_until_ready()).clone()


def _as_tensor(array: np.ndarray) -> Tensor:
    """Return an array, whose bytes are what matters, in a dtype that every file can hold."""
    kept = array.view(np.int32) if array.dtype == np.uint32 else array
    return torch.from_numpy(kept)


def _spec(obs: Any, device: torch.device) -> TensorSpec:
    """Return the spec of one observation, from the shapes of a batch."""
    if isinstance(obs, Mapping):
        return Composite({key: _spec(part, device) for key, part in obs.items()})
    dtype = torch.from_numpy(np.empty(0, obs.dtype)).dtype
    dtype = torch.float32 if dtype.is_floating_point else dtype
    return Unbounded(tuple(obs.shape[1:]) or (1,), dtype=dtype, device=device)
