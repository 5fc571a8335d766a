"""What feedforward and recurrent policies share: acting and evaluating."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeGuard

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from .. import distributions, specs
from ..common.random_state import keep_random_state
from ..common.serialization import detached
from ..common.types import Batch, Evaluation, PolicyStep
from ..distributions import Distribution, check_bounds, default_distribution
from ..models import heads
from ..models.keys import has, left_out, select
from ..models.masks import ActionMask, mask_logits
from . import file
from .memory import Breaks
from .normalization import ObservationNormalizer
from .single import SingleRow


class PolicyBase(nn.Module, ABC):
    """A model and an action distribution; feedforward is recurrence with no state and sequences of 1."""

    model_base: ClassVar[type[nn.Module]]
    default_models: ClassVar[tuple[type[nn.Module], type[nn.Module]]]
    """For discrete and for continuous actions."""
    _low: Tensor
    _high: Tensor

    def __init__(
        self,
        model: nn.Module,
        distribution_cls: type[Distribution] | None = None,
        *,
        normalize_observations: bool = False,
        clip_actions: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(model, self.model_base):
            advice = f"derive it from that, {type(self).__name__} takes no other"
            if file.uncompiled(model) is not model:
                advice = 'hand over the model itself; engine="compile" compiles it while training'
            raise TypeError(
                f"model is a {type(model).__name__}, expected a {self.model_base.__name__}: {advice}"
            )
        if not hasattr(model, "action_spec"):
            cls = type(model).__name__
            raise TypeError(f"{cls} has no specs: call super().__init__(observation_spec, action_spec) in it")
        if distribution_cls is not None and not issubclass(distribution_cls, Distribution):
            raise TypeError(
                f"distribution_cls is {distribution_cls}, expected a Distribution: derive it from that"
            )
        self.model: Any = model
        self.observation_spec: Any = self.model.observation_spec
        self.action_spec: Any = self.model.action_spec
        specs.check_spec(self.observation_spec, "observation_spec")
        specs.check_spec(self.action_spec, "action_spec")
        keys: Any = self.model.policy_keys
        key: Any = self.model.action_mask_key
        if keys is not None and key is not None:
            keys = [*keys, key]
        self.acting_spec: Any = select(self.observation_spec, keys, f"{type(model).__name__}.policy_keys")
        """Of what acting needs of the observations: all, or what the model's `policy_keys` name."""
        self._for_values = list(left_out(self.observation_spec, self.acting_spec))
        self.distribution_cls = distribution_cls or default_distribution(self.action_spec)
        self.action_mask: ActionMask | None = None
        """Which actions observations allow; None where all are."""
        if key is not None:
            self.action_mask = ActionMask(key, self.observation_spec, self.action_spec)
        self.normalizer = ObservationNormalizer(self.observation_spec) if normalize_observations else None
        self._single = SingleRow()
        self.clip_actions(clip_actions)
        file.name_as_uncompiled(self)

    def clip_actions(self, clip: bool, /) -> None:
        """Say whether a Normal on bounds is clipped and mapped onto them; others always are what they are."""
        bounded = isinstance(self.action_spec, specs.Bounded)
        self._may_clip = bounded and self.distribution_cls is distributions.Normal
        self._clips = clip or not self._may_clip
        self._bounded = bounded and self.distribution_cls.squashed and self._clips
        if self._bounded and not hasattr(self, "_low"):
            check_bounds(self.action_spec)
            for name, bound in (("_low", self.action_spec.space.low), ("_high", self.action_spec.space.high)):
                self.register_buffer(name, bound.to(self.device), persistent=False)

    @classmethod
    def default_model_cls(cls, action_spec: specs.TensorSpec) -> type[nn.Module]:
        """Return the class of the default model for an action spec.

        Raises:
            TypeError: If there is none for it.
        """
        default_distribution(action_spec)
        discrete, continuous = cls.default_models
        return discrete if heads.is_discrete(action_spec) else continuous

    def act(self, obs: Batch, state: TensorDict | None = None, *, deterministic: bool = False) -> PolicyStep:
        """Return actions as the environment takes them; this is how a trained policy is used.

        Args:
            obs: [B, ...]. Observations, as the environment returns them; what isn't in `acting_spec` may be
                absent, and there are no values then.
            state: [B, ...]. What the last call returned; None at the start of an episode.
            deterministic: Whether to take the distribution's deterministic sample instead of a random one.

        Raises:
            ValueError: If the observations don't fit `observation_spec`, or `acting_spec`.
        """
        num_rows, state_spec, spec = specs.num_rows(obs), self.state_spec, self.observation_spec
        if self._lacks_values(obs):
            spec, obs = self.acting_spec, obs.exclude(*(path for path in self._for_values if has(obs, path)))
        if problem := specs.mismatch(obs, spec, num_rows, "obs"):
            raise ValueError(specs.single(obs, spec, "obs") or problem)
        if state is None:
            state = self.initial_state(num_rows)
        elif state_spec is not None and (problem := specs.mismatch(state, state_spec, num_rows, "state")):
            raise ValueError(problem)
        step = None
        if num_rows == 1:
            step = self._single.act(self, obs, spec, state, deterministic=deterministic)
        return step or self.sample(obs, state, deterministic=deterministic)

    @torch.no_grad()
    def sample(self, obs: Batch, state: TensorDict | None, *, deterministic: bool = False) -> PolicyStep:
        """Return what `act` does, unchecked."""
        features, values, state = self.acting_step(obs, state)
        drawn, logp, actions = self.draw(features, deterministic=deterministic)
        return PolicyStep(*detached((actions, logp, values, state, drawn)))

    def forward_step(
        self, obs: Batch, state: TensorDict | None
    ) -> tuple[TensorDict, Tensor, TensorDict | None]:
        """Return features [B, ...], values [B, 1] and the next state for observations [B, ...]."""
        features, values, state = self._step(self.normalize(obs), state)
        return self.allow(features, obs), values, state

    def acting_step(
        self, obs: Batch, state: TensorDict | None
    ) -> tuple[TensorDict, Tensor | None, TensorDict | None]:
        """Return what `forward_step` does; no values where observations lack what only those need."""
        if not self._lacks_values(obs):
            return self.forward_step(obs, state)
        known = obs if self.normalizer is None else self.normalizer(obs, self.acting_spec)
        features, state = self._features(known, state)
        return self.allow(features, obs), None, state

    def _lacks_values(self, obs: Batch) -> TypeGuard[TensorDict]:
        """Return whether observations lack something that only values need."""
        return isinstance(obs, TensorDict) and not all(has(obs, path) for path in self._for_values)

    def draw(self, features: TensorDict, *, deterministic: bool = False) -> tuple[Any, Tensor, Any]:
        """Return what is drawn [B, *A], its log-probability [B, 1], and the actions it makes [B, *A]."""
        distribution = self.distribution_cls(features, self.model)
        drawn = distribution.deterministic_sample() if deterministic else distribution.sample()
        return drawn, distribution.logp(drawn), self.actions_of(drawn, distribution)

    def drawn_example(self) -> Any:
        """Return what is drawn for two observations of zeros, [2, *A]; leaves random states as they were."""
        obs = specs.zeros(self.observation_spec, (2,), self.device)
        with keep_random_state(self.device):
            return self.sample(obs, self.initial_state(2)).drawn

    def evaluate(
        self, obs: Batch, drawn: Batch, state: TensorDict | None, breaks: Breaks | None = None
    ) -> Evaluation:
        """Return log-probabilities, values and entropy of what was drawn, with gradients.

        Args:
            obs: [N, L, ...]. Sequences of observations; L is 1 for a feedforward policy.
            drawn: [N · L, *A]. As `act` returned it.
            state: [N, ...]. State before the first step of each sequence; None if feedforward.
            breaks: Where the state begins anew within the sequences; None if it doesn't.
        """
        features, values = self._sequences(self.normalize(obs), state, breaks)
        if self.action_mask is not None:
            features = self.allow(features, obs.flatten(0, 1))
        distribution = self.distribution_cls(features, self.model)
        return Evaluation(distribution.logp(drawn), values, distribution.entropy())

    def actions_of(self, drawn: Any, distribution: Distribution) -> Any:
        """Return the actions [B, *A] that are made of what a distribution drew, [B, *A]."""
        return self.to_env(distribution.to_env(drawn) if self._clips else drawn)

    def to_env(self, samples: Batch) -> Batch:
        """Return what the distribution's `to_env` did, [B, *A], in units and dtype of the action spec."""
        if not isinstance(samples, Tensor):
            return samples
        if self._bounded:
            share = 0.5 * (samples + 1)
            samples = (1 - share) * self._low + share * self._high
        return samples.to(self.action_spec.dtype)

    @property
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """What -1 and 1 are in units of the action spec, [*A] each; None if samples stay what they are."""
        return (self._low, self._high) if self._bounded else None

    @property
    @abstractmethod
    def state_spec(self) -> specs.Composite | None:
        """Recurrent state of one environment; None if feedforward."""

    @abstractmethod
    def initial_state(self, num_envs: int) -> TensorDict | None:
        """Return the state at the start of an episode, [num_envs, ...]; None if feedforward."""

    @abstractmethod
    def _step(self, obs: Batch, state: TensorDict | None) -> tuple[TensorDict, Tensor, TensorDict | None]:
        """Return what `forward_step` does, for normalized observations."""

    @abstractmethod
    def _features(self, obs: Batch, state: TensorDict | None) -> tuple[TensorDict, TensorDict | None]:
        """Return features [B, ...] and the next state for normalized observations of `acting_spec`."""

    @abstractmethod
    def _sequences(
        self, obs: Batch, state: TensorDict | None, breaks: Breaks | None
    ) -> tuple[TensorDict, Tensor]:
        """Return features [N · L, ...] and values [N · L, 1] for observations [N, L, ...]."""

    def allow(self, features: TensorDict, obs: Batch) -> TensorDict:
        """Return features [N, ...] that give what observations [N, ...] forbid a probability of 0."""
        if self.action_mask is None:
            return features
        return mask_logits(features, self.action_mask.allowed(obs))

    def normalize(self, obs: Batch) -> Batch:
        """Return observations as the model takes them."""
        return obs if self.normalizer is None else self.normalizer(obs)

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are; the CPU if it has none."""
        return next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
