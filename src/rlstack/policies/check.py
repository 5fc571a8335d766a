"""Makes a policy and tries it, so that a model or distribution at fault is named before training begins."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .. import specs
from ..common.random_state import keep_random_state
from ..common.serialization import is_dense
from ..common.types import LOGITS, Batch, PolicyStep
from ..export.tensors import random_obs
from ..models.keys import left_out
from .policy import Policy, RecurrentPolicy

_ROWS = 2


def check_policy(policy: Policy | RecurrentPolicy) -> None:
    """Check the model's layers, run it and the distribution on zeros and at random, check what they return.

    Leaves random states, and the model's buffers, as they were.

    Raises:
        TypeError, ValueError: If something is not as it must be, with what to change.
    """
    _check_layers(policy.model)
    _check_parameters(policy.model)
    device = policy.device
    obs = specs.zeros(policy.observation_spec, (_ROWS,), device)
    with keep_random_state(device), torch.no_grad(), _buffers_kept(policy):
        problem = next(_problems(policy, obs), None)
        if problem:
            raise ValueError(f"{problem} (tried with {_ROWS} rows of zeros)")
        obs = random_obs(policy.observation_spec, _ROWS, device)
        if problem := next(chain(_differences(policy, obs), _needs(policy, obs)), None):
            raise ValueError(f"{problem} (tried with {_ROWS} random rows)")


def _check_layers(model: nn.Module) -> None:
    """Refuse layers under which one row's result depends on other rows, or on chance.

    Raises:
        TypeError: If there is one, with what to use instead.
    """
    for name, layer in model.named_modules():
        place = f"model.{name} is a {type(layer).__name__}"
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise TypeError(f"{place}, which mixes the rows of a minibatch: use LayerNorm")
        drops = isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0
        if drops or (isinstance(layer, nn.RNNBase) and layer.dropout > 0):
            raise TypeError(
                f"{place} that drops out: chance would change the policy between collect and update"
            )


def _check_parameters(model: nn.Module) -> None:
    """Refuse parameters without a size, and those with gaps or repeats in memory.

    Fused optimizers would write beyond the elements of the latter.

    Raises:
        TypeError: If there is one, with what to do.
    """
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise TypeError(
                f"model.{name} has no size yet, as those of lazy layers before they are first run: give the "
                "layer its sizes, or run the model once when it is made"
            )
        if not is_dense(parameter):
            raise TypeError(
                f"model.{name} is a view with gaps or repeats in memory, or sparse, which can't be trained: "
                "make it from a dense copy, nn.Parameter(value.clone(memory_format=torch.contiguous_format))"
            )


def _problems(policy: Policy | RecurrentPolicy, obs: Batch) -> Iterator[str]:
    """Yield what is wrong, in an order in which each step relies on those before."""
    model, distribution = type(policy.model).__name__, policy.distribution_cls.__name__
    state = policy.initial_state(_ROWS)
    names, batch = ["features", "values"], [_ROWS]
    with _raising(policy):
        outputs = policy.model(obs) if state is None else policy.model(obs.unsqueeze(1), state)
    if state is not None:
        names, batch = [*names, "state"], [_ROWS, 1]
    if not isinstance(outputs, tuple) or len(outputs) != len(names):
        yield f"{model}.forward returned {specs.describe(outputs)}, expected ({', '.join(names)})"
        return
    features, values, *_ = outputs
    if not isinstance(features, TensorDict) or list(features.batch_size) != batch:
        got = specs.describe(features)
        yield f"features of {model} is {got}, expected a TensorDict with batch_size={batch}"
        return
    yield from _wrong_shape(f"values of {model}", values, [*batch, 1])
    if policy.action_mask is not None:
        expected = [*batch, *policy.action_mask.shape]
        yield from _wrong_shape(f"the feature {LOGITS} of {model}", features.get(LOGITS), expected)
    if policy.state_spec is not None:
        problem = specs.mismatch(outputs[2], policy.state_spec, _ROWS, f"state of {model}")
        if problem:
            yield problem
    step = _step(policy, obs, state)
    drawn, spec = step.drawn, policy.action_spec
    if isinstance(drawn, Tensor) and not torch.can_cast(drawn.dtype, spec.dtype):
        yield f"a sample of {distribution} has dtype {drawn.dtype}, which {spec.dtype} actions can't hold"
        return
    if problem := specs.mismatch(step.actions, spec, _ROWS, f"a sample of {distribution}"):
        yield problem
        return
    taken = policy.evaluate(obs.unsqueeze(1), drawn, state)
    yield from _wrong_shape(f"logp of {distribution}", step.logp, [_ROWS, 1])
    yield from _wrong_shape(f"entropy of {distribution}", taken.entropy, [_ROWS, 1])


def _differences(policy: Policy | RecurrentPolicy, obs: Batch) -> Iterator[str]:
    """Yield how the model's results for the same observations differ where they must not."""
    model, state = type(policy.model).__name__, policy.initial_state(_ROWS)
    training = {layer: layer.training for layer in policy.modules()}
    first = _results(policy, obs, state)
    again = _results(policy, obs, state)
    try:
        policy.eval()
        evaluating = _results(policy, obs, state)
    finally:
        for layer, mode in training.items():
            layer.training = mode
    # Beside itself, not alone: some layers refuse a single row.
    twins = [_results(policy, obs[[row] * _ROWS], state) for row in range(_ROWS)]
    apart = {name: torch.stack([twin[name][row] for row, twin in enumerate(twins)]) for name in first}
    policy_moves = "the policy would change between collect and update"
    for others, when, why in (
        (again, "when it is run again", f"chance or a counter in it is not allowed: {policy_moves}"),
        (evaluating, "after eval()", f"a layer acts differently while training: {policy_moves}"),
        (apart, "beside other rows", "it mixes the rows of a minibatch, which may be any: keep them apart"),
    ):
        for name, value in first.items():
            if not _is_close(value, others[name]):
                # What is masked is the same infinity in both.
                most = (value - others[name]).abs().nan_to_num(0.0).max().item()
                yield f"{name} of {model} differs by up to {most:.3g} {when}: {why}"


def _results(policy: Policy | RecurrentPolicy, obs: Batch, state: TensorDict | None) -> dict[str, Tensor]:
    """Return what the model says of observations [B, ...], each part by its name."""
    with _raising(policy):
        features, values, state = policy.forward_step(obs, state)
    found = {f"the feature {name}": part for name, part in specs.named(features)}
    if state is not None:
        found |= {f"the state {name}": part for name, part in specs.named(state)}
    return {**found, "the value": values}


def _needs(policy: Policy | RecurrentPolicy, obs: Any) -> Iterator[str]:
    """Yield how acting on what `policy_keys` name alone is not the same as acting on everything.

    It takes two steps: what a memory has kept shows in the second one.
    """
    others = list(left_out(policy.observation_spec, policy.acting_spec))
    if not others:
        return
    model, known = type(policy.model).__name__, obs.exclude(*others)
    if problem := _wrong_features(policy, known):
        yield problem
        return
    state = acting = policy.initial_state(_ROWS)
    for _ in range(2):
        with _raising(policy):
            features, _, state = policy.forward_step(obs, state)
        with _raising(policy, "policy_features"):
            found, _, acting = policy.acting_step(known, acting)
        mine, theirs = dict(specs.named(features)), dict(specs.named(found))
        if mine.keys() != theirs.keys():
            yield f"policy_features of {model} returned {sorted(theirs)}, forward returned {sorted(mine)}"
            return
        for name, value in mine.items():
            if value.shape != theirs[name].shape or not _is_close(value, theirs[name]):
                yield (
                    f"the feature {name} of {model} isn't the same from policy_features, which knows only "
                    f"policy_keys: let {model}.forward make features from nothing else, and in the same way"
                )


def _wrong_features(policy: Policy | RecurrentPolicy, known: Any) -> str | None:
    """Return in one sentence what is wrong with the form of what `policy_features` returns."""
    name, state = f"policy_features of {type(policy.model).__name__}", policy.initial_state(_ROWS)
    with _raising(policy, "policy_features"):
        if state is None:
            outputs, batch, expected = policy.model.policy_features(known), [_ROWS], "features"
        else:
            outputs = policy.model.policy_features(known.unsqueeze(1), state)
            batch, expected = [_ROWS, 1], "(features, state)"
    features, *states = outputs if isinstance(outputs, tuple) else (outputs,)
    if len(states) != (state is not None):
        return f"{name} returned {specs.describe(outputs)}, expected {expected}"
    if not isinstance(features, TensorDict) or list(features.batch_size) != batch:
        got = specs.describe(features)
        return f"features from {name} is {got}, expected a TensorDict with batch_size={batch}"
    problems = (specs.mismatch(each, policy.state_spec, _ROWS, f"state from {name}") for each in states)
    return next((problem for problem in problems if problem), None)


@contextmanager
def _raising(policy: Policy | RecurrentPolicy, method: str = "forward") -> Iterator[None]:
    """Say of whatever the model raises that it does."""
    try:
        yield
    except Exception as error:
        said = f"{type(policy.model).__name__}.{method} raised {type(error).__name__}: {error}"
        raise ValueError(f"{said} (in the trial before training)") from error


def _is_close(one: Tensor, other: Tensor) -> bool:
    """Return whether numbers are the same but for rounding."""
    if one.dtype.is_floating_point:
        return torch.allclose(one, other, rtol=1e-3, atol=1e-4, equal_nan=True)
    return torch.equal(one, other)


@contextmanager
def _buffers_kept(policy: Policy | RecurrentPolicy) -> Iterator[None]:
    """Put the buffers back afterwards: some layers count or average while training."""
    before = [(buffer, buffer.clone()) for buffer in policy.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def _step(policy: Policy | RecurrentPolicy, obs: Batch, state: TensorDict | None) -> PolicyStep:
    try:
        return policy.sample(obs, state)
    except KeyError as error:
        model, distribution = type(policy.model).__name__, policy.distribution_cls.__name__
        raise ValueError(
            f"{distribution} misses a feature, {error.args[0]}: let {model} return it"
        ) from error


def _wrong_shape(name: str, value: object, shape: list[int]) -> Iterator[str]:
    if isinstance(value, Tensor) and (problem := specs.not_dense(value, name)):
        yield problem
    elif not isinstance(value, Tensor) or list(value.shape) != shape:
        yield f"{name} is {specs.describe(value)}, expected a tensor of shape {shape}"
