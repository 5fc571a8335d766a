"""Stands in for dm_control.suite: a point with a target, with the shapes and habits of the real tasks."""

import os
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np

ALL_TASKS = (("point", "reach"), ("point", "reach_far"), ("ball_in_cup", "catch"))


class Moment(SimpleNamespace):
    def last(self):
        return self.kind == "last"


class Physics:
    def __init__(self):
        self.model = SimpleNamespace(ptr=SimpleNamespace(size=2, geom_pos=np.zeros(2), names=b"point"))
        self.data = SimpleNamespace(ptr=SimpleNamespace(numbers=np.zeros(2), is_fresh=True))

    @property
    def contexts(self):
        raise RuntimeError("No OpenGL rendering backend is available.")


class World:
    def __init__(self, random, time_limit, reach, unlimited):
        self.task = SimpleNamespace(random=random)
        self.physics, self.reach, self.unlimited = Physics(), reach, unlimited
        self._step_limit, self._step_count, self._over = time_limit / 0.1, 0, True

    def action_spec(self):
        most = 1e10 if self.unlimited else 1.0
        return SimpleNamespace(shape=(2,), minimum=np.array(-most), maximum=np.array(most))

    def reset(self):
        # As quadruped-escape does, to draw its terrain.
        assert not self.physics.contexts
        self.physics.model.ptr.geom_pos[:] = self.task.random.uniform(-1, 1, 2)
        self.physics.data.ptr.numbers[:] = self.task.random.normal(0, 0.1, 2)
        self._step_count, self._over = 0, False
        return Moment(kind="first", reward=None, discount=None, observation=self.observed())

    def step(self, action):
        if self._over:
            return self.reset()
        if np.isnan(action).any():
            raise RuntimeError("Physics state is invalid. Warning(s) raised: mjWARN_BADQACC")
        state = self.physics.data.ptr
        assert state.is_fresh
        state.numbers += 0.1 * action
        self._step_count += 1
        reward = -np.abs(state.numbers - self.physics.model.ptr.geom_pos).sum()
        discount = 0.0 if np.abs(state.numbers).max() > self.reach else None
        if self._step_count >= self._step_limit:
            discount = 1.0
        self._over = discount is not None
        kind = "last" if self._over else "mid"
        return Moment(
            kind=kind,
            reward=reward,
            discount=1.0 if discount is None else discount,
            observation=self.observed(),
        )

    def observed(self):
        state = self.physics.data.ptr.numbers
        return OrderedDict(
            position=state.copy(),
            upright=state.sum(),
            arm_pos=np.outer(state, self.physics.model.ptr.geom_pos),
        )


def load(domain, task, task_kwargs=None, environment_kwargs=None):
    assert os.environ["MUJOCO_GL"] == "disabled"
    options = {**(task_kwargs or {}), **(environment_kwargs or {})}
    options.setdefault("time_limit", 2.0)
    if options.pop("newer", False):
        raise AttributeError("'MjModel' object has no attribute 'flex_vertedge'")
    random = options.pop("random")
    assert isinstance(random, np.random.RandomState)
    reach = {"reach": 1.0, "reach_far": 2.0}[task]
    return World(random, reach=reach, unlimited=options.pop("unlimited", False), **options)
