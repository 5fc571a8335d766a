"""Tries a policy once, so that a model or distribution at fault is named before training begins."""

from collections.abc import Iterator

import torch
from tensordict import TensorDict
from torch import Tensor

from . import specs
from .data import Batch
from .policies import Policy, RecurrentPolicy

_ROWS = 2


def check_policy(policy: Policy | RecurrentPolicy) -> None:
    """Run the model and the distribution once on zeros and check what they return.

    Leaves torch's random state as it was.

    Raises:
        ValueError: If something is not as it must be, with what to change.
    """
    device = policy.device
    obs = specs.zeros(policy.observation_spec, (_ROWS,), device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        problem = next(_problems(policy, obs), None)
    if problem:
        raise ValueError(f"{problem} (tried with {_ROWS} rows of zeros)")


def _problems(policy: Policy | RecurrentPolicy, obs: Batch) -> Iterator[str]:
    """Yield what is wrong, in an order in which each step relies on those before."""
    model, distribution = type(policy.model).__name__, policy.distribution_cls.__name__
    state = policy.initial_state(_ROWS)
    if policy.normalizer is not None:
        obs = policy.normalizer(obs)
    names, batch = ["features", "values"], [_ROWS]
    if state is None:
        outputs = policy.model(obs)
    else:
        outputs = policy.model(obs.unsqueeze(1), state)
        names, batch = [*names, "state"], [_ROWS, 1]
    if not isinstance(outputs, tuple) or len(outputs) != len(names):
        yield f"{model}.forward returned {_describe(outputs)}, expected ({', '.join(names)})"
        return
    features, values, *_ = outputs
    if not isinstance(features, TensorDict) or list(features.batch_size) != batch:
        got = _describe(features)
        yield f"features of {model} is {got}, expected a TensorDict with batch_size={batch}"
        return
    yield from _wrong_shape(f"values of {model}", values, [*batch, 1])
    if policy.state_spec is not None:
        problem = specs.mismatch(outputs[2], policy.state_spec, _ROWS, f"state of {model}")
        if problem:
            yield problem
    try:
        step = policy.sample(obs, state)
        taken = policy.evaluate(obs.unsqueeze(1), step.actions.unsqueeze(1), state)
    except KeyError as error:
        keys = sorted(features.keys())
        yield f"{distribution} misses a feature, {error.args[0]}: {model} returns {keys}"
        return
    actions = policy.to_env(step.actions)
    if problem := specs.mismatch(actions, policy.action_spec, _ROWS, f"a sample of {distribution}"):
        yield problem
    yield from _wrong_shape(f"logp of {distribution}", step.logp, [_ROWS, 1])
    yield from _wrong_shape(f"entropy of {distribution}", taken.entropy, [_ROWS, 1])


def _wrong_shape(name: str, value: object, shape: list[int]) -> Iterator[str]:
    if not isinstance(value, Tensor) or list(value.shape) != shape:
        yield f"{name} is {_describe(value)}, expected a tensor of shape {shape}"


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, TensorDict):
        return f"a TensorDict with batch_size={list(value.batch_size)}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"a {type(value).__name__}"
