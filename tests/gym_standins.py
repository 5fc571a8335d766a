"""Stand-ins of other packages' vector environments, with their shapes, dtypes and traps."""

import warnings

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from .gym_envs import FAR


class _ManyWalks:
    """Walks of both stand-ins, stepped together."""

    def __init__(self, num_envs, limit=7):
        self.num_envs, self.limit = num_envs, limit
        self.place, self.age = np.zeros((2, num_envs), np.int64)
        self.closed = False

    def move(self, actions):
        self.place, self.age = self.place + np.sign(actions), self.age + 1
        ended = np.abs(self.place) >= FAR
        return self.place / 2, ended, (self.age >= self.limit) & ~ended

    def put_back(self, rows):
        self.place, self.age = np.where(rows, 0, self.place), np.where(rows, 0, self.age)

    def close(self):
        self.closed = True


class PooledWalks(_ManyWalks):
    """EnvPool 1.2.5's form: its spaces, dtypes and infos as they were seen.

    Rows are put back by the step after their ending, which ignores their actions and returns 0 rewards.
    `reset` warns of seeds. Bounds of DM Control's observations are float64's smallest and largest positive
    numbers. An action of another dtype than its space's is refused.
    """

    __module__ = "envpool.standin"
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (as EnvPool has it)

    def __init__(self, num_envs, *, seed, limit=7):
        super().__init__(num_envs, limit)
        self.seed = seed
        tiny, huge = np.finfo(np.float64).tiny, np.finfo(np.float64).max
        place, age = (spaces.Box(tiny, huge, (1,), np.float64) for _ in range(2))
        self.single_observation_space = self.observation_space = spaces.Dict(place=place, age=age)
        self.single_action_space = self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float64)
        self.over = np.zeros(num_envs, bool)

    def reset(self, env_id=None, *, seed=None, options=None):
        if seed is not None:
            warnings.warn("EnvPool seeds are fixed when the environment is created", stacklevel=2)
        assert options is None
        self.put_back(np.ones(self.num_envs, bool))
        self.over[:] = False
        return self._obs(), self._infos()

    def step(self, actions):
        assert actions.dtype == np.float64, actions.dtype
        assert actions.shape == (self.num_envs, 1)
        before = self.place, self.age
        rewards, ended, broken_off = self.move(np.where(self.over, 0, np.round(actions[:, 0])))
        self.place, self.age = (np.where(self.over, 0, n) for n in (self.place, self.age))
        rewards[self.over] = 0
        ended, broken_off = ended & ~self.over, broken_off & ~self.over
        assert before[0] is not self.place
        self.over = ended | broken_off
        return self._obs(), rewards.astype(np.float32), ended, broken_off, self._infos()

    def _obs(self):
        return {"age": self.age[:, None].astype(np.float64), "place": self.place[:, None].astype(np.float64)}

    def _infos(self):
        ids = np.arange(self.num_envs, dtype=np.int32)
        return {"env_id": ids, "players": {"env_id": ids}, "elapsed_step": self.age.astype(np.int32)}


class TensorWalks(_ManyWalks):
    """ManiSkill 3.0.1's form: torch throughout, buffers that it writes into again, SAME_STEP.

    Last observations are in `final_observation`, statistics of episodes in `final_info`.
    """

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}  # noqa: RUF012 (as ManiSkill)

    def __init__(self, num_envs, device="cpu", **options):
        super().__init__(num_envs, **options)
        self.device = torch.device(device)
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.buffer, self.rewards = torch.zeros(num_envs, 2), torch.zeros(num_envs)

    def reset(self, *, seed=None, options=None):
        self.put_back(np.ones(self.num_envs, bool))
        return self._obs(), {}

    def step(self, actions):
        assert isinstance(actions, torch.Tensor)
        assert actions.dtype == torch.float32
        rewards, ended, broken_off = self.move(np.round(actions.squeeze(-1).numpy()))
        self.rewards.copy_(torch.as_tensor(rewards))
        over = ended | broken_off
        infos = {"success": torch.as_tensor(ended)}
        if over.any():
            rows = torch.as_tensor(over)
            episode = {"success_once": torch.as_tensor(ended), "return": torch.zeros(self.num_envs)}
            infos["final_observation"] = self._obs().clone()
            infos["final_info"] = {"episode": episode}
            infos["_final_observation"] = infos["_final_info"] = rows
            self.put_back(over)
        return self._obs(), self.rewards, torch.as_tensor(ended), torch.as_tensor(broken_off), infos

    def _obs(self):
        self.buffer.copy_(torch.as_tensor(np.stack([self.place, self.age], 1)))
        return self.buffer
