"""Any vector environment of Gymnasium's form as an environment of rlstack's."""

import inspect
import re
import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import torch
from tensordict import TensorDict
from torch import Tensor

from ...common.errors import EnvError
from ...common.serialization import same
from ...common.types import OBS, REWARDS, Batch, Config, Device
from ...common.validation import did_you_mean
from ..base import Env
from ..ending import TERMINATED, TRUNCATED, VALID
from ..foreign import draw_seed
from . import autoreset
from .autoreset import DISABLED, NEXT_STEP, Moment
from .info_metrics import InfoMetrics
from .instability import check_stable
from .spaces import array_kind, as_tensor, read_space
from .workers import Simulator

Factory: TypeAlias = Callable[..., Any]
"""Takes how many simulations, and options, and returns a vector environment of Gymnasium's form."""


class VectorSimulator(Env):
    """A vector environment of Gymnasium's form."""

    simulator_name: ClassVar[str | None] = None
    """What finds this class again, if that is a name."""
    simulator_options: ClassVar[Mapping[str, Any]] = {}
    """Options that go after those of `env_config`."""
    _factory: ClassVar[tuple[Factory]]
    _autoreset: ClassVar[str | None] = None
    _has_final_obs: ClassVar[bool] = True

    def __init__(self, num_envs: int, /, *, config: Config | None = None, device: Device = "cpu") -> None:
        super().__init__(num_envs, config={**self.simulator_options, **(config or {})}, device=device)
        self._metrics = InfoMetrics()
        self._start()

    def reset(self, *, config: Config | None = None) -> Batch:
        """Start all simulations anew and return their observations, [B, ...].

        Args:
            config: Options that change from now on: the simulator is made anew with them.

        Raises:
            EnvError: If the simulator has no such option, or its spaces change.
        """
        if config is not None and not same({**self.config, **config}, self.config):
            end, before, self.config = self._end, self.config, {**self.config, **config}
            try:
                self._start()
            except BaseException:
                self.config = before
                raise
            end()
        asked: dict[str, Any] = {}
        if not autoreset.is_envpool(self._simulator.vector):
            asked["seed"] = draw_seed(self.num_envs)
        if self._reset_options:
            asked["options"] = dict(self._reset_options)
        obs, _ = self._simulator.reset(**asked)
        self._arrays = array_kind(obs)
        self._ended = torch.zeros((self.num_envs, 1), dtype=torch.bool, device=self.device)
        return self._observations.read(obs, self.device, self.num_envs)

    def step(self, action: Batch) -> TensorDict:
        """Simulate one step under actions [B, *A]."""
        obs, rewards, terminated, truncated, infos = self._simulator.step(
            self._actions.write(action, self._arrays)
        )
        check_stable(infos, self._name)
        moment = Moment(
            self._observations.read(obs, self.device, self.num_envs),
            autoreset.flag(terminated, self.device),
            autoreset.flag(truncated, self.device),
            infos,
        )
        last, said = self._said(moment)
        self._metrics.take(infos, moment.ended & said.get(VALID, True), said.get(VALID))
        numbers = as_tensor(rewards, self.device, torch.get_default_dtype()).reshape(-1, 1)
        return TensorDict({OBS: last, REWARDS: numbers, **said}, batch_size=self.num_envs)

    def metrics(self) -> dict[str, Tensor]:
        """Return means of what the simulator says beside, since the last call."""
        return self._metrics.read()

    def close(self) -> None:
        """End the simulator; done by itself where the environment is dropped."""
        self._end()

    def _said(self, moment: Moment) -> tuple[Batch, dict[str, Any]]:
        """Return observations after a step, and what it says of endings."""
        if self._never_ends:
            if moment.ended.any():
                raise EnvError(f"{self._name} ends an episode: leave out never_ends")
            return moment.obs, {}
        if self._mode == DISABLED:
            return autoreset.put_back(moment, self._reset_rows)
        if self._mode == NEXT_STEP:
            before, self._ended = self._ended, moment.ended & ~self._ended
            return autoreset.next_step(moment, before)
        if self._has_final_obs:
            return autoreset.same_step(moment, self._observations, self._name)
        return moment.obs, {TERMINATED: moment.terminated, TRUNCATED: moment.truncated}

    def _reset_rows(self, rows: Tensor) -> Batch:
        """Reset the rows that are True in [B], and return the observations of all, [B, ...]."""
        mask = rows.clone() if self._arrays == "torch" else rows.cpu().numpy()
        obs, _ = self._simulator.reset(options={**self._reset_options, "reset_mask": mask})
        return self._observations.read(obs, self.device, self.num_envs)

    def _start(self) -> None:
        """Make the simulator, and read what it says of itself."""
        self._name = name = type(self).__name__
        options = dict(self.config)
        reset_options, never_ends = options.pop("reset_options", None), options.pop("never_ends", False)
        vector = self._make_vector(options)
        simulator = Simulator(vector, name)
        end = weakref.finalize(self, simulator.close)
        try:
            mode = autoreset.mode_of(vector, self._autoreset, name)
            observations = read_space(_single(vector, "observation_space"), f"{name}'s observation_space")
            actions = read_space(_single(vector, "action_space"), f"{name}'s action_space", acts=True)
        except EnvError:
            end()
            raise
        self._simulator, self._end, self._mode, self._arrays = simulator, end, mode, "numpy"
        self._observations, self._actions = observations, actions
        self._reset_options: dict[str, Any] = dict(reset_options or {})
        self._never_ends = bool(never_ends)
        for attribute, layout in (("observation_spec", self._observations), ("action_spec", self._actions)):
            spec = layout.spec.to(self.device)
            if getattr(self, attribute, None) != spec:
                setattr(self, attribute, spec)

    def _make_vector(self, options: dict[str, Any]) -> Any:
        """Return the vector environment.

        Raises:
            EnvError: If it has no such option.
        """
        factory = self._factory[0]
        known = parameters(factory)
        given: dict[str, Any] = {"device": str(self.device)} if "device" in known else {}
        if "seed" in known and "seed" not in options:
            given["seed"] = draw_seed(self.num_envs)
        try:
            vector = factory(self.num_envs, **{**given, **options})
        except TypeError as error:
            found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if found is None or found[1] not in options:
                raise
            others = [key for key in known if key not in ("num_envs", "seed", "device")]
            hint = did_you_mean(found[1], others) if others else ""
            raise EnvError(f"env_config.{found[1]} is not an option of {self._name}{hint}") from None
        if autoreset.is_envpool(vector) and "seed" not in given.keys() | options.keys():
            raise EnvError(
                f"{self._name} is EnvPool's, which is seeded when it is made: give its factory a parameter "
                "seed, drawn by torch, and hand it on"
            )
        return vector


def made(
    factory: Factory,
    name: str,
    options: Mapping[str, Any],
    *,
    simulator_name: str | None = None,
    autoreset: str | None = None,
    final_obs: bool = True,
) -> type[VectorSimulator]:
    """Return a class of the environments that a factory makes; its arguments are those of `from_vector`.

    Args:
        factory: What makes them.
        name: Of the class.
        options: Of the factory.
        simulator_name: What finds the class again; None if its module does.
        autoreset: When rows that ended are put back, if the environment doesn't say it.
        final_obs: Whether it says last observations.
    """
    body = {
        "__doc__": f"{name}, a vector environment of Gymnasium's form.",
        "__module__": getattr(factory, "__module__", __name__) if simulator_name is None else __name__,
        "simulator_name": simulator_name,
        "simulator_options": dict(options),
        # In a tuple: a function would become a method.
        "_factory": (factory,),
        "_autoreset": autoreset,
        "_has_final_obs": final_obs,
    }
    return type(name, (VectorSimulator,), body)


def _single(vector: Any, space: str) -> Any:
    """Return a space of one simulation."""
    found = getattr(vector, f"single_{space}", None)
    if found is None:
        raise EnvError(
            f"{type(vector).__name__} has no single_{space}, expected a vector environment like Gymnasium's"
        )
    return found


def parameters(made: Any) -> list[str]:
    """Return the names of the parameters of a function or class; none where it doesn't tell."""
    try:
        return list(inspect.signature(made).parameters)
    except (TypeError, ValueError):
        return []
