"""Gymnasium's MuJoCo tasks in their version 5: models, observations, rewards and endings.

What is observed, rewarded and ends an episode, and all default values, are those of Gymnasium 1.4's
`gymnasium/envs/mujoco/*_v5.py`; options have its names. The models are the files in its `assets`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ...common.types import Config, Device
from .base import MujocoEnv
from .model_files import packaged_model
from .state import State

_INFINITY = float("inf")


class GymnasiumTask(MujocoEnv):
    """A task whose model lies in Gymnasium's assets."""

    up_to_date = False
    asset: ClassVar[str]
    """File of its model."""

    def load_model(self) -> Any:
        """Return MuJoCo's mjModel of the task."""
        path = f"envs/mujoco/assets/{self.asset}"
        return packaged_model("gymnasium", path, type(self).__name__)


class _Locomotion(GymnasiumTask):
    """A body that is to move along x.

    r = forward_reward_weight · v_x + healthy_reward · healthy − ctrl_cost_weight · |a|²
    """

    max_episode_steps = 1000
    planar: ClassVar[int] = 1
    """How many of the first positions say where on the floor it is."""
    fixed: ClassVar[tuple[str, ...]] = (
        "exclude_current_positions_from_observation",
        "terminate_when_unhealthy",
    )
    has_normal_velocities: ClassVar[bool] = False
    """Whether velocities start normal, not uniform."""
    most_velocity: ClassVar[float | None] = None
    """Velocities are observed up to it."""

    def __init__(self, num_envs: int, /, *, config: Config | None = None, device: Device = "cpu") -> None:
        self._speed: Tensor | None = None
        super().__init__(num_envs, config=config, device=device)

    def start(self, num: int) -> Mapping[str, Tensor]:
        """Return positions and velocities with noise of `reset_noise_scale`."""
        scale, model = self.config["reset_noise_scale"], self.model
        like: dict[str, Any] = {"dtype": torch.float64, "device": self.device}
        qpos = self.qpos0 + scale * (2 * torch.rand((num, model.nq), **like) - 1)
        if self.has_normal_velocities:
            return {"qpos": qpos, "qvel": scale * torch.randn((num, model.nv), **like)}
        return {"qpos": qpos, "qvel": scale * (2 * torch.rand((num, model.nv), **like) - 1)}

    def observation(self, state: State) -> Tensor:
        """Return positions, without where it is on the floor, and velocities."""
        return torch.cat(self._observed(state), -1)

    def reward(self, before: State, action: Tensor, after: State) -> Tensor:
        """Return the rewards, [B]."""
        c = self.config
        self._speed = (self._place(after) - self._place(before)) / self.dt
        rewards = c["forward_reward_weight"] * self._speed - c["ctrl_cost_weight"] * action.square().sum(-1)
        healthy = self._is_healthy(after)
        return rewards if healthy is None else rewards + c["healthy_reward"] * healthy

    def terminated(self, state: State) -> Tensor | None:
        """Return who is unhealthy, bool [B]."""
        healthy = self._is_healthy(state) if self.config.get("terminate_when_unhealthy") else None
        return None if healthy is None else ~healthy

    def metrics(self) -> dict[str, Tensor]:
        """Return the mean velocity along x in the last step, and the mean place, m/s and m."""
        if self._speed is None:
            return {}
        return {"x_velocity": self._speed.mean(), "x_position": self._after.qpos[:, 0].mean()}

    def _observed(self, state: State) -> list[Tensor]:
        skipped = self.planar if self.config["exclude_current_positions_from_observation"] else 0
        qvel = state.qvel
        if self.most_velocity is not None:
            qvel = qvel.clamp(-self.most_velocity, self.most_velocity)
        return [state.qpos[:, skipped:], qvel]

    def _place(self, state: State) -> Tensor:
        """Return the place along x, [B]."""
        return state.qpos[:, 0]

    def _is_healthy(self, state: State) -> Tensor | None:
        """Return whether each stands as it should, bool [B]; None if that has no meaning."""
        return None


@final
class HalfCheetah(_Locomotion):
    """Gymnasium's HalfCheetah-v5: a planar cheetah that is to run.

    Observations are 8 positions and 9 velocities, actions 6 torques.

    Args:
        num_envs: How many.
        config: `forward_reward_weight`, `ctrl_cost_weight`, `reset_noise_scale`,
            `exclude_current_positions_from_observation`, and those of `MujocoEnv`.
        device: Where to simulate.
    """

    asset = "half_cheetah.xml"
    frame_skip = 5
    has_normal_velocities = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "forward_reward_weight": 1.0,
        "ctrl_cost_weight": 0.1,
        "reset_noise_scale": 0.1,
        "exclude_current_positions_from_observation": True,
    }


@final
class Swimmer(_Locomotion):
    """Gymnasium's Swimmer-v5: three links in a viscous fluid that are to swim.

    Observations are 3 positions and 5 velocities, actions 2 torques.

    Args:
        num_envs: How many.
        config: As of `HalfCheetah`.
        device: Where to simulate.
    """

    asset = "swimmer.xml"
    frame_skip = 4
    planar = 2
    defaults: ClassVar[Mapping[str, Any]] = {**HalfCheetah.defaults, "ctrl_cost_weight": 1e-4}


class _Legged(_Locomotion):
    """A planar body whose episode ends when it falls."""

    frame_skip = 4
    most_velocity = 10.0

    def _is_healthy(self, state: State) -> Tensor:
        z, angle = state.qpos[:, 1], state.qpos[:, 2]
        (low, high), (least, most) = self.config["healthy_z_range"], self.config["healthy_angle_range"]
        return (low < z) & (z < high) & (least < angle) & (angle < most)


@final
class Hopper(_Legged):
    """Gymnasium's Hopper-v5: a planar leg that is to hop.

    Observations are 5 positions and 6 velocities within ±10, actions 3 torques.

    Args:
        num_envs: How many.
        config: As of `HalfCheetah`, and `healthy_reward`, `terminate_when_unhealthy`, `healthy_state_range`,
            `healthy_z_range`, `healthy_angle_range`.
        device: Where to simulate.
    """

    asset = "hopper.xml"
    defaults: ClassVar[Mapping[str, Any]] = {
        "forward_reward_weight": 1.0,
        "ctrl_cost_weight": 1e-3,
        "healthy_reward": 1.0,
        "terminate_when_unhealthy": True,
        "healthy_state_range": (-100.0, 100.0),
        "healthy_z_range": (0.7, _INFINITY),
        "healthy_angle_range": (-0.2, 0.2),
        "reset_noise_scale": 5e-3,
        "exclude_current_positions_from_observation": True,
    }

    def _is_healthy(self, state: State) -> Tensor:
        low, high = self.config["healthy_state_range"]
        numbers = torch.cat([state.qpos[:, 2:], state.qvel], -1)
        return super()._is_healthy(state) & ((low < numbers) & (numbers < high)).all(-1)


@final
class Walker2d(_Legged):
    """Gymnasium's Walker2d-v5: a planar body on two legs that is to walk.

    Observations are 8 positions and 9 velocities within ±10, actions 6 torques.

    Args:
        num_envs: How many.
        config: As of `Hopper`, without `healthy_state_range`.
        device: Where to simulate.
    """

    asset = "walker2d_v5.xml"
    defaults: ClassVar[Mapping[str, Any]] = {
        "forward_reward_weight": 1.0,
        "ctrl_cost_weight": 1e-3,
        "healthy_reward": 1.0,
        "terminate_when_unhealthy": True,
        "healthy_z_range": (0.8, 2.0),
        "healthy_angle_range": (-1.0, 1.0),
        "reset_noise_scale": 5e-3,
        "exclude_current_positions_from_observation": True,
    }


@final
class Ant(_Locomotion):
    """Gymnasium's Ant-v5: a body on four legs that is to run.

    Observations are 13 positions, 14 velocities and 78 forces on its parts within ±1, actions 8 torques. The
    reward of `_Locomotion` less contact_cost_weight · |forces|².

    Args:
        num_envs: How many.
        config: As of `HalfCheetah`, and `contact_cost_weight`, `healthy_reward`, `terminate_when_unhealthy`,
            `healthy_z_range`, `contact_force_range`, `main_body`, `include_cfrc_ext_in_observation`.
        device: Where to simulate.
    """

    asset = "ant.xml"
    frame_skip = 5
    planar = 2
    has_normal_velocities = True
    fixed = (*_Locomotion.fixed, "include_cfrc_ext_in_observation")
    defaults: ClassVar[Mapping[str, Any]] = {
        "forward_reward_weight": 1.0,
        "ctrl_cost_weight": 0.5,
        "contact_cost_weight": 5e-4,
        "healthy_reward": 1.0,
        "main_body": 1,
        "terminate_when_unhealthy": True,
        "healthy_z_range": (0.2, 1.0),
        "contact_force_range": (-1.0, 1.0),
        "reset_noise_scale": 0.1,
        "exclude_current_positions_from_observation": True,
        "include_cfrc_ext_in_observation": True,
    }

    def reward(self, before: State, action: Tensor, after: State) -> Tensor:
        """Return the rewards, [B]."""
        cost = self.config["contact_cost_weight"] * self._forces(after).square().sum((-2, -1))
        return super().reward(before, action, after) - cost

    def _observed(self, state: State) -> list[Tensor]:
        seen = super()._observed(state)
        if self.config["include_cfrc_ext_in_observation"]:
            seen.append(self._forces(state)[:, 1:].flatten(1))
        return seen

    def _forces(self, state: State) -> Tensor:
        return state.cfrc_ext.clamp(*self.config["contact_force_range"])

    def _place(self, state: State) -> Tensor:
        return state.xpos[:, self.config["main_body"], 0]

    def _is_healthy(self, state: State) -> Tensor:
        low, high = self.config["healthy_z_range"]
        z = state.qpos[:, 2]
        finite = torch.cat([state.qpos, state.qvel], -1).isfinite().all(-1)
        return finite & (low <= z) & (z <= high)
