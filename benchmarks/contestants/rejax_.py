"""rejax: PPO in JAX, a whole iteration compiled into one program."""

from typing import Any

import jax
from flax import struct
from gymnax.environments import environment, spaces
from jax import numpy as jnp
from rejax import PPO

from common import Clock, Work, main


@struct.dataclass
class State:
    position: Any
    time: Any


@struct.dataclass
class Params:
    max_steps_in_episode: int = 32


def make_env(work: Work) -> Any:
    scale = 0.05 if work.env == "cartpole" else 100.0

    class Env(environment.Environment):  # type: ignore[misc]
        @property
        def default_params(self) -> Params:
            return Params(max_steps_in_episode=work.horizon)

        def step_env(self, key: Any, state: State, action: Any, params: Params) -> Any:
            action = jnp.squeeze(action)
            if work.env == "cartpole":
                position, reward = _balance(state.position, action)
            else:
                move = action if work.env == "continuous" else 2.0 * action - 1.0
                position = state.position + move
                reward = -jnp.abs(position[0])
            state = State(position, state.time + 1)
            return position, state, reward, state.time >= work.horizon, {}

        def reset_env(self, key: Any, params: Params) -> Any:
            position = jax.random.uniform(key, (work.obs_size,), minval=-scale, maxval=scale)
            return position, State(position, 0)

        def action_space(self, params: Any = None) -> Any:
            if work.env == "continuous":
                return spaces.Box(-1e6, 1e6, (1,), jnp.float32)
            return spaces.Discrete(2)

        def observation_space(self, params: Any) -> Any:
            return spaces.Box(-jnp.inf, jnp.inf, (work.obs_size,), jnp.float32)

    return Env()


def _balance(position: Any, action: Any) -> Any:
    x, v, angle, spin = position
    force = 20.0 * action - 10.0
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    push = (force + 0.05 * spin**2 * sin) / 1.1
    turn = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
    pull = push - 0.05 * turn * cos / 1.1
    return jnp.stack([x + 0.02 * v, v + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * turn]), cos


def play(work: Work, clock: Clock) -> None:
    algorithm = PPO.create(
        env=make_env(work),
        env_params=Params(max_steps_in_episode=work.horizon),
        num_envs=work.num_envs,
        num_steps=work.horizon,
        num_minibatches=work.transitions // work.minibatch,
        num_epochs=work.epochs,
        agent_kwargs={"hidden_layer_sizes": list(work.hiddens), "activation": work.activation},
        learning_rate=1e-3,
        gamma=0.95,
        gae_lambda=0.95,
        max_grad_norm=5.0,
        vf_coef=1.0,
        ent_coef=0.0,
        skip_initial_evaluation=True,
    )
    state = jax.jit(algorithm.init_state)(jax.random.PRNGKey(0))
    iterate = jax.jit(lambda state: algorithm.train_iteration(state), donate_argnums=0)
    # It is compiled twice: for the first state, and for those that it returns itself.
    state = jax.block_until_ready(iterate(state))
    clock.start()
    while True:
        state = jax.block_until_ready(iterate(state))
        # One program does both: there is no moment between them.
        clock._collected = clock._start
        if clock.ended():
            return


if __name__ == "__main__":
    main(play)
