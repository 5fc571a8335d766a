"""DM Control's tasks in a worker process: a part of the environments, one after the other.

`worker_processes` says what it is asked. It imports nothing of rlstack.
"""

import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def make(rows: range, **arguments: Any) -> "_Tasks":
    """Return the tasks of these environments."""
    return _Tasks(rows, **arguments)


class _Tasks:
    """As many instances of one task as there are rows.

    Args:
        rows: Which environments they are.
        domain: Of the task.
        task: Its name in the domain.
        seed: With the number of an environment, what its model is drawn from.
        task_kwargs: As `dm_control.suite.load` takes them.
        environment_kwargs: As `dm_control.suite.load` takes them.
    """

    row: int | None = None
    """Which environment is at work, for errors."""

    _arrays: Arrays
    """Of these rows, R: `actions` [R, A], `obs` and `final_obs` [R, N], and [R] `rewards` and flags."""

    def __init__(
        self,
        rows: range,
        *,
        domain: str,
        task: str,
        seed: int,
        task_kwargs: Mapping[str, Any],
        environment_kwargs: Mapping[str, Any],
    ) -> None:
        load = _loader()

        def make_one(random: np.random.RandomState) -> Any:
            try:
                return load(domain, task, {**task_kwargs, "random": random}, dict(environment_kwargs))
            except AttributeError as error:
                version = import_module("mujoco").__version__
                raise RuntimeError(
                    f"{error}; if dm_control doesn't fit mujoco {version}: pip install 'mujoco<4'"
                ) from error

        self._rows, self._make_one = rows, make_one
        self._worlds = [make_one(_generator(seed, row)) for row in rows]
        if os.environ["MUJOCO_GL"] == "disabled":
            # A new episode of quadruped-escape asks for these, to draw its terrain: nothing is drawn here.
            type(self._worlds[0].physics).contexts = None
        self._reference: Any = None

    def describe(self) -> dict[str, Any]:
        """Return the shapes of an observation's parts by name, and the bounds of actions."""
        spec, observation = self._worlds[0].action_spec(), self._worlds[0].reset().observation
        return {
            "obs": {key: tuple(np.shape(value)) for key, value in observation.items()},
            "low": np.broadcast_to(spec.minimum, spec.shape).tolist(),
            "high": np.broadcast_to(spec.maximum, spec.shape).tolist(),
        }

    def share(self, arrays: Arrays) -> None:
        """Take the rows that are written and read from now on."""
        self._arrays = arrays

    def reset(self, seed: int) -> None:
        """Start all of them anew; what they draw follows from a seed and their numbers."""
        for at, row in enumerate(self._rows):
            self.row = row
            world = self._worlds[at]
            world.task.random.set_state(_generator(seed, row).get_state())
            _write(self._arrays["obs"][at], world.reset().observation)
        self.row = None

    def step(self) -> None:
        """Take one step of each; those whose episodes end begin their next ones."""
        arrays = self._arrays
        actions, obs, final_obs, rewards = (
            arrays[name] for name in ("actions", "obs", "final_obs", "rewards")
        )
        terminated, truncated = arrays["terminated"], arrays["truncated"]
        for at, world in enumerate(self._worlds):
            self.row = self._rows[at]
            moment = world.step(actions[at])
            rewards[at] = moment.reward
            ended = moment.last()
            terminated[at] = ended and moment.discount == 0
            truncated[at] = ended and moment.discount != 0
            _write(final_obs[at], moment.observation)
            if ended:
                _write(obs[at], world.reset().observation)
            else:
                obs[at] = final_obs[at]
        self.row = None

    def changed_fields(self) -> list[str]:
        """Return the names of the model's arrays that differ, in any of them, from those of one just made."""
        if self._reference is None:
            self._reference = self._make_one(np.random.RandomState(0)).physics.model.ptr
        names = [
            name for name in dir(self._reference) if isinstance(getattr(self._reference, name), np.ndarray)
        ]
        return [
            name
            for name in names
            if any(
                not np.array_equal(getattr(world.physics.model.ptr, name), getattr(self._reference, name))
                for world in self._worlds
            )
        ]

    def state(self, fields: Sequence[str]) -> dict[str, Any]:
        """Return all that what comes next depends on, arrays whose first dimension is that of the rows.

        Args:
            fields: Names of the model's arrays to include: tasks write targets and terrains there.
        """
        worlds = self._worlds
        random = [world.task.random.get_state() for world in worlds]
        return {
            "physics": np.stack([_physics_state(world.physics) for world in worlds]),
            # dm_control has no public name for how many steps an episode has had.
            "steps": np.array([world._step_count for world in worlds], np.int64),
            "random_key": np.stack([state[1].astype(np.int64) for state in random]),
            "random_place": np.array([state[2:4] for state in random], np.int64),
            "random_normal": np.array([state[4] for state in random], np.float64),
            "model": {
                name: np.stack([getattr(world.physics.model.ptr, name) for world in worlds])
                for name in fields
            },
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned of these rows."""
        for at, world in enumerate(self._worlds):
            self.row = self._rows[at]
            # Tasks note what they need of the model when an episode begins.
            world.reset()
            for name, values in state["model"].items():
                getattr(world.physics.model.ptr, name)[:] = values[at]
            _set_physics_state(world.physics, state["physics"][at])
            world._step_count = int(state["steps"][at])
            place, has_normal = state["random_place"][at].tolist()
            key = state["random_key"][at].astype(np.uint32)
            world.task.random.set_state(
                ("MT19937", key, place, has_normal, float(state["random_normal"][at]))
            )
        self.row = None


def _loader() -> Callable[..., Any]:
    """Return `dm_control.suite.load`."""
    # Nothing is drawn here: don't look for a screen.
    os.environ.setdefault("MUJOCO_GL", "disabled")
    # Each instance would repeat what mujoco says of old models.
    logging.getLogger("absl").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load: Callable[..., Any] = import_module("dm_control.suite").load
    return load


def _generator(seed: int, row: int) -> np.random.RandomState:
    """Return the generator of one environment, of the kind that dm_control takes."""
    return np.random.RandomState(np.random.SeedSequence((seed, row)).generate_state(8))


def _write(row: np.ndarray, observation: Mapping[str, Any]) -> None:
    """Write the parts of an observation one after the other into a row [N]."""
    end = 0
    for part in observation.values():
        value = np.asarray(part)
        start, end = end, end + value.size
        row[start:end] = value if value.ndim == 1 else value.reshape(-1)


def _physics_state(physics: Any) -> np.ndarray:
    """Return what the next step depends on, warm starts of the solver included."""
    mujoco = import_module("mujoco")
    model, data, which = physics.model.ptr, physics.data.ptr, mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(model, which))
    mujoco.mj_getState(model, data, state, which)
    return state


def _set_physics_state(physics: Any, state: np.ndarray) -> None:
    """Take over what `_physics_state` returned, and compute what dm_control expects to follow from it."""
    mujoco = import_module("mujoco")
    model, data = physics.model.ptr, physics.data.ptr
    mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_step1(model, data)
