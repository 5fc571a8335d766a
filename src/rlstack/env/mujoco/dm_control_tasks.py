"""Tasks of the DM Control suite: models, observations, rewards and time limits.

What is observed and rewarded, and how episodes begin, are those of `dm_control/suite/*.py` (dm_control
1.0.50); observations are its parts one after the other. The models are its files.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from .base import MujocoEnv
from .model_files import packaged_model
from .state import State

_XX, _XZ, _ZZ = 0, 2, 8
"""Of a rotation matrix row by row: xmat."""

_AT_MARGIN = 0.1
"""What a Gaussian is worth at its margin, if nothing else is said."""


class _SuiteTask(MujocoEnv):
    """A task whose model lies in DM Control's suite; all last 1,000 steps."""

    max_episode_steps = 1000
    asset: ClassVar[str]
    """File of its model."""

    def load_model(self) -> Any:
        """Return MuJoCo's mjModel of the task."""
        return packaged_model("dm_control", f"suite/{self.asset}", type(self).__name__)

    def _joints(self, num: int) -> Tensor:
        """Return positions [num, nq]: limited joints anywhere within their limits, other hinges anywhere."""
        model = self.model
        limited = torch.as_tensor(model.jnt_limited).bool()
        low, high = torch.as_tensor(model.jnt_range).unbind(-1)
        turns = torch.as_tensor(model.jnt_type) == _HINGE
        low, high = (torch.where(limited, bound, side * math.pi) for bound, side in ((low, -1), (high, 1)))
        drawn = low + (high - low) * torch.rand((num, model.njnt), dtype=torch.float64)
        return torch.where(limited | turns, drawn.to(self.device), self.qpos0)


_HINGE = 3
"""mjJNT_HINGE."""


def _gaussian(distance: Tensor, margin: float) -> Tensor:
    """Return exp(−½ (s · distance / margin)²) with s such that it is 0.1 at the margin."""
    return torch.exp(math.log(_AT_MARGIN) * (distance / margin).square())


def _linear(distance: Tensor, margin: float, at_margin: float) -> Tensor:
    """Return a line from 1 at no distance to its value at the margin, and on to 0."""
    return (1 - (1 - at_margin) * distance / margin).clamp(0, 1)


@final
class CartpoleSwingup(_SuiteTask):
    """DM Control's cartpole swing-up: a cart that is to swing a pole up and hold it in the middle.

    Observations are the cart's place, cos and sin of the pole's angle, and 2 velocities; the action is a
    force. The reward is upright · ½ (1 + centered) · ⅕ (4 + small force) · ½ (1 + small velocity).

    Args:
        num_envs: How many.
        config: As of `MujocoEnv`.
        device: Where to simulate.
    """

    asset = "cartpole.xml"

    def start(self, num: int) -> Mapping[str, Tensor]:
        """Return the pole hanging, with small normal noise."""
        noise = 0.01 * torch.randn((num, 4), dtype=torch.float64, device=self.device)
        qpos = noise[:, :2] + torch.tensor([0.0, math.pi], dtype=torch.float64, device=self.device)
        return {"qpos": qpos, "qvel": noise[:, 2:]}

    def observation(self, state: State) -> Tensor:
        """Return what is observed, [B, 5]."""
        pole = state.qpos[:, 1:]
        return torch.cat([state.qpos[:, :1], pole.cos(), pole.sin(), state.qvel], -1)

    def reward(self, before: State, action: Tensor, after: State) -> Tensor:
        """Return the rewards, [B]."""
        place, pole = after.qpos.unbind(-1)
        upright = (pole.cos() + 1) / 2
        centered = (1 + _gaussian(place, 2.0)) / 2
        small_force = (4 + (1 - action[:, 0].square()).clamp(min=0)) / 5
        small_velocity = (1 + _gaussian(after.qvel[:, 1], 5.0)) / 2
        return upright * small_force * small_velocity * centered


@final
class CheetahRun(_SuiteTask):
    """DM Control's cheetah run: a planar cheetah that is to run at 10 m/s.

    Observations are 8 positions and 9 velocities, actions 6 torques; the reward is a tenth of its speed, from
    0 to 1. Episodes begin with 200 steps of MuJoCo's without controls.

    Args:
        num_envs: How many.
        config: As of `MujocoEnv`.
        device: Where to simulate.
    """

    asset = "cheetah.xml"
    settle = 200

    def start(self, num: int) -> Mapping[str, Tensor]:
        """Return limited joints anywhere within their limits."""
        limited = torch.as_tensor(self.model.jnt_limited).bool().to(self.device)
        return {"qpos": torch.where(limited, self._joints(num), self.qpos0)}

    def observation(self, state: State) -> Tensor:
        """Return what is observed, [B, 17]."""
        return torch.cat([state.qpos[:, 1:], state.qvel], -1)

    def reward(self, before: State, action: Tensor, after: State) -> Tensor:
        """Return the rewards, [B]."""
        return (after.sensor("torso_subtreelinvel")[:, 0] / 10).clamp(0, 1)


@final
class WalkerWalk(_SuiteTask):
    """DM Control's walker walk: a planar body on two legs that is to walk at 1 m/s.

    Observations are cos and sin of 7 angles, the height and 9 velocities, actions 6 torques; the reward is
    ¼ (3 standing + upright) · ⅙ (5 moving + 1).

    Args:
        num_envs: How many.
        config: As of `MujocoEnv`.
        device: Where to simulate.
    """

    asset = "walker.xml"
    frame_skip = 10

    def start(self, num: int) -> Mapping[str, Tensor]:
        """Return all joints anywhere within their limits."""
        return {"qpos": self._joints(num)}

    def observation(self, state: State) -> Tensor:
        """Return what is observed, [B, 24]."""
        angles = state.xmat[:, 1:, _XX : _XZ + 1 : _XZ].flatten(1)
        return torch.cat([angles, state.xpos[:, self._torso, 2:], state.qvel], -1)

    def reward(self, before: State, action: Tensor, after: State) -> Tensor:
        """Return the rewards, [B]."""
        standing = _gaussian((1.2 - after.xpos[:, self._torso, 2]).clamp(min=0), 0.6)
        upright = (1 + after.xmat[:, self._torso, _ZZ]) / 2
        speed = after.sensor("torso_subtreelinvel")[:, 0]
        moving = _linear((1 - speed).clamp(min=0), 0.5, 0.5)
        return (3 * standing + upright) / 4 * (5 * moving + 1) / 6

    @property
    def _torso(self) -> int:
        return int(self.model.body("torso").id)


@final
class ReacherEasy(_SuiteTask):
    """DM Control's reacher easy: an arm of two links whose finger is to be in a target.

    Observations are 2 angles, target − finger and 2 velocities, actions 2 torques; the reward is 1 within the
    target.

    Args:
        num_envs: How many.
        config: As of `MujocoEnv`.
        device: Where to simulate.
    """

    asset = "reacher.xml"
    target_size: ClassVar[float] = 0.05

    def start(self, num: int) -> Mapping[str, Tensor]:
        """Return all joints anywhere, and targets 0.05 to 0.2 away from the middle."""
        angle, radius = torch.rand((2, num), dtype=torch.float64, device=self.device).unbind()
        angle, radius = 2 * math.pi * angle, 0.05 + 0.15 * radius
        target = torch.stack([radius * angle.sin(), radius * angle.cos()], -1)
        return {"qpos": self._joints(num), "target": target}

    def observation(self, state: State) -> Tensor:
        """Return what is observed, [B, 6]."""
        return torch.cat([state.qpos, self._to_target(state), state.qvel], -1)

    def reward(self, before: State, action: Tensor, after: State) -> Tensor:
        """Return the rewards, [B]."""
        size = self.target_size + float(self.model.geom("finger").size[0])
        return (self._to_target(after).norm(dim=-1) <= size).double()

    def _to_target(self, state: State) -> Tensor:
        return state.target - state.geom_xpos[:, self.model.geom("finger").id, :2]
