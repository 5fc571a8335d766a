"""One horizon after the other from an environment: when to reset, what to keep, what to say of it."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from ..common.device import reads_wait
from ..common.metrics import read_back, reward_stats
from ..common.serialization import copy_into, detached, tensors_of
from ..common.types import Batch, Config, Stats
from ..env.base import checked_reset, checked_step
from ..env.ending import Ending, check_keys, without_final_obs
from ..env.optional import env_metrics, env_state, load_env_state
from ..env.spec_watch import SpecWatch
from ..hparams import Hparams, RecurrentHparams
from ..specs import num_rows
from .advantages import RewardMoments
from .backend import Backend
from .episodes import Episodes, without_none
from .faults import cause_of, horizon_error
from .pooling import Pool
from .resets import Resets
from .reward_watch import RewardWatch
from .rollout_buffer import RolloutBuffer

_log = logging.getLogger(__name__)

_IS_SOUND = "is_sound"


class Collector:
    """Fills a buffer of its own with the horizons of one environment.

    Args:
        env: The environment.
        backend: Of the policy that acts in it.
        hparams: How long a horizon is, and when to reset what.
        notes: Whether to log what the environment returns in vain.
    """

    buffer: RolloutBuffer
    """The last horizon."""

    def __init__(self, env: Any, backend: Backend, hparams: Hparams, *, notes: bool = True) -> None:
        self.env, self.backend, self.policy, self.hparams = env, backend, backend.policy, hparams
        self._specs = SpecWatch(env)
        self.notice: Callable[[str], object] | None = _log.warning if notes else None
        """Takes what is to be said of the first step; None afterwards."""
        self.pool: Pool | None = None
        """Makes the numbers of a horizon those of all ranks', where there are several."""
        self._resets = Resets(env, hparams)
        self._seqs_per_state_reset = -1
        if isinstance(hparams, RecurrentHparams):
            self._seqs_per_state_reset = hparams.seqs_per_state_reset
        hp = hparams
        self.buffer = RolloutBuffer(
            self.policy.observation_spec,
            self.policy.drawn_example(),
            self.policy.state_spec,
            num_envs=hp.num_envs,
            horizon=hp.horizon,
            seq_len=hp.sequence_length,
            device=self.policy.device,
            action_mask=self.policy.action_mask,
        )
        self._state = self.policy.initial_state(hp.num_envs)
        """[B, ...]. Recurrent state before the next step; None if feedforward. It stays where it is."""
        self._rewards = RewardWatch(self.buffer, type(env).__name__)
        self._reads_wait = reads_wait(self.policy.device)
        self._episodes = Episodes(hp.num_envs, self.policy.device)
        self._ending_keys: tuple[str, ...] | None = None
        """What the environment says of endings; None before its first step."""
        self.restart()

    def restart(self) -> None:
        """Let the next horizon begin with a reset."""
        self._sequences = 0
        self._resets.since = 0
        self._episodes.begin()
        if self._state is not None:
            self._state.zero_()

    @property
    def sequences_key(self) -> int:
        """How many sequences the recurrent state has lasted, as far as that decides when it is reset."""
        return self._sequences if self._seqs_per_state_reset > 0 else 0

    @property
    def is_last(self) -> bool:
        """Whether the environments are reset after the horizon at hand."""
        return self._resets.is_due(self._resets.since)

    @property
    def env_config(self) -> Config | None:
        """The environment's options that were asked for last; None are those it was made with."""
        return self._resets.config

    def tensors(self) -> list[Tensor]:
        """Return all that a rollout changes, the environment's tensors excepted."""
        return [*self.buffer.tensors(), *tensors_of(self._state)]

    def state_dict(self) -> dict[str, Any]:
        """Return what the next horizon needs of those before it.

        Raises:
            EnvError: If the environment can't say its state.
        """
        return {
            "obs": self.buffer.obs[-1],
            "recurrent": self._state,
            "sequences": self._sequences,
            "horizons_since_reset": self._resets.since,
            "horizon": self.buffer.horizon,
            "env_config": detached(self.env_config),
            "env": env_state(self.env) if self._resets.has_state else None,
            **({"episodes": self._episodes.state_dict()} if self._episodes.begun else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; without the environment's own state, begin with a reset.

        Without observations it is of any number of environments.

        Raises:
            EnvError: If the environment can't take over its state.
        """
        self.restart()
        if state["obs"] is None:
            self._resets.config = state["env_config"]
            return
        self._resets.load(state["env_config"])
        if state["env"] is not None:
            load_env_state(self.env, state["env"])
            self._resets.has_state = True
        elif state["horizons_since_reset"] and not self._resets.is_due(state["horizons_since_reset"]):
            _log.warning(
                "%s has no state_dict and load_state_dict: it is reset, and won't go on as it would have",
                type(self.env).__name__,
            )
            return
        self._sequences = state["sequences"]
        # In horizons of now, begun ones as whole: the environment's `max_horizon` must hold.
        steps = state["horizons_since_reset"] * state.get("horizon", self.buffer.horizon)
        self._resets.since = -(-steps // self.buffer.horizon)
        copy_into(state["obs"], self.buffer.obs[-1])
        if "episodes" in state:
            self._episodes.load_state_dict(state["episodes"])
        if self._state is not None:
            copy_into(state["recurrent"], self._state)

    def begin(self, env_config: Config | None) -> int:
        """Get the first observations of a horizon; return how many environments were reset for it.

        Args:
            env_config: Options from the next reset on, or at once with `set_config`; None goes on as before.

        Raises:
            EnvError: If the observations don't fit their spec, the specs have changed, or options can't.
        """
        self._specs.check()
        if self._resets.go_on(env_config):
            self.buffer.go_on()
            return 0
        self.restart()
        num_envs, config, spec = (
            self.buffer.num_envs,
            self._resets.asked(env_config),
            self._specs.observation_spec,
        )
        self.buffer.obs[0] = checked_reset(self.env, num_envs, config, self.policy.device, spec=spec)
        self._specs.check()
        self._resets.reset(config)
        return num_envs

    def run(
        self,
        rollout: Callable[..., None],
        *,
        deterministic: bool,
        sums: Callable[[], RewardMoments[Tensor]] | None = None,
    ) -> Stats:
        """Simulate the horizon that was begun, and return its `returns/…`, `rewards/…` and `env/…`.

        Args:
            rollout: This collector's `rollout`, or what does the same.
            deterministic: Whether the policy acts without chance.
            sums: Returns what the statistics that scale rewards would become, as
                `AdvantageEstimator.sum_rewards`.

        Raises:
            EnvError: If the environment breaks its contract.
            NonFiniteError: If it or the policy returns NaN or infinity, or those statistics leave float32.
        """
        name, error = type(self.env).__name__, None
        try:
            rollout(deterministic=deterministic)
            self._sequences = self._count_sequences(self.buffer.horizon // self.buffer.seq_len)
            stats = reward_stats(self.buffer.rewards.to(torch.float64), self.buffer.valid)
            if (endings := self.buffer.endings) is not None:
                flags = endings.episode_ended, endings.cut, endings.valid
                stats |= self._episodes.take(self.buffer.rewards, *flags)
            stats |= env_metrics(self.env, self.policy.device)
            moments = sums()._asdict() if sums else {}
            more = {} if self.pool is None else self.pool.unread()
            read = read_back({**stats, **moments, **more, _IS_SOUND: self.buffer.is_sound()})
            if not read[_IS_SOUND] and (error := horizon_error(self.buffer, name)):
                raise error
            whole = read if self.pool is None else self.pool(read)
            if moments:
                found = RewardMoments(**{name: whole[name] for name in moments})
                self._rewards.look(read["rewards/min"], read["rewards/max"], found)
        except BaseException as fault:
            cause = None if fault is error else cause_of(fault, self.buffer, name)
            # Half a horizon is worth nothing, and the environment may be in any state: begin anew.
            self.buffer.clear()
            self.restart()
            if self.pool is not None:
                self.pool.failed(cause or fault)
            if cause is not None:
                raise cause from fault
            raise
        return without_none(
            {name: value for name, value in whole.items() if name not in {*moments, *more, _IS_SOUND}}
        )

    def _count_sequences(self, more: int) -> int:
        """Return how many sequences the recurrent state will have lasted after so many more."""
        sequences, most = self._sequences, self._seqs_per_state_reset
        return sequences + more if most < 1 else (sequences + more - 1) % most + 1

    @torch.no_grad()
    def rollout(self, *, deterministic: bool) -> None:
        """Fill the buffer from its first observations on, step by step."""
        buffer, policy, state, spec = self.buffer, self.policy, self._state, self._specs.observation_spec
        device = policy.device
        self.backend.prepare()
        for t in range(buffer.horizon):
            if buffer.states is not None and t % buffer.seq_len == 0:
                number = t // buffer.seq_len
                if self._count_sequences(number) == self._seqs_per_state_reset:
                    state = policy.initial_state(buffer.num_envs)
                buffer.states[number] = state
            with self.backend.threads(buffer.num_envs):
                said = self.backend.act(buffer.obs[t], state, deterministic=deterministic)
                buffer.drawn[t], buffer.logp[t], state = said.drawn, said.logp, said.state
                if said.values is not None:
                    buffer.values[t] = said.values
            obs, rewards, ending = checked_step(
                self.env, buffer.num_envs, said.actions, t, device, spec=spec, notice=self.notice
            )
            if ending is not None or self._ending_keys != ():
                state = self._end(t, ending, state)
            self.notice = None
            # Copies: the environment may go on writing into what it returned.
            buffer.obs[t + 1] = obs
            buffer.rewards[t] = rewards
        if buffer.endings is not None:
            buffer.endings.evaluate(self._evaluate)
        if self.backend.values_apart:
            buffer.values.copy_(self._evaluate(buffer.obs.flatten(0, 1), None).view_as(buffer.values))
        else:
            # Its next state counts for nothing: the step is taken again if the environment goes on.
            buffer.values[-1] = self._evaluate(buffer.obs[-1], state)
        if self._state is not None:
            self._state.update_(state)

    def _end(self, t: int, ending: Ending | None, state: TensorDict | None) -> TensorDict | None:
        """Note what ends with step t; return the recurrent state before the next one.

        Raises:
            EnvError: If the environment says other things of endings than in its first step.
        """
        buffer = self.buffer
        if self._ending_keys is None:
            self._ending_keys = () if ending is None else ending.keys
        if buffer.endings is None and ending is not None and self._ending_keys:
            buffer.add_endings(ending.keys, waits=self._reads_wait)
            if self.notice is not None and (said := without_final_obs(ending, type(self.env).__name__)):
                self.notice(said)
        where = f"{type(self.env).__name__}.step (step {t} of the horizon)"
        check_keys(ending, self._ending_keys or (), where)
        if ending is None or buffer.endings is None:
            return state
        if t == 0:
            buffer.endings.begin()

        def values() -> Tensor:
            return self._evaluate(buffer.obs[t], None) if self.backend.values_apart else buffer.values[t]

        return buffer.endings.take(t, ending, state, values, self._evaluate)

    def _evaluate(self, obs: Batch, state: TensorDict | None) -> Tensor:
        """Return the values [N, 1] of observations [N, ...] and recurrent states [N, ...]."""
        with self.backend.threads(num_rows(obs)):
            return self.backend.values(obs, state)
