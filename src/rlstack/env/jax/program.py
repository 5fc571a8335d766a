"""Compiled functions over a batch of simulations of Brax's form: a state in, a state out.

What is simulated has `reset(key) -> state` and `step(state, action) -> state`, of one simulation, with the
fields `obs`, `reward`, `done`, `metrics` and `info` in its state. JAX is handed in: nothing here imports it.
"""

from functools import partial
from types import ModuleType
from typing import Any, NamedTuple, final

_PARTS = 8
"""A call puts back this fraction of the simulations, so that it costs little where few have ended."""


class Rows(NamedTuple):
    """A batch of simulations."""

    state: Any
    """The simulator's own; every array [B, ...], but for what it shares among all of them."""
    age: Any
    """[B], int32. Steps since the episode of each began."""
    key: Any
    """[2], uint32. What the next starts are drawn from."""
    sums: Any
    """[M]. Means of the metrics over the batch, summed over steps."""


class Moment(NamedTuple):
    """What a step says."""

    obs: Any
    """[B, ...]. Before anything is put back."""
    rewards: Any
    """[B, 1]."""
    terminated: Any
    """[B, 1], bool."""
    truncated: Any
    """[B, 1], bool."""
    ended: Any
    """[B], bool. Which of them have to be put back."""
    count: Any
    """How many those are."""


@final
class Program:
    """Compiled functions of one environment, for any number of simulations.

    Args:
        jax: The module.
        env: What is simulated.
        device: JAX's, where it is simulated.
        episode_length: After how many steps an episode is broken off; None for never.
        action_repeat: How many of the simulator's steps one step is.
    """

    def __init__(
        self, jax: ModuleType, env: Any, device: Any, episode_length: int | None, action_repeat: int
    ) -> None:
        self._jax, self._env, self._device = jax, env, device
        self._episode_length, self._action_repeat = episode_length, action_repeat
        # The state that goes in is given up: its memory is that of the one that comes out.
        self.step = jax.jit(self._step, donate_argnums=0)
        self.put_back = jax.jit(self._put_back, donate_argnums=0)
        self.action_size = int(env.action_size)
        self.state = self.shapes(1).state
        """Shapes and dtypes of one simulation's state, in a batch of one."""
        self.metric_names = sorted(self.state.metrics)

    def shapes(self, num_envs: int) -> Rows:
        """Return the shapes and dtypes of a batch."""
        jax, numbers = self._jax, self._jax.numpy
        keys = jax.ShapeDtypeStruct((num_envs, 2), numbers.uint32)
        with jax.default_device(self._device):
            state = jax.eval_shape(jax.vmap(self._env.reset), keys)
        struct = partial(jax.ShapeDtypeStruct, dtype=numbers.int32)
        sums = jax.ShapeDtypeStruct((len(state.metrics),), numbers.float32)
        return Rows(state, struct((num_envs,)), jax.ShapeDtypeStruct((2,), numbers.uint32), sums)

    def begin(self, seed: int, num_envs: int) -> tuple[Rows, Any]:
        """Return a batch in starts drawn from a seed, and its observations [B, ...]."""
        jax, numbers = self._jax, self._jax.numpy
        with jax.default_device(self._device):
            rows = jax.tree.map(lambda leaf: numbers.zeros(leaf.shape, leaf.dtype), self.shapes(num_envs))
            rows = jax.device_put(rows._replace(key=jax.random.PRNGKey(seed)), self._device)
            left = jax.device_put(numbers.ones(num_envs, bool), self._device)
        return self.put_back_all(rows, left, num_envs)

    def put_back_all(self, rows: Rows, left: Any, count: int) -> tuple[Rows, Any]:
        """Return a batch after all that are left to be put back were, and its observations.

        Args:
            rows: The batch, which is given up.
            left: [B], bool. Which are to be put back.
            count: How many those are, at least one.
        """
        obs = None
        for _ in range(-(-count // self._chunk(left.shape[0]))):
            rows, left, obs = self.put_back(rows, left)
        return rows, obs

    def _step(self, rows: Rows, action: Any) -> tuple[Rows, Moment]:
        jax, numbers = self._jax, self._jax.numpy

        def once(state: Any, _: Any) -> tuple[Any, Any]:
            after = jax.vmap(self._env.step)(state, action)
            # Were a dtype another one, the next step would be compiled again.
            after = jax.tree.map(lambda new, old: numbers.asarray(new, old.dtype), after, state)
            return after, after.reward

        state, rewards = jax.lax.scan(once, rows.state, length=self._action_repeat)
        age = rows.age + self._action_repeat
        # Brax's inverted_pendulum says info["time_out"] where it has fallen: by default Brax looks past that.
        terminated = state.done > 0.5
        limit = self._episode_length
        truncated = ~terminated & (age >= (numbers.iinfo(age.dtype).max if limit is None else limit))
        ended = terminated | truncated
        key, _ = jax.random.split(rows.key)
        sums = rows.sums
        if self.metric_names:
            means = [numbers.mean(state.metrics[name], dtype=numbers.float32) for name in self.metric_names]
            sums = sums + numbers.stack(means)
        flags = (rewards.sum(0, dtype=numbers.float32)[:, None], terminated[:, None], truncated[:, None])
        return Rows(state, age, key, sums), Moment(self._obs(state), *flags, ended, ended.sum())

    def _put_back(self, rows: Rows, left: Any) -> tuple[Rows, Any, Any]:
        """Put some of those back that are left; return the batch, which are left then, and observations."""
        jax, numbers = self._jax, self._jax.numpy
        num_envs = left.shape[0]
        chunk = self._chunk(num_envs)
        # Places beyond the last row are those of none.
        places = numbers.nonzero(left, size=chunk, fill_value=num_envs)[0]
        _, key = jax.random.split(rows.key)
        fresh = jax.vmap(self._env.reset)(jax.vmap(partial(jax.random.fold_in, key))(places))

        def put(old: Any, new: Any) -> Any:
            if old.ndim == 0 or old.shape[0] != num_envs or new.shape[0] != chunk:
                # Shared among all simulations, as Warp's contacts are.
                return old
            return old.at[places].set(numbers.asarray(new, old.dtype), mode="drop")

        state = jax.tree.map(put, rows.state, fresh)
        age = rows.age.at[places].set(0, mode="drop")
        left = left.at[places].set(False, mode="drop")
        return rows._replace(state=state, age=age), left, self._obs(state)

    def _obs(self, state: Any) -> Any:
        """Return observations, real numbers as float32."""
        numbers = self._jax.numpy

        def plain(leaf: Any) -> Any:
            return leaf.astype(numbers.float32) if numbers.issubdtype(leaf.dtype, numbers.floating) else leaf

        return self._jax.tree.map(plain, state.obs)

    @staticmethod
    def _chunk(num_envs: int) -> int:
        return -(-num_envs // _PARTS)
