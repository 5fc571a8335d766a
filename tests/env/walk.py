"""A task for stand-ins of simulators, and a walk through it."""

import torch

CONFIG = {"num_envs": 4, "horizon": 8, "device": "cpu", "seed": 0, "horizons_per_env_reset": -1}
LIMIT = 7


class Walk:
    """Points on a line that are pushed; one that is 1 away from 0 is lost, and `LIMIT` steps are the most.

    Nothing is left to chance: the n-th episode of a row begins where its number says. `truth` has what
    happened in each step, before rows that ended were put back.
    """

    def __init__(self, num_envs):
        self.rows = torch.arange(num_envs)
        self.x = torch.zeros(num_envs)
        self.ages = torch.zeros(num_envs, dtype=torch.long)
        self.episodes = torch.zeros(num_envs, dtype=torch.long)
        self.truth = []

    def start(self, rows):
        self.episodes[rows] += 1
        self.x[rows] = ((self.rows[rows] + self.episodes[rows]) % 5).float() / 10 - 0.2
        self.ages[rows] = 0

    def advance(self, actions):
        """Move; return rewards, whose episode is lost, and whose time is up."""
        self.x = self.x + 0.3 * actions[:, 0].clamp(-1, 1)
        self.ages = self.ages + 1
        rewards, lost = 1 - self.x.abs(), self.x.abs() >= 1
        late = (self.ages >= LIMIT) & ~lost
        self.truth.append((self.seen(), self.secret(), rewards, lost, late))
        return rewards, lost, late

    def seen(self):
        return torch.stack([self.x, self.x.sign()], -1)

    def secret(self):
        return torch.stack([self.x, self.ages.float(), self.episodes.float()], -1)


class Simulator:
    """What all of them have."""

    max_episode_length = LIMIT
    num_actions = 1

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.walk = Walk(num_envs)
        self.extras = {}
        self.handed = []
        self.walk.start(self.walk.rows)

    @property
    def episode_length_buf(self):
        return self.walk.ages

    @episode_length_buf.setter
    def episode_length_buf(self, ages):
        self.walk.ages = ages

    def advance(self, actions):
        self.handed.append(actions)
        return self.walk.advance(actions)


def walked(env, steps=20):
    """Reset and step an environment; return what steps returned, and what was true."""
    env.reset()
    walk = env.simulator.walk
    before = len(walk.truth)
    generator = torch.Generator().manual_seed(1)
    # More to the right than to the left: some get lost, others come to their time limit.
    actions = [torch.rand(env.num_envs, 1, generator=generator) * 2 - 0.7 for _ in range(steps)]
    return [env.step(action) for action in actions], walk.truth[before:]
