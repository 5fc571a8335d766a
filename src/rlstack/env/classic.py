"""Gymnasium's classic control tasks, restated without an end.

Dynamics and observations are those of Gymnasium's CartPole-v1, MountainCar-v0 and Pendulum-v1; there are no
terminal states, and the reward says at every step how good the state is. All physical constants and the
start ranges are options.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from tensordict import TensorDict
from torch import Tensor

from ..common.errors import EnvError
from ..common.types import OBS, REWARDS, Config, Device
from ..specs import Bounded, Categorical, TensorSpec, Unbounded
from .base import Env, resolve_config


class _Classic(Env):
    """A system with a state of a few numbers, each starting uniformly within a range around 0."""

    defaults: ClassVar[dict[str, float]]
    """Options and their default values."""
    starts: ClassVar[tuple[str, ...]]
    """For each number of the state, the option with its start range ±."""
    num_observations: ClassVar[int]
    """How many numbers an observation has."""
    num_choices: ClassVar[int]
    """How many actions there are to choose from."""

    state: Tensor
    """[B, S]. The state of each system; assign to it to go on from another one."""

    def __init__(self, num_envs: int, /, *, config: Config | None = None, device: Device = "cpu") -> None:
        super().__init__(num_envs, config=config, device=device)
        self.config = resolve_config(self.defaults, config, type(self).__name__)
        self._dtype = torch.get_default_dtype()
        self.observation_spec = Unbounded((self.num_observations,), dtype=self._dtype, device=self.device)
        self.action_spec = self._make_action_spec()
        self.state = self._starts()

    def reset(self, *, config: Config | None = None) -> Tensor:
        """Start anew and return the observations, [B, ...]."""
        self.config = resolve_config(self.config, config, type(self).__name__)
        self.state = self._starts()
        return self._obs()

    def step(self, action: Tensor) -> TensorDict:
        """Simulate one time step under actions [B, 1]; return observations and rewards."""
        rewards = self._advance(action)
        return TensorDict({OBS: self._obs(), REWARDS: rewards}, batch_size=self.num_envs)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each system and the options."""
        return {"state": self.state, "config": self.config}

    def load_state_dict(self, state: Config) -> None:
        """Take over what `state_dict` returned."""
        self.config = resolve_config(self.config, state["config"], type(self).__name__)
        self.state = state["state"].to(self.state, copy=True)

    @abstractmethod
    def _advance(self, action: Tensor) -> Tensor:
        """Advance `state` by one time step under actions [B, 1] and return the rewards, [B, 1]."""

    def _make_action_spec(self) -> TensorSpec:
        return Categorical(self.num_choices, shape=(1,), device=self.device)

    def _obs(self) -> Tensor:
        return self.state

    def _starts(self) -> Tensor:
        ranges = torch.tensor([self.config[option] for option in self.starts], dtype=self._dtype)
        noise = torch.rand((self.num_envs, len(ranges)), dtype=self._dtype, device=self.device)
        return (2 * noise - 1) * ranges.to(self.device)


@final
class CartPole(_Classic):
    """A cart on a track that balances a pole, pushed left (action 0) or right (action 1).

    Observations are position (m), velocity (m/s), angle from upright (rad) and angular velocity (rad/s).
    The reward is 1 in the middle and upright, and falls with the squares of position and angle to 0 at
    Gymnasium's limits of both:  r = 1 − ½ min(1, (x / x_threshold)²) − ½ min(1, (θ / theta_threshold)²)

    Args:
        num_envs: How many carts.
        config: `gravity`, `masscart`, `masspole`, `length` (half the pole's), `force_mag`, `tau` (seconds
            per step), `x_threshold`, `theta_threshold`, and `start_x`, `start_x_dot`, `start_theta`,
            `start_theta_dot`, the ranges ± of the start states.
        device: Where to simulate.
    """

    num_observations, num_choices = 4, 2
    defaults: ClassVar[dict[str, float]] = {
        "gravity": 9.8,
        "masscart": 1.0,
        "masspole": 0.1,
        "length": 0.5,
        "force_mag": 10.0,
        "tau": 0.02,
        "x_threshold": 2.4,
        "theta_threshold": 12 * math.pi / 180,
        "start_x": 2.0,
        "start_x_dot": 1.0,
        "start_theta": 0.2,
        "start_theta_dot": 1.0,
    }
    starts = ("start_x", "start_x_dot", "start_theta", "start_theta_dot")

    def _advance(self, action: Tensor) -> Tensor:
        c = self.config
        self.state = moved_cart(self.state, action, c)
        x, _, theta, _ = self.state.split(1, -1)
        off_center = (x / c["x_threshold"]).square().clamp(max=1)
        off_upright = (theta / c["theta_threshold"]).square().clamp(max=1)
        return 1 - 0.5 * off_center - 0.5 * off_upright


def moved_cart(state: Tensor, action: Tensor, config: Mapping[str, float]) -> Tensor:
    """Return states of carts with poles [B, 4] one time step later.

    Equations of motion of Barto, Sutton & Anderson (1983), one explicit Euler step.

    Args:
        state: [B, 4]. Position, velocity, angle and angular velocity.
        action: [B, 1]. 0 pushes left, 1 right.
        config: Options of `CartPole`.
    """
    c = config
    x, x_dot, theta, theta_dot = state.split(1, -1)
    mass, moment = c["masscart"] + c["masspole"], c["masspole"] * c["length"]
    force = c["force_mag"] * (2 * action - 1)
    cos, sin = theta.cos(), theta.sin()
    push = (force + moment * theta_dot**2 * sin) / mass
    theta_acc = (c["gravity"] * sin - cos * push) / (c["length"] * (4 / 3 - c["masspole"] * cos**2 / mass))
    x_acc = push - moment * theta_acc * cos / mass
    tau = c["tau"]
    x, theta = x + tau * x_dot, theta + tau * theta_dot
    return torch.cat([x, x_dot + tau * x_acc, theta, theta_dot + tau * theta_acc], -1)


@final
class MountainCar(_Classic):
    """A car in a valley, too weak to climb the right hill at once, pushed left (0), not (1) or right (2).

    Observations are position and velocity. The reward is the height, sin(3 · position), which is 1 at the
    top of the right hill, where Gymnasium's flag is.

    Args:
        num_envs: How many cars.
        config: `force`, `gravity`, `max_speed`, `min_position`, `max_position`, and `start_position`,
            `start_velocity`, the ranges ± of the start states, positions around `start_center`.
        device: Where to simulate.
    """

    num_observations, num_choices = 2, 3
    defaults: ClassVar[dict[str, float]] = {
        "force": 0.001,
        "gravity": 0.0025,
        "max_speed": 0.07,
        "min_position": -1.2,
        "max_position": 0.6,
        "start_center": -0.3,
        "start_position": 0.9,
        "start_velocity": 0.07,
    }
    starts = ("start_position", "start_velocity")

    def _advance(self, action: Tensor) -> Tensor:
        c = self.config
        position, velocity = self.state.split(1, -1)
        velocity = velocity + c["force"] * (action - 1) - c["gravity"] * torch.cos(3 * position)
        velocity = velocity.clamp(-c["max_speed"], c["max_speed"])
        position = (position + velocity).clamp(c["min_position"], c["max_position"])
        # The left end is a wall: it stops the car.
        stopped = (position == c["min_position"]) & (velocity < 0)
        self.state = torch.cat([position, velocity.masked_fill(stopped, 0)], -1)
        return torch.sin(3 * position)

    def _starts(self) -> Tensor:
        starts = super()._starts()
        starts[:, 0] += self.config["start_center"]
        return starts


@final
class Pendulum(_Classic):
    """A pendulum that is to be swung up and held there by a bounded torque.

    Observations are cos θ, sin θ and the angular velocity; θ = 0 is upright. The reward is
    −(θ² + 0.1 θ̇² + 0.001 u²) of the state before the step, with θ in [-π, π) and the torque u.

    Args:
        num_envs: How many pendulums.
        config: `g`, `m`, `l`, `dt` (seconds per step), `max_torque`, `max_speed`, and `start_theta`,
            `start_theta_dot`, the ranges ± of the start states.
        device: Where to simulate.
    """

    num_observations = 3
    defaults: ClassVar[dict[str, float]] = {
        "g": 10.0,
        "m": 1.0,
        "l": 1.0,
        "dt": 0.05,
        "max_torque": 2.0,
        "max_speed": 8.0,
        "start_theta": math.pi,
        "start_theta_dot": 8.0,
    }
    starts = ("start_theta", "start_theta_dot")

    def reset(self, *, config: Config | None = None) -> Tensor:
        """Start anew and return the observations, [B, 3].

        Raises:
            EnvError: If `max_torque` changes: it bounds the actions, and a policy was made for those.
        """
        limit = self.config["max_torque"]
        if config is not None and config.get("max_torque", limit) != limit:
            raise EnvError(
                f"max_torque is {limit} and can't be changed: it bounds the actions, set it at the start"
            )
        return super().reset(config=config)

    def _make_action_spec(self) -> TensorSpec:
        limit = self.config["max_torque"]
        return Bounded(-limit, limit, (1,), dtype=self._dtype, device=self.device)

    def _advance(self, action: Tensor) -> Tensor:
        c = self.config
        theta, theta_dot = self.state.split(1, -1)
        torque = action.clamp(-c["max_torque"], c["max_torque"])
        angle = torch.remainder(theta + math.pi, 2 * math.pi) - math.pi
        rewards = -(angle**2 + 0.1 * theta_dot**2 + 0.001 * torque**2)
        gravity = 3 * c["g"] / (2 * c["l"]) * theta.sin()
        theta_dot = theta_dot + (gravity + 3 / (c["m"] * c["l"] ** 2) * torque) * c["dt"]
        theta_dot = theta_dot.clamp(-c["max_speed"], c["max_speed"])
        self.state = torch.cat([theta + c["dt"] * theta_dot, theta_dot], -1)
        return rewards

    def _obs(self) -> Tensor:
        theta, theta_dot = self.state.split(1, -1)
        return torch.cat([theta.cos(), theta.sin(), theta_dot], -1)
