"""Proximal policy optimization: collect a horizon, update the policy, again.

One core serves feedforward and recurrent policies alike: feedforward is recurrence with no state and
sequences of one step.
"""

import time
from abc import ABC
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, final

import torch

from . import data, ppo
from .buffer import Sequences, minibatches
from .collector import Collector
from .data import Config, Stats
from .device import memory_advice, resolve_device
from .engine import Function, Horizons, Steps, default_block_size, make_passes, make_recorder
from .env.base import EnvFactory, make_env
from .hparams import Hparams, HparamsError, RecurrentHparams, flatten
from .learner import Learner, StepRecord
from .moments import RunningMoments
from .policies import Policy, RecurrentPolicy
from .policy_check import make_policy
from .schedulers import scheduler


class _PPO(ABC):
    """The one core; its subclasses differ in their policy and in how long a sequence is."""

    hparams_cls: ClassVar[type[Hparams]]
    policy_cls: ClassVar[type[Policy] | type[RecurrentPolicy]]

    def __init__(self, env_cls: EnvFactory, /, **hyperparameters: Any) -> None:
        hparams = self.hparams_cls.parse(hyperparameters)
        self.device = resolve_device(hparams.device)
        if hparams.seed is not None:
            torch.manual_seed(hparams.seed)
        self.env_cls = env_cls
        self.env = make_env(env_cls, hparams.num_envs, hparams.env_config, self.device)
        self.hparams = self._resolve_horizon(hparams)
        self.policy = make_policy(self.policy_cls, self.hparams, self.env, self.device)
        if self.hparams.grad_block_size is None:
            rows = default_block_size(self.policy, self.hparams, self.device)
            self.hparams = replace(self.hparams, grad_block_size=rows)
        self.passes = make_passes(self.policy, self.hparams, self.device)
        self.collector = Collector(self.env, self.passes, self.hparams)
        self.learner = Learner(self.passes, self.hparams)
        self._sequences = Sequences(self.collector.buffer)
        self._make_targets: Callable[[], torch.Tensor] = self._targets
        self._sum_rewards: Callable[[], bool] = self._absorb_rewards
        self._recorded: list[Horizons | Steps | Function] = []
        recorder = make_recorder(self.hparams, self.device)
        if recorder is not None:
            self.collector.simulate = horizons = Horizons(self.collector, recorder)
            self.learner.make_step = steps = Steps(self.learner, recorder)
            self._make_targets = targets = Function(
                "Advantages are estimated", self._targets, self._sequences.tensors, recorder
            )
            self._sum_rewards = sums = Function(
                "Rewards are summed", self._absorb_rewards, self._sums, recorder
            )
            self._recorded = [horizons, steps, targets, sums]
        hp, lr = self.hparams, float(self.learner.optimizer.param_groups[0]["lr"])
        self.lr_scheduler = scheduler(lr, hp.lr_schedule, hp.lr_schedule_kind)
        self.entropy_scheduler = scheduler(
            hp.entropy_coeff, hp.entropy_coeff_schedule, hp.entropy_coeff_schedule_kind
        )
        self.return_moments = RunningMoments(()).to(self.device)
        """Of the reversed discounted returns of all collects: their spread scales the rewards."""
        self.env_steps = 0
        """Transitions of all environments so far."""
        self._discounted = torch.zeros(hp.num_envs, device=self.device)
        self._buffered = False
        self._eval_collector: Collector | None = None

    @property
    def params(self) -> dict[str, str]:
        """The hyperparameters in use, all defaults resolved, as short texts by dotted name."""
        values = {name: value for name, value in vars(self.hparams).items() if not name.startswith("_")}
        values["model_cls"] = type(self.policy.model)
        values["model_config"] = self.policy.model.config
        values["distribution_cls"] = self.policy.distribution_cls
        defaults = self.learner.optimizer.defaults.items()
        values["optimizer_config"] = {k: float(v) if isinstance(v, torch.Tensor) else v for k, v in defaults}
        values["device"] = str(self.device)
        values["engine"] = self.engine
        values["algorithm"] = type(self).__name__
        values["env"] = getattr(self.env_cls, "__qualname__", repr(self.env_cls))
        del values["model"]
        return flatten(values)

    @property
    def engine(self) -> str:
        """How this algorithm computes: eager, kernels, compile, graph, or graph for a part of it."""
        replayed = [type(part) for part in self._recorded if part.recordings.reason is None]
        if len(replayed) == len(self._recorded):
            return "graph" if replayed else self.passes.name
        if Horizons in replayed or Steps in replayed:
            return f"graph ({'horizons' if Horizons in replayed else 'optimizer steps'} only)"
        return self.passes.name

    def collect(self, *, env_config: Config | None = None, deterministic: bool = False) -> Stats:
        """Simulate one horizon in all environments and keep it for `step`.

        Args:
            env_config: Options for the environment's next reset and those after it; None goes on as before.
            deterministic: Whether the policy acts without chance.

        Returns:
            Statistics of this horizon; `returns/…` are sums of rewards over it.

        Raises:
            EnvError: If the environment breaks its contract.
            NonFiniteError: If it returns NaN or infinity; the policy stays as it was.
        """
        start = time.perf_counter()
        self._absorb_observations()
        resets = self.collector.begin(env_config)
        with memory_advice(self.hparams, "collect"):
            stats = self.collector.run(deterministic=deterministic)
            if resets:
                self._discounted.zero_()
            self._sum_rewards()
        self._buffered = True
        env_steps = self.hparams.num_envs * self.hparams.horizon
        self.env_steps += env_steps
        return {
            **stats,
            data.ENV_RESETS: float(resets),
            data.ENV_STEPS: float(env_steps),
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
        lr, entropy_coeff = self.lr_scheduler(self.env_steps), self.entropy_scheduler(self.env_steps)
        with self.passes.threads(hp.num_envs * hp.horizon), memory_advice(hp, "step"):
            explained_variance = self._make_targets()
            sequences, total = self._sequences, len(self._sequences)
            size = total if hp.accumulate_grads else hp.minibatch_size(total)
            self.learner.begin(lr=lr, entropy_coeff=entropy_coeff)
            for _ in range(hp.num_sgd_iters):
                for index in minibatches(total, size, shuffle=hp.shuffle_minibatches, device=self.device):
                    if not self.learner.cancelled:
                        self.learner.step(sequences, index)
            self._absorb_observations()
            *losses, grad_norm, explained = self._summarize(explained_variance)
        return {
            **dict(zip(data.LOSS_STATS, losses, strict=True)),
            data.GRAD_NORM: grad_norm,
            data.EXPLAINED_VARIANCE: explained,
            "coefficients/lr": lr,
            "coefficients/entropy": entropy_coeff,
            "coefficients/vf": hp.vf_coeff,
            "profiling/step_ms": 1e3 * (time.perf_counter() - start),
        }

    def eval(self, *, env_config: Config | None = None, deterministic: bool = True) -> Stats:
        """Simulate one horizon in environments of its own; leaves training and its random numbers alone.

        Args:
            env_config: Options for the reset of those environments and later ones; None goes on as before.
            deterministic: Whether the policy acts without chance.

        Returns:
            The statistics `returns/…` and `rewards/…` of that horizon.

        Raises:
            EnvError, NonFiniteError: As `collect`.
        """
        with data.keep_random_state(self.device):
            if self._eval_collector is None:
                hp = self.hparams
                env = make_env(self.env_cls, hp.num_envs, hp.env_config, self.device)
                self._eval_collector = Collector(env, self.passes, hp)
            self._eval_collector.restart()
            self._eval_collector.begin(env_config)
            return self._eval_collector.run(deterministic=deterministic)

    def _resolve_horizon(self, hparams: Hparams) -> Hparams:
        """Return the hyperparameters as this environment and device allow them."""
        max_horizon = getattr(self.env, "max_horizon", None)
        horizon, resets = hparams.horizon, hparams.horizons_per_env_reset
        if max_horizon is not None:
            horizon = min(horizon, max_horizon)
            longest = max_horizon // horizon
            resets = longest if resets == -1 else min(resets, longest)
        resolved = replace(hparams, horizon=horizon, horizons_per_env_reset=resets)
        seq_len = resolved.sequence_length
        if horizon % seq_len:
            cap = f" (capped by {type(self.env).__name__}.max_horizon)" if horizon != hparams.horizon else ""
            raise HparamsError(f"seq_len is {seq_len}, expected a divisor of the horizon {horizon}{cap}")
        resolved.minibatch_size(resolved.num_envs * horizon // seq_len)
        return resolved

    def _sums(self) -> list[torch.Tensor]:
        return [self._discounted, *self.return_moments.buffers()]

    def _absorb_rewards(self) -> bool:
        """Take the horizon's rewards into the statistics that scale rewards; return True."""
        rewards = self.collector.buffer.rewards.squeeze(-1).T
        sums = ppo.reversed_discounted_returns(rewards, self._discounted, gamma=self.hparams.gamma)
        self.return_moments.update(sums)
        self._discounted.copy_(sums[:, -1])
        return True

    def _absorb_observations(self) -> None:
        """Release the horizon: take its observations into the policy's statistics, once it has been used.

        Not before: the update must see observations as the policy saw them while collecting.
        """
        if self._buffered and self.policy.normalizer is not None:
            self.policy.normalizer.update(self.collector.buffer.obs[:-1])
        self._buffered = False

    def _targets(self) -> torch.Tensor:
        """Put advantages and returns into the sequences; return how much of these the values explain, []."""
        hp = self.hparams
        buffer = self.collector.buffer
        rewards, values = buffer.rewards.squeeze(-1).T, buffer.values.squeeze(-1).T
        if hp.normalize_rewards:
            scale = self.return_moments.var.sqrt()
            rewards = rewards / torch.where(scale < 1e-6, 1.0, scale).to(rewards.dtype)
        advantages, returns = ppo.gae(rewards, values, gamma=hp.gamma, gae_lambda=hp.gae_lambda)
        explained_variance = ppo.explained_variance(values[:, :-1], returns)
        if hp.normalize_advantages:
            advantages = ppo.normalize(advantages)
        self._sequences.fill(advantages, returns)
        return explained_variance

    def _summarize(self, explained_variance: torch.Tensor) -> list[float]:
        """Read the update's statistics back, all at once: losses, gradient norm, explained variance."""
        records = self.learner.records()
        packed = torch.cat([records.flatten(), explained_variance.view(1).to(records.dtype)])
        *flat, explained = packed.tolist()
        width = len(StepRecord._fields)
        rows = [flat[i : i + width] for i in range(0, len(flat), width)]
        return [*self.learner.summarize([StepRecord(*row) for row in rows]), explained]


@final
class Algorithm(_PPO):
    """Proximal policy optimization of a feedforward policy.

    Args:
        env_cls: The environment's class, or any callable with the signature of `Env`.
        hyperparameters: Fields of `rlstack.hparams.Hparams`, by name.

    Raises:
        HparamsError: If a hyperparameter is unknown or can't be.
        EnvError: If the environment's specs can't be used.

    Example:
        >>> from rlstack.env import DiscreteDummyEnv
        >>> algorithm = Algorithm(DiscreteDummyEnv, num_envs=8, horizon=4)
        >>> algorithm.collect()["env/steps"]
        32.0
        >>> sorted(algorithm.step())[:2]
        ['coefficients/entropy', 'coefficients/lr']
    """

    hparams_cls = Hparams
    policy_cls = Policy


@final
class RecurrentAlgorithm(_PPO):
    """Proximal policy optimization of a recurrent policy, by truncated backpropagation through time.

    Args:
        env_cls: The environment's class, or any callable with the signature of `Env`.
        hyperparameters: Fields of `rlstack.hparams.RecurrentHparams`, by name.

    Raises:
        HparamsError: If a hyperparameter is unknown or can't be.
        EnvError: If the environment's specs can't be used.

    Example:
        >>> from rlstack.env import DiscreteDummyEnv
        >>> algorithm = RecurrentAlgorithm(DiscreteDummyEnv, num_envs=8, horizon=4, seq_len=2)
        >>> algorithm.collect()["env/steps"]
        32.0
    """

    hparams_cls = RecurrentHparams
    policy_cls = RecurrentPolicy
