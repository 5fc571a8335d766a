"""Proximal policy optimization: collect a horizon, update the policy, again."""

import logging
import time
from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar, Unpack, final

from .common import metrics, random_state
from .common.device import resolve_device
from .common.fields import document
from .common.public_names import simulator_name
from .common.types import Config, Stats
from .distributed.ranks import join
from .engine.select import make_backend, make_executor, with_block_size
from .env.base import EnvFactory, make_env
from .hparams import Hparams, RecurrentHparams
from .keywords import HparamsDict, RecurrentHparamsDict
from .policies.file import state_of
from .policies.policy import Policy, RecurrentPolicy
from .policies.watch import PolicyWatch
from .ppo.advantages import AdvantageEstimator
from .ppo.collector import Collector
from .ppo.horizon_watch import HorizonWatch
from .ppo.learner import Learner
from .ppo.make_policy import make_policy
from .ppo.memory import memory_advice
from .ppo.params import describe_params, said_of, with_simulator_options
from .ppo.pooling import begin_together, make_pool
from .ppo.precision import without_emulation
from .ppo.rollout_buffer import Sequences
from .ppo.schedules import Schedules

_log = logging.getLogger(__name__)


class _PPO(ABC):
    """The one core: feedforward is recurrence with no state and sequences of one step."""

    hparams_cls: ClassVar[type[Hparams]]
    policy_cls: ClassVar[type[Policy] | type[RecurrentPolicy]]

    def __init_subclass__(cls) -> None:
        document(cls, cls.hparams_cls, "Hyperparameters")

    def __init__(self, env_cls: EnvFactory, /, **hyperparameters: Any) -> None:
        hparams = self.hparams_cls.parse(hyperparameters)
        self.ranks = join()
        self.device = resolve_device(hparams.device)
        hparams = with_simulator_options(without_emulation(hparams, self.device), env_cls)
        random_state.seed_all(hparams.seed, self.ranks.index)
        self.env_cls = env_cls
        self.env = make_env(env_cls, hparams.num_envs, hparams.env_config, self.device)
        self.hparams = hparams.resolve_for_env(
            getattr(self.env, "max_horizon", None), type(self.env).__name__
        )
        self.policy = make_policy(self.policy_cls, self.hparams, self.env, self.device)
        self.hparams = with_block_size(self.policy, self.hparams, self.device)
        self.backend = make_backend(self.policy, self.hparams, self.device)
        self.collector = Collector(self.env, self.backend, self.hparams)
        self.learner = Learner(self.backend, self.hparams, self.ranks)
        buffer = self.collector.buffer
        self._sequences = Sequences(buffer)
        self.advantages = AdvantageEstimator(buffer, self._sequences, self.hparams, self.device, self.ranks)
        self._executor = make_executor(self.collector, self.learner, self.advantages)
        self._watch = PolicyWatch(self.policy)
        self._horizon_watch = HorizonWatch(self.hparams, getattr(self.env, "max_horizon", None))
        self._schedules = Schedules(self.hparams)
        self.env_steps = 0
        """Transitions of all environments so far, on all ranks."""
        self._buffered = False
        self._eval_collector: Collector | None = None
        begin_together(self.ranks, self.params, self.policy)
        self.collector.pool = make_pool(self.ranks, buffer, self.policy, self.advantages)

    @property
    def params(self) -> dict[str, str]:
        """The hyperparameters in use, all defaults resolved, as short texts by dotted name."""
        env = simulator_name(self.env_cls) or getattr(self.env_cls, "__qualname__", repr(self.env_cls))
        others = {"device": self.device, "engine": self.engine, "algorithm": type(self).__name__, "env": env}
        return describe_params(self.hparams, self.policy, self.learner.optimizer, **others)

    def __repr__(self) -> str:
        return said_of(type(self).__name__, self.params, self.hparams, self.policy)

    @property
    def engine(self) -> str:
        """How this algorithm computes: eager, kernels, compile, graph, or graph for a part of it."""
        return self._executor.engine

    @property
    def optimizer_steps(self) -> str:
        """How the last update made its optimizer steps: `docs/performance.md` tells when which."""
        return self._executor.steps

    def collect(self, *, env_config: Config | None = None, deterministic: bool = False) -> Stats:
        """Simulate one horizon in all environments and keep it for `step`.

        Args:
            env_config: Options from the next reset on, or at once with `set_config`; None goes on as before.
            deterministic: Whether the policy acts without chance.

        Returns:
            Statistics of this horizon; `returns/…` are sums of rewards over it, `env/…` its own metrics too.

        Raises:
            EnvError: If the environment breaks its contract.
            NonFiniteError: If it returns NaN or infinity, or rewards too large for float32's moments; the
                policy and all statistics stay as they were.
        """
        start = time.perf_counter()
        self._follow_policy()
        self._absorb_observations()
        with self.ranks.telling(), memory_advice(self.hparams, "collect"):
            resets = self.collector.begin(env_config)
            self.advantages.begin(anew=resets > 0)
            stats = self.collector.run(
                self._executor.rollout, deterministic=deterministic, sums=self._executor.sum_rewards
            )
            self.advantages.accept()
        self._buffered = True
        env_steps = self.hparams.num_envs * self.hparams.horizon * self.ranks.count
        self.env_steps += env_steps
        return {
            **stats,
            metrics.ENV_RESETS: float(resets * self.ranks.count),
            metrics.ENV_STEPS: float(env_steps),
            "profiling/collect_ms": 1e3 * (time.perf_counter() - start),
        }

    def step(self) -> Stats:
        """Update the policy once, from the horizon that `collect` kept.

        Returns:
            Statistics of this update; losses are means over its optimizer steps.

        Raises:
            RuntimeError: If there is nothing collected that hasn't been used.
            NonFiniteError: If a loss or gradient is NaN or infinite; it never reaches the parameters.
        """
        if not self._buffered:
            raise RuntimeError("step() has no transitions to learn from: call collect() before each step()")
        start, hp = time.perf_counter(), self.hparams
        coefficients = self._schedules.coefficients(self.env_steps)
        total = len(self._sequences)
        size = total if hp.accumulate_grads else hp.minibatch_size(total)
        threads = self.backend.threads(size * hp.sequence_length)
        with self.ranks.telling(), threads, memory_advice(hp, "step"):
            monitors = self._executor.estimate()
            self.learner.begin(lr=self._schedules.lr(self.env_steps), coefficients=coefficients)
            self._executor.optimize(self._sequences, size)
            self._absorb_observations()
            numbers = self.learner.summary(monitors._asdict())
        self.ranks.updates = self.learner.updates
        stats = {metrics.UPDATE_STATS[name]: value for name, value in numbers.items()}
        self._horizon_watch.look(stats[metrics.BOOTSTRAP_GAP], is_last=self.collector.is_last)
        return {
            **stats,
            "coefficients/entropy": float(coefficients.entropy_coeff),
            "coefficients/clip_param": float(coefficients.clip_param),
            "coefficients/vf": hp.vf_coeff,
            "profiling/step_ms": 1e3 * (time.perf_counter() - start),
        }

    def eval(self, *, env_config: Config | None = None, deterministic: bool = True) -> Stats:
        """Simulate one horizon in environments of its own; leaves training and its random numbers alone.

        Args:
            env_config: Options for the reset of those environments and later ones; None goes on as before.
            deterministic: Whether the policy acts without chance.

        Returns:
            That horizon's `returns/…`, `rewards/…` and own metrics `env/…`; `rlstack eval` judges by ten.

        Raises:
            EnvError, NonFiniteError: As `collect`.
        """
        with random_state.keep_random_state(self.device):
            collector = self._make_eval_collector()
            collector.restart()
            collector.begin(env_config)
            return collector.run(collector.rollout, deterministic=deterministic)

    def state_dict(self) -> dict[str, Any]:
        """Return all that training goes on from, bit by bit, as tensors and plain values; nothing is copied.

        Raises:
            RuntimeError: If a horizon has been collected that `step` hasn't used.
            EnvError, TypeError: If the environment, or a module of the policy, can't say its state.
        """
        if self._buffered:
            raise RuntimeError(
                "a collected horizon is not part of the state: call step() before state_dict()"
            )
        return {
            "policy": state_of(self.policy),
            "optimizer": self.learner.state_dict(),
            "advantages": self.advantages.state_dict(),
            "collector": self.collector.state_dict(),
            "eval_collector": self._eval_collector and self._eval_collector.state_dict(),
            "env_steps": self.env_steps,
            "random": random_state.random_state(self.device),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, in an algorithm of the same shapes.

        Raises:
            KeyError, RuntimeError, ValueError: If the state is that of another algorithm.
            EnvError: If the environment can't take its state over.
        """
        self.policy.load_state_dict(state["policy"])
        self.learner.load_state_dict(state["optimizer"])
        self._follow_policy()
        self.advantages.load_state_dict(state["advantages"])
        self.collector.load_state_dict(state["collector"])
        if state["eval_collector"] is not None:
            self._make_eval_collector().load_state_dict(state["eval_collector"])
        self.env_steps = state["env_steps"]
        self._buffered = False
        # Last: making an environment draws random numbers.
        random_state.set_random_state(state["random"], self.device)

    def _follow_policy(self) -> None:
        """Compute as the policy is now, should its user have frozen, hooked or replaced a part of it.

        Raises:
            RuntimeError: If a parameter has another dtype or is on another device.
        """
        if not (changes := self._watch.changes()):
            return
        self.backend = make_backend(self.policy, self.hparams, self.device)
        self.learner.follow(self.backend)
        for collector in filter(None, (self.collector, self._eval_collector)):
            collector.backend = self.backend
        self._executor.forget()
        _log.warning("the policy was changed (%s): it is run with engine %s now", changes, self.engine)

    def _make_eval_collector(self) -> Collector:
        """Return what evaluations collect with, in environments of its own that are made only once."""
        if self._eval_collector is None:
            env = make_env(self.env_cls, self.hparams.num_envs, self.hparams.env_config, self.device)
            self._eval_collector = Collector(env, self.backend, self.hparams, notes=False)
            self._eval_collector.pool = make_pool(self.ranks, self._eval_collector.buffer, self.policy)
        return self._eval_collector

    def _absorb_observations(self) -> None:
        """Take the horizon's observations into the policy's statistics, once the update has seen them."""
        if self._buffered and self.collector.pool is not None:
            self.collector.pool.absorb()
        elif self._buffered and self.policy.normalizer is not None:
            self.policy.normalizer.update(self.collector.buffer.obs[:-1], self.collector.buffer.valid)
        self._buffered = False


@final
class Algorithm(_PPO):
    """Proximal policy optimization of a feedforward policy.

    Args:
        env_cls: The environment's class, or any callable with the signature of `Env`.
        hyperparameters: Fields of `rlstack.Hparams`, by name.

    Raises:
        HparamsError: If a hyperparameter is unknown or can't be.
        EnvError: If the environment's specs can't be used.

    Examples:
        >>> from rlstack.env import DiscreteDummyEnv
        >>> algorithm = Algorithm(DiscreteDummyEnv, num_envs=8, horizon=4)
        >>> algorithm.collect()["env/steps"]
        32.0
        >>> stats = algorithm.step()
    """

    hparams_cls = Hparams
    policy_cls = Policy

    def __init__(self, env_cls: EnvFactory, /, **hyperparameters: Unpack[HparamsDict]) -> None:
        super().__init__(env_cls, **hyperparameters)


@final
class RecurrentAlgorithm(_PPO):
    """Proximal policy optimization of a recurrent policy, by truncated backpropagation through time.

    Its arguments and errors are those of `Algorithm`; `seq_len` and `seqs_per_state_reset` come in addition.

    Examples:
        >>> from rlstack.env import DiscreteDummyEnv
        >>> algorithm = RecurrentAlgorithm(DiscreteDummyEnv, num_envs=8, horizon=4, seq_len=2)
        >>> algorithm.collect()["env/steps"]
        32.0
    """

    hparams_cls = RecurrentHparams
    policy_cls = RecurrentPolicy

    def __init__(self, env_cls: EnvFactory, /, **hyperparameters: Unpack[RecurrentHparamsDict]) -> None:
        super().__init__(env_cls, **hyperparameters)
