"""Stand-ins for simulators of rsl_rl's form: one task, told as each of them tells it, with its traps.

What they return, in which dtypes, and which of it is a live buffer, was read in the sources of Isaac Lab 2.2
and 2.3, Genesis' go2 example, MuJoCo Playground 0.2, legged_gym and mjlab 1.6.
"""

from types import SimpleNamespace

import numpy as np
import torch
from tensordict import TensorDict

from rlstack.env.vec_env import from_vec_env

from .walk import Simulator

FORMS = {
    "IsaacLab23": {},
    "IsaacLab22": {},
    "Genesis": {},
    "GenesisBefore": {},
    "Playground": {"init_at_random_ep_len": False},
    "LeggedGym": {},
    "Mjlab": {},
}
"""By name what they are made with."""


def made(form, **options):
    """Return the environment class of a stand-in."""
    return from_vec_env(globals()[form], **{**FORMS[form], **options})


class IsaacLab23(Simulator):
    """Isaac Lab since 2.3: a TensorDict of groups, dones as integers; rewards in a live buffer.

    `log` and `final_obs` are written where episodes end, and stay in `extras` until the next do.
    """

    def __init__(self, num_envs, *, device="cpu", compute_final_obs=False, finite=False):
        super().__init__(num_envs)
        self.cfg = SimpleNamespace(compute_final_obs=compute_final_obs, is_finite_horizon=finite)
        self.reward_buf = torch.zeros(num_envs)
        self.device, self.seeds = device, []
        print("Simulation App started")  # noqa: T201

    @property
    def unwrapped(self):
        return self

    def seed(self, seed=-1):
        # Theirs seeds all generators.
        torch.manual_seed(seed)
        self.seeds.append(seed)
        return seed

    def _groups(self):
        return TensorDict({"policy": self.walk.seen(), "critic": self.walk.secret()}, [self.num_envs])

    def get_observations(self):
        return self._groups()

    def reset(self):
        self.walk.start(self.walk.rows)
        return self._groups(), self.extras

    def step(self, actions):
        rewards, lost, late = self.advance(actions)
        self.reward_buf[:] = rewards
        dones = lost | late
        rows = dones.nonzero().squeeze(-1)
        if len(rows):
            if self.cfg.compute_final_obs:
                self.extras["final_obs"] = dict(self._groups().items())
            self.extras["log"] = {"Episode_Reward/near": rewards[rows].mean(), "Curriculum/level": 2}
            self.walk.start(rows)
        if not self.cfg.is_finite_horizon:
            self.extras["time_outs"] = late
        return self._groups(), self.reward_buf, dones.to(torch.long), self.extras


class IsaacLab22(IsaacLab23):
    """Isaac Lab before 2.3: a tensor, and all groups in `extras["observations"]`."""

    def _old(self):
        groups = dict(self._groups().items())
        return groups["policy"], {"observations": groups}

    def get_observations(self):
        return self._old()

    def reset(self):
        super().reset()
        return self._old()

    def step(self, actions):
        _, rewards, dones, extras = super().step(actions)
        obs, observations = self._old()
        extras.update(observations)
        return obs, rewards, dones, extras


class Genesis(Simulator):
    """Genesis' examples since rsl_rl 5: one group, all of it live buffers; time-outs as floats."""

    def __init__(self, num_envs, *, device="cpu"):
        super().__init__(num_envs)
        self.obs_buf, self.rew_buf = torch.zeros(num_envs, 2), torch.zeros(num_envs)
        self.reset_buf = torch.ones(num_envs, dtype=torch.int32)
        self.cfg = {}

    def get_observations(self):
        return TensorDict({"policy": self.obs_buf}, batch_size=[self.num_envs])

    def reset(self):
        self.walk.start(self.walk.rows)
        self.obs_buf.copy_(self.walk.seen())
        return self.get_observations()

    def step(self, actions):
        rewards, lost, late = self.advance(actions)
        self.reset_buf = lost | late
        self.extras["time_outs"] = late.to(torch.float32)
        rows = self.reset_buf.nonzero().squeeze(-1)
        if len(rows):
            self.extras["episode"] = {"rew_near": rewards[rows].mean().item(), "/share?": 0.5}
            self.walk.start(rows)
        self.rew_buf[:] = rewards
        self.obs_buf[:] = self.walk.seen()
        return self.get_observations(), self.rew_buf, self.reset_buf, self.extras


class GenesisBefore(Genesis):
    """Genesis' examples before: a tensor; `reset` leaves the observations as they were and has no extras."""

    def get_observations(self):
        self.extras.setdefault("observations", {})["critic"] = self.obs_buf
        return self.obs_buf, self.extras

    def get_privileged_observations(self):
        return None

    def reset(self):
        self.walk.start(self.walk.rows)
        return self.obs_buf, None

    def step(self, actions):
        _, rewards, dones, extras = super().step(actions)
        return self.obs_buf, rewards, dones, extras


class Playground(Simulator):
    """MuJoCo Playground's wrapper: floats only, no device, no ages, and `get_observations` is a reset.

    `seed` is a number. Each reset is to the same states.
    """

    def __init__(self, num_envs, *, device="cpu", seed=0):
        super().__init__(num_envs)
        self.seed, self.resets = seed, 0

    episode_length_buf = None

    def _groups(self):
        groups = {"state": self.walk.seen(), "privileged_state": self.walk.secret()}
        return TensorDict(groups, batch_size=[self.num_envs])

    def reset(self):
        self.resets += 1
        self.walk.episodes.zero_()
        self.walk.start(self.walk.rows)
        return self._groups()

    def get_observations(self):
        return self.reset()

    def step(self, actions):
        rewards, lost, late = self.advance(torch.clip(actions, -1.0, 1.0))
        dones = lost | late
        self.walk.start(dones.nonzero().squeeze(-1))
        groups = self._groups()
        extras = {
            "time_outs": late.float(),
            "observations": {"critic": groups["privileged_state"]},
            # The mean of no successes, at first.
            "log": {"success": np.float64("nan"), "reward/near": rewards.mean().item()},
        }
        return groups, rewards, dones.float(), extras


class LeggedGym(Simulator):
    """legged_gym and its kin, rsl_rl 1: five values; a reset is followed by a step without action.

    Time-outs aren't told before an episode has ended, and are those of that step until another does.
    """

    def __init__(self, num_envs, *, device="cpu", privileged=True):
        super().__init__(num_envs)
        self.num_privileged_obs = 3 if privileged else None
        self.obs_buf, self.rew_buf = self.walk.seen(), torch.zeros(num_envs)
        self.privileged_obs_buf = self.walk.secret() if privileged else None

    def get_observations(self):
        return self.obs_buf

    def get_privileged_observations(self):
        return self.privileged_obs_buf

    def reset(self):
        self.walk.start(self.walk.rows)
        obs, privileged, _, _, _ = self.step(torch.zeros(self.num_envs, 1))
        return obs, privileged

    def step(self, actions):
        rewards, lost, late = self.advance(actions)
        self.rew_buf[:] = rewards
        rows = (lost | late).nonzero().squeeze(-1)
        if len(rows):
            self.extras["episode"] = {"rew_near": rewards[rows].mean(), "max_command_x": 1.5}
            self.extras["time_outs"] = late
            self.walk.start(rows)
        self.obs_buf = self.walk.seen()
        if self.privileged_obs_buf is not None:
            self.privileged_obs_buf = self.walk.secret()
        return self.obs_buf, self.privileged_obs_buf, self.rew_buf, lost | late, self.extras


class Mjlab(IsaacLab23):
    """mjlab with `auto_reset=False`: rows that ended stay so until somebody puts them back, and insist on it.

    Observing draws noise again for all rows, as its terms with noise do.
    """

    def __init__(self, num_envs, *, device="cpu"):
        super().__init__(num_envs, device=device)
        self.cfg = SimpleNamespace(auto_reset=False, is_finite_horizon=False)
        self.pending = torch.zeros(num_envs, dtype=torch.bool)
        self.noise = 0.0
        self.env = SimpleNamespace(reset=self._reset)

    @property
    def unwrapped(self):
        return self.env

    def _groups(self):
        self.noise += 1000.0
        groups = {"actor": self.walk.seen(), "critic": self.walk.secret()}
        groups["critic"] = torch.cat([groups["critic"], torch.full((self.num_envs, 1), self.noise)], -1)
        return TensorDict(groups, [self.num_envs])

    def _reset(self, env_ids=None):
        rows = self.walk.rows if env_ids is None else env_ids
        self.extras["log"] = {"Episode_Termination/time_out": len(rows)}
        self.walk.start(rows)
        self.pending[rows] = False
        return dict(self._groups().items()), self.extras

    def reset(self):
        obs, extras = self._reset()
        return TensorDict(obs, [self.num_envs]), extras

    def step(self, actions):
        if self.pending.any():
            raise RuntimeError(f"Environments {self.pending.nonzero().tolist()} must be reset via reset")
        self.extras["log"] = {}
        rewards, lost, late = self.advance(actions)
        self.pending = lost | late
        self.extras["time_outs"] = late
        return self._groups(), rewards, (lost | late).to(torch.long), self.extras
