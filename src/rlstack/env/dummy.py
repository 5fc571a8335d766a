"""The smallest environments: a point on a line that is to go to the origin."""

from abc import abstractmethod
from typing import Any, final

import torch
from tensordict import TensorDict
from torch import Tensor

from ..common.types import OBS, REWARDS, Config, Device
from ..specs import Categorical, Unbounded
from .base import Env, resolve_config


class _Line(Env):
    """A point on a line; each step costs its distance to the origin."""

    def __init__(self, num_envs: int, /, *, config: Config | None = None, device: Device = "cpu") -> None:
        super().__init__(num_envs, config=config, device=device)
        self.config = resolve_config({"bounds": 100.0}, config, type(self).__name__)
        self.observation_spec = Unbounded((1,), dtype=torch.get_default_dtype(), device=self.device)
        self.state = torch.zeros((num_envs, 1), device=self.device)

    def reset(self, *, config: Config | None = None) -> Tensor:
        """Put the points anywhere within the bounds and return their positions, [B, 1]."""
        self.config = resolve_config(self.config, config, type(self).__name__)
        bounds = self.config["bounds"]
        self.state.uniform_(-bounds, bounds)
        return self.state

    def step(self, action: Tensor) -> TensorDict:
        """Move the points by actions [B, 1]; return positions and minus their distances."""
        self.state += self._displacement(action)
        return TensorDict({OBS: self.state, REWARDS: -self.state.abs()}, batch_size=self.num_envs)

    def state_dict(self) -> dict[str, Any]:
        """Return the positions and the options."""
        return {"state": self.state, "config": self.config}

    def load_state_dict(self, state: Config) -> None:
        """Take over what `state_dict` returned."""
        self.state.copy_(state["state"])
        self.config = resolve_config(self.config, state["config"], type(self).__name__)

    @abstractmethod
    def _displacement(self, action: Tensor) -> Tensor:
        """Return how far actions [B, 1] move the points, [B, 1]."""


@final
class DiscreteDummyEnv(_Line):
    """A point that moves one unit left (action 0) or right (action 1) on a line, towards the origin.

    Args:
        num_envs: How many points.
        config: `bounds`: start positions are uniform in ±bounds (100).
        device: Where to simulate.
    """

    def __init__(self, num_envs: int, /, *, config: Config | None = None, device: Device = "cpu") -> None:
        super().__init__(num_envs, config=config, device=device)
        self.action_spec = Categorical(2, shape=(1,), device=self.device)

    def _displacement(self, action: Tensor) -> Tensor:
        return 2 * action - 1


@final
class ContinuousDummyEnv(_Line):
    """A point that moves by any real distance on a line, towards the origin.

    Args:
        num_envs: How many points.
        config: `bounds`: start positions are uniform in ±bounds (100).
        device: Where to simulate.
    """

    def __init__(self, num_envs: int, /, *, config: Config | None = None, device: Device = "cpu") -> None:
        super().__init__(num_envs, config=config, device=device)
        self.action_spec = Unbounded((1,), dtype=torch.get_default_dtype(), device=self.device)

    def _displacement(self, action: Tensor) -> Tensor:
        return action
