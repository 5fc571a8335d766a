"""Gymnasium's Reacher-v5, as `gymnasium_tasks` has the others."""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from .gymnasium_tasks import GymnasiumTask
from .state import State


@final
class Reacher(GymnasiumTask):
    """Gymnasium's Reacher-v5: an arm of two links whose fingertip is to reach a target.

    r = −reward_dist_weight · |fingertip − target| − reward_control_weight · |a|²

    Observations are cos and sin of 2 angles, the target, 2 velocities and fingertip − target; actions are 2
    torques.

    Args:
        num_envs: How many.
        config: `reward_dist_weight`, `reward_control_weight`, and those of `MujocoEnv`.
        device: Where to simulate.
    """

    asset = "reacher.xml"
    frame_skip = 2
    max_episode_steps = 50
    defaults: ClassVar[Mapping[str, Any]] = {"reward_dist_weight": 1.0, "reward_control_weight": 1.0}

    def start(self, num: int) -> Mapping[str, Tensor]:
        """Return angles and velocities with noise, and targets anywhere within 0.2 of the middle."""
        like: dict[str, Any] = {"dtype": torch.float64, "device": self.device}
        qpos = self.qpos0 + 0.2 * torch.rand((num, self.model.nq), **like) - 0.1
        qvel = 0.01 * torch.rand((num, self.model.nv), **like) - 0.005
        radius, angle = torch.rand((2, num), **like).unbind()
        radius, angle = 0.2 * radius.sqrt(), 2 * torch.pi * angle
        qpos[:, -2], qpos[:, -1] = radius * angle.cos(), radius * angle.sin()
        qvel[:, -2:] = 0
        return {"qpos": qpos, "qvel": qvel}

    def observation(self, state: State) -> Tensor:
        """Return what is observed, [B, 10]."""
        theta = state.qpos[:, :2]
        away = self._away(state)[:, :2]
        return torch.cat([theta.cos(), theta.sin(), state.qpos[:, 2:], state.qvel[:, :2], away], -1)

    def reward(self, before: State, action: Tensor, after: State) -> Tensor:
        """Return the rewards, [B]."""
        near = self.config["reward_dist_weight"] * self._away(after).norm(dim=-1)
        return -near - self.config["reward_control_weight"] * action.square().sum(-1)

    def _away(self, state: State) -> Tensor:
        fingertip, target = (self.model.body(name).id for name in ("fingertip", "target"))
        return state.xpos[:, fingertip] - state.xpos[:, target]
