"""From a checkpoint back to an algorithm that goes on from it."""

import copy
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch

from ..algorithm import Algorithm, RecurrentAlgorithm
from ..common import errors, random_state
from ..common.errors import HparamsError, told
from ..common.nested import flatten, same
from ..policies.file import as_stored, parse, state_of
from ..spec_json import differences, from_json
from . import checkpoint
from .class_files import is_same_class

_log = logging.getLogger(__name__)

_FIXED = ("optimizer_cls",)
"""Hyperparameters that a checkpoint is bound to, beside those in the policy's description."""

_OR_KEEP_NOTHING = "or train without a run_dir, which keeps nothing"


def check_can_be_kept(algorithm: Algorithm | RecurrentAlgorithm) -> None:
    """Refuse an algorithm whose checkpoints no file could hold, as far as that shows before training.

    Raises:
        HparamsError: With what can't be written, or be gone on from.
    """
    policy = algorithm.policy
    try:
        checkpoint.check(policy, {"optimizer": algorithm.learner.example_state})
    except (TypeError, ValueError) as error:
        raise HparamsError(f"{error}; {_OR_KEEP_NOTHING}") from error
    state, _ = parse(as_stored(state_of(policy), policy.description), "the policy")
    try:
        policy.load_state_dict(state)
    except Exception as error:
        raise HparamsError(
            f"the policy can't load what it saves ({type(error).__name__}: {error}): mend that; "
            f"{_OR_KEEP_NOTHING}"
        ) from error


def state_for(algorithm: Algorithm | RecurrentAlgorithm, said: checkpoint.Checkpoint) -> dict[str, Any]:
    """Return a checkpoint's state, without that of its environments if they are others or as many others."""
    state, made = said.state, said.info.get("params", {})
    changes = []
    if made and not _same(_options_of_env(made), _options_of_env(algorithm.params)):
        changes.append("env_config")
    # Of every environment there is one number.
    if len(state["advantages"]["discounted"]) != algorithm.hparams.num_envs:
        changes.append("num_envs")
    if said.ranks != algorithm.ranks.count:
        changes.append(f"the number of ranks (it has {said.ranks}, here there are {algorithm.ranks.count})")
    if not changes:
        return state
    what = " and ".join(changes) + (" are not those" if len(changes) > 1 else " is not that")
    _log.warning("%s of %s: the environments are reset", what, said.path)
    collector, evaluations = _begun_anew(state["collector"]), state["eval_collector"]
    if "env_config" in changes:
        collector["env_config"] = evaluations = None
    return {
        **state,
        "collector": collector,
        "eval_collector": evaluations and _begun_anew(evaluations),
        "advantages": {**state["advantages"], "discounted": None},
    }


def _begun_anew(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a collector, `Collector.state_dict`, before its environments' next reset."""
    return {"env_config": state["env_config"], "obs": None}


def restore(algorithm: Algorithm | RecurrentAlgorithm, said: checkpoint.Checkpoint) -> None:
    """Let an algorithm go on from a checkpoint; with other environments than there, these are reset.

    Raises:
        CheckpointError: If it is of another algorithm or environment; this one is as it was.
    """
    mine, theirs = json.loads(json.dumps(algorithm.policy.description)), dict(said.policy)
    if "clip_actions" in mine:
        # Runs of rlstack 0.1.0 say nothing of it: their Normal was not clipped.
        mine["clip_actions"] = theirs.setdefault("clip_actions", False)
    made, making = said.info.get("params", {}), algorithm.params
    pairs = [(key, theirs.get(key), mine.get(key)) for key in {**theirs, **mine}]
    pairs += [(key, made.get(key, making[key]), making[key]) for key in _FIXED]
    if changed := [
        f"{what} is {one!s:.200} there and {other!s:.200} here"
        for key, there, here in pairs
        if there != here and not (key.endswith("_cls") and is_same_class(str(there), str(here)))
        for what, one, other in _differences(key, there, here)
    ]:
        raise errors.CheckpointError(
            f"{said.path} is of another policy or environment than this one: {'; '.join(changed)}; "
            "that can't be changed"
        )
    before = copy.deepcopy(algorithm.state_dict())
    try:
        algorithm.load_state_dict(state_for(algorithm, said))
    except Exception as error:
        algorithm.load_state_dict(before)
        raise errors.CheckpointError(f"{said.path} can't be used: {told(error)}") from error
    if said.ranks != algorithm.ranks.count and algorithm.ranks.index:
        # Its state is that of rank 0, with random numbers that are that rank's.
        random_state.seed_all(torch.initial_seed() + said.info["env_steps"], algorithm.ranks.index)
    algorithm.policy.clip_actions(mine.get("clip_actions", True))
    if algorithm.hparams.seed is not None and made.get("seed", making["seed"]) != making["seed"]:
        # Another seed means other random numbers from here on.
        random_state.seed_all(algorithm.hparams.seed, algorithm.ranks.index)


def _differences(name: str, there: Any, here: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield what differs in two values that aren't the same, down to the option, or the part of a spec."""
    if name.endswith("_spec") and isinstance(there, str) and isinstance(here, str):
        with suppress(ValueError):  # Else it is no spec that this rlstack knows: both are shown as they are.
            yield from differences(name, from_json(there), from_json(here))
            return
    theirs, mine = flatten({name: there}), flatten({name: here})
    for key in dict.fromkeys([*theirs, *mine]):
        if theirs.get(key, "missing") != mine.get(key, "missing"):
            yield key, theirs.get(key, "missing"), mine.get(key, "missing")


def _options_of_env(params: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in params.items() if key.partition(".")[0] == "env_config"}


def _same(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
