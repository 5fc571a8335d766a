"""Gymnasium's CartPole-v1 and Acrobot-v1 as they are: with terminal states and a time limit."""

import math
from abc import abstractmethod
from typing import Any, ClassVar, final

import torch
from tensordict import TensorDict
from torch import Tensor

from ..common.types import OBS, REWARDS, Config, Device
from .classic import CartPole, _Classic, moved_cart
from .ending import FINAL_OBS, TERMINATED, TRUNCATED


class _Episodic(_Classic):
    """A system whose episodes end in terminal states, or after `time_limit` steps."""

    age: Tensor
    """[B, 1]. Steps since the episode of each system began."""

    def __init__(self, num_envs: int, /, *, config: Config | None = None, device: Device = "cpu") -> None:
        super().__init__(num_envs, config=config, device=device)
        self.age = torch.zeros((num_envs, 1), dtype=torch.int64, device=self.device)

    def reset(self, *, config: Config | None = None) -> Tensor:
        """Start anew and return the observations, [B, ...]."""
        self.age = torch.zeros_like(self.age)
        return super().reset(config=config)

    def step(self, action: Tensor) -> TensorDict:
        """Simulate one time step under actions [B, 1]; systems whose episodes end start anew."""
        rewards = self._advance(action)
        terminated = self._is_over()
        self.age = self.age + 1
        truncated = (self.age >= self.config["time_limit"]) & ~terminated
        ended = terminated | truncated
        final_obs = self._obs()
        self.state = torch.where(ended, self._starts(), self.state)
        self.age = self.age.masked_fill(ended, 0)
        said = {TERMINATED: terminated, TRUNCATED: truncated, FINAL_OBS: final_obs}
        return TensorDict({OBS: self._obs(), REWARDS: rewards, **said}, batch_size=self.num_envs)

    def state_dict(self) -> dict[str, Any]:
        """Return the state and age of each system, and the options."""
        return {**super().state_dict(), "age": self.age}

    def load_state_dict(self, state: Config) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state)
        self.age = state["age"].to(self.age, copy=True)

    @abstractmethod
    def _is_over(self) -> Tensor:
        """Return whether each system is in a terminal state, bool [B, 1]."""


@final
class CartPoleV1(_Episodic):
    """Gymnasium's CartPole-v1: an episode ends when the cart leaves the track or the pole falls.

    Observations and actions are those of `CartPole`; the reward is 1 in each step.

    Args:
        num_envs: How many carts.
        config: As of `CartPole`, with Gymnasium's start ranges, and `time_limit`, steps.
        device: Where to simulate.
    """

    num_observations, num_choices = 4, 2
    starts = CartPole.starts
    defaults: ClassVar[dict[str, float]] = {
        **CartPole.defaults,
        **dict.fromkeys(CartPole.starts, 0.05),
        "time_limit": 500,
    }

    def _advance(self, action: Tensor) -> Tensor:
        self.state = moved_cart(self.state, action, self.config)
        return torch.ones_like(self.state[:, :1])

    def _is_over(self) -> Tensor:
        x, _, theta, _ = self.state.split(1, -1)
        return (x.abs() > self.config["x_threshold"]) | (theta.abs() > self.config["theta_threshold"])


@final
class AcrobotV1(_Episodic):
    """Gymnasium's Acrobot-v1: two links, the joint between them driven, that swing up to a height.

    Observations are cos θ₁, sin θ₁, cos θ₂, sin θ₂ and both angular velocities (rad/s); θ₁ = 0 hangs down,
    θ₂ is that between the links. Actions are a torque of −1 (0), 0 (1) or 1 (2). The reward is −1 in each
    step until −cos θ₁ − cos(θ₁ + θ₂) > 1, where the episode ends with 0.

    Args:
        num_envs: How many acrobots.
        config: `gravity`, `link_length`, `link_mass`, `link_center`, `link_inertia` (of both links),
            `torque`, `dt` (seconds per step), `height`, `start_angle`, `start_velocity`, the ranges ± of
            the start states, and `time_limit`, steps.
        device: Where to simulate.
    """

    num_observations, num_choices = 6, 3
    defaults: ClassVar[dict[str, float]] = {
        "gravity": 9.8,
        "link_length": 1.0,
        "link_mass": 1.0,
        "link_center": 0.5,
        "link_inertia": 1.0,
        "torque": 1.0,
        "dt": 0.2,
        "height": 1.0,
        "start_angle": 0.1,
        "start_velocity": 0.1,
        "time_limit": 500,
    }
    starts = ("start_angle", "start_angle", "start_velocity", "start_velocity")
    _fastest = (4 * math.pi, 9 * math.pi)

    def _advance(self, action: Tensor) -> Tensor:
        torque, dt = self.config["torque"] * (action - 1), self.config["dt"]
        state = self.state
        # One step of the classical Runge-Kutta method.
        k1 = self._slopes(state, torque)
        k2 = self._slopes(state + dt / 2 * k1, torque)
        k3 = self._slopes(state + dt / 2 * k2, torque)
        k4 = self._slopes(state + dt * k3, torque)
        state = state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        angles = torch.remainder(state[:, :2] + math.pi, 2 * math.pi) - math.pi
        first, second = (
            velocity.clamp(-most, most)
            for velocity, most in zip(state[:, 2:].split(1, -1), self._fastest, strict=True)
        )
        self.state = torch.cat([angles, first, second], -1)
        return self._is_over().to(self.state.dtype) - 1

    def _slopes(self, state: Tensor, torque: Tensor) -> Tensor:
        """Return the derivative by time of states [B, 4] (Sutton & Barto 1998, section 11.3)."""
        c = self.config
        m, length, center, inertia = (c[f"link_{name}"] for name in ("mass", "length", "center", "inertia"))
        angle, bend, velocity, bending = state.split(1, -1)
        cos, sin, coupling = bend.cos(), bend.sin(), m * length * center
        d1 = m * center**2 + m * (length**2 + center**2) + 2 * coupling * cos + 2 * inertia
        d2 = m * center**2 + coupling * cos + inertia
        weight2 = m * center * c["gravity"] * torch.sin(angle + bend)
        weight1 = (
            -coupling * bending**2 * sin
            - 2 * coupling * bending * velocity * sin
            + m * (center + length) * c["gravity"] * torch.sin(angle)
            + weight2
        )
        bend_acc = (torque + d2 / d1 * weight1 - coupling * velocity**2 * sin - weight2) / (
            m * center**2 + inertia - d2**2 / d1
        )
        acc = -(d2 * bend_acc + weight1) / d1
        return torch.cat([velocity, bending, acc, bend_acc], -1)

    def _obs(self) -> Tensor:
        angles, velocities = self.state.split(2, -1)
        first, second = angles.split(1, -1)
        return torch.cat([first.cos(), first.sin(), second.cos(), second.sin(), velocities], -1)

    def _is_over(self) -> Tensor:
        angle, bend, _, _ = self.state.split(1, -1)
        return -angle.cos() - (angle + bend).cos() > self.config["height"]
