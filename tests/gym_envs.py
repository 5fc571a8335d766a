"""Small environments that Gymnasium knows; worker processes import no more than they need."""

import os
import time
from types import SimpleNamespace

import gymnasium
import numpy as np
from gymnasium import spaces

FAR = 3


class Walk(gymnasium.Env):
    """A walk on a line from 0, without chance: it ends `FAR` steps away, and is broken off after `limit`."""

    observation_space = spaces.Box(-10, 10, (2,), np.float64)
    action_space = spaces.Discrete(3, start=-1)

    def __init__(self, limit=7, stride=1):
        self.limit, self.stride = limit, stride

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.age = int((options or {}).get("place", 0)), 0
        return self._obs(), {}

    def step(self, action):
        self.place, self.age = self.place + self.stride * int(action), self.age + 1
        ended = abs(self.place) >= FAR
        infos = {"reward_ctrl": -abs(float(action)), "success": ended, "place": self.place}
        return self._obs(), self.place / 2, ended, self.age >= self.limit and not ended, infos

    def _obs(self):
        return np.array([self.place, self.age], np.float64)


class Echo(gymnasium.Env):
    """Says whether actions are of their space, and observes samples of any other one."""

    def __init__(self, observations, actions):
        self.observation_space, self.action_space = observations, actions

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return (
            self.observation_space.sample(),
            float(self.action_space.contains(_arrays(action))),
            False,
            False,
            {},
        )


def _arrays(action):
    """Return an action with arrays for numbers, of which spaces would warn."""
    return np.asarray(action) if isinstance(action, np.floating) else action


class Dying(Walk):
    """A walk that ends its process where it is told to go left, and takes a minute where it is to stay."""

    def step(self, action):
        if action < 0:
            os._exit(7)
        if action == 0:
            time.sleep(60)
        return super().step(action)


class Toppling(Walk):
    """A walk whose simulation is unstable where it goes left, as MuJoCo says that of its own."""

    def __init__(self):
        super().__init__()
        warning = SimpleNamespace(number=np.zeros(7, int), lastinfo=np.zeros(7, int))
        self.data = SimpleNamespace(warning=warning)

    def reset(self, **options):
        self.data.warning.number[:] = 0
        return super().reset(**options)

    def step(self, action):
        if action < 0:
            self.data.warning.number[5], self.data.warning.lastinfo[5] = 1, 7
        return super().step(action)


for _cls in (Walk, Echo, Dying, Toppling):
    if f"Rlstack/{_cls.__name__}-v0" not in gymnasium.registry:
        gymnasium.register(f"Rlstack/{_cls.__name__}-v0", _cls, disable_env_checker=True)
