"""Acting on one observation at a time, as on a robot: recorded, as most time goes to what is around it."""

import sys
import warnings
from operator import is_
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from .. import specs
from ..common.random_state import keep_random_state
from ..common.types import Batch, PolicyStep
from ..distributions import OWN
from ..export.tensors import apart, together

_CALLS_BEFORE = 8
"""How many calls are run as they are: recording takes as long as a hundred of them."""

_WATCHED = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
"""What layers keep in dictionaries, and a recording has for good."""

_KNOWN = ("torch.nn.modules.", f"{__name__.partition('.')[0]}.")
"""Where layers are defined that do the same operations each time."""


@final
class SingleRow:
    """Recordings of what a policy does with one observation, in TorchScript: the same operations and bits.

    Of rlstack's own models and distributions on a CPU. A policy that isn't any more what it was is recorded
    anew, or not at all.
    """

    def __init__(self) -> None:
        self._calls, self._size, self._usable = 0, 0, False
        self._form: Any = None
        self._recorded: dict[tuple[bool, bool], Any] = {}
        self._dicts: list[dict[str, Any]] = []
        self._filled: list[dict[str, Any]] = []
        self._objects: list[Any] = []

    def __reduce__(self) -> Any:
        """Begin without recordings in copies of a policy, and where it is read from a file."""
        return SingleRow, ()

    def act(
        self, policy: Any, obs: Batch, spec: specs.TensorSpec, state: Any, *, deterministic: bool
    ) -> PolicyStep | None:
        """Return what `policy.sample` does with one observation; None where that must be run.

        Args:
            policy: Always the same one.
            obs: [1, ...].
            spec: Of the observation: all of it, or what acting needs.
            state: [1, ...]. None if feedforward.
            deterministic: As of `act`.
        """
        self._calls += 1
        if self._calls <= _CALLS_BEFORE or not self._is_usable(policy):
            return None
        inputs = [obs] if isinstance(obs, Tensor) else apart(spec, obs)
        if state is not None:
            inputs += apart(policy.state_spec, state)
        if not inputs[0].is_cpu:
            # Moved to a GPU, parameters stay the same objects.
            return None
        which = deterministic, spec is policy.observation_spec
        with torch.no_grad():
            if which not in self._recorded:
                self._recorded[which] = _record(policy, spec, inputs, deterministic=deterministic)
            actions, logp, drawn, *others = self._recorded[which](*inputs)
        values = others.pop(0) if which[1] else None
        after = None if state is None else together(policy.state_spec, others, 1)
        return PolicyStep(actions, logp, values, after, drawn)

    def _is_usable(self, policy: Any) -> bool:
        """Return whether the policy can be recorded; forgets the recordings if it isn't what it was."""
        if torch.compiler.is_compiling() or _has_any_global_hook() or torch.is_autocast_enabled("cpu"):
            return False
        form = policy.distribution_cls, policy._clips, torch.get_default_dtype()
        if form != self._form or sum(map(len, self._dicts)) != self._size or not self._are_same():
            self._recorded.clear()
            layers = [vars(layer) for layer in policy.modules()]
            watched = [own[name] for own in layers for name in _WATCHED if name in own]
            self._dicts, self._filled = [*layers, *watched], [each for each in watched if each]
            self._form, self._size, self._objects = form, sum(map(len, self._dicts)), self._found()
            self._usable = _can_be_recorded(policy)
        return self._usable

    def _are_same(self) -> bool:
        """Return whether layers, parameters and buffers are the same ones; what is in them may differ."""
        return all(map(is_, self._found(), self._objects))

    def _found(self) -> list[Any]:
        return [value for each in self._filled for value in each.values()]


def _can_be_recorded(policy: Any) -> bool:
    layers = list(policy.modules())
    return (
        # TorchScript is deprecated, and gone from there on.
        sys.version_info < (3, 14)
        and type(policy.model) in policy.default_models
        and policy.distribution_cls in OWN
        and all(type(layer).__module__.startswith(_KNOWN) for layer in layers)
        and not any(_is_own(vars(layer)) for layer in layers)
        and all(value.is_cpu for value in (*policy.parameters(), *policy.buffers()))
    )


def _is_own(layer: dict[str, Any]) -> bool:
    """Return whether a layer of such attributes runs its user's code, or compiled code, when it is called."""
    if layer["_forward_hooks"] or layer["_forward_pre_hooks"]:
        return True
    return "forward" in layer or "_compiled_call_impl" in layer


class _Step(nn.Module):
    """What a policy does, tensors in and tensors out."""

    def __init__(self, policy: Any, spec: specs.TensorSpec, *, deterministic: bool) -> None:
        super().__init__()
        self.policy, self.spec, self.deterministic = policy, spec, deterministic

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        policy = self.policy
        count = len(list(specs.leaves(self.spec)))
        obs, state = together(self.spec, inputs[:count], 1), None
        if policy.state_spec is not None:
            state = together(policy.state_spec, inputs[count:], 1)
        actions, logp, values, state, drawn = policy.sample(obs, state, deterministic=self.deterministic)
        outputs = [actions, logp, drawn]
        if values is not None:
            outputs.append(values)
        if state is not None:
            outputs += apart(policy.state_spec, state)
        return tuple(outputs)


def _record(policy: Any, spec: specs.TensorSpec, inputs: list[Tensor], *, deterministic: bool) -> Any:
    """Return a function of tensors that does what the policy does."""
    with warnings.catch_warnings(), keep_random_state(policy.device):
        # Of the deprecation, and of comparisons of shapes, which are always the same.
        warnings.simplefilter("ignore")
        step = _Step(policy, spec, deterministic=deterministic)
        recorded: Any = torch.jit.trace(step, tuple(inputs), check_trace=False)
    return recorded.forward
