"""Whether episodes end as they should."""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import specs
from ..common.errors import EnvError
from ..common.types import Batch
from ..env.ending import FINAL_OBS, Ending, check_keys, copied
from .subject import Subject, steps

_AGAIN = 3
"""In how many steps one after the other a row must end to be suspicious."""


class _Moment(NamedTuple):
    """One step."""

    before: Batch
    """[B, ...]. Observations before it."""
    obs: Batch
    """[B, ...]. Observations after it."""
    ending: Ending
    ended: Tensor
    """[B], bool. Whose episode ends with it."""


def check_endings(subject: Subject) -> str | None:
    """See whether rows whose episodes end are put back, and with which last observations."""
    env = subject.make()
    name = type(env).__name__
    moments = _moments(subject, env)
    if not moments:
        return None
    spec = env.observation_spec
    for step, moment in enumerate(moments):
        if moment.ending.final_obs is not None and not _is_finite(
            moment.ending.final_obs, moment.ended, spec
        ):
            raise EnvError(f"{name}.step (step {step}): {FINAL_OBS} of a row that ended is NaN or infinite")
    told = [m for m in moments if m.ending.final_obs is not None and _moved(m, spec).any()]
    if moments[0].ending.valid is not None:
        # The last observation may stay for a step that is not valid.
        told = []
    if told and all(_same(m.obs, m.ending.final_obs, spec)[_moved(m, spec)].all() for m in told):
        raise EnvError(
            f"{name}.step: obs is the same as {FINAL_OBS} in all rows that ended: put those rows back, "
            f"return their first observations as obs, and what was observed before that as {FINAL_OBS}"
        )
    history = torch.stack([m.ended for m in moments])
    last = history[-_AGAIN:].all(0)
    if len(history) > _AGAIN and bool((last & ~history.all(0)).any()):
        row = int((last & ~history.all(0)).nonzero()[0])
        raise EnvError(
            f"{name}.step: environment {row} ends in each of the last {_AGAIN} steps: put a row back in the "
            "step in which it ends, its next episode begins then"
        )
    if history.all():
        return f"every episode of {name} has one step only"
    return None


def says_endings(subject: Subject) -> bool:
    """Return whether an environment says anything of endings."""
    return bool(_moments(replace(subject, steps=1), subject.make()))


def _moments(subject: Subject, env: Any) -> list[_Moment]:
    """Return all steps with random actions, copied; none if the environment says nothing of endings."""
    found: list[_Moment] = []
    before = subject.reset(env).clone()
    for step, obs, _, ending in steps(subject, env):
        if found:
            check_keys(ending, found[0].ending.keys, f"{type(env).__name__}.step (step {step})")
        if ending is None:
            return []
        ended = ending.episode_ended.squeeze(-1).clone()
        found.append(_Moment(before, obs.clone(), copied(ending) or ending, ended))
        before = found[-1].obs
    return found


def _is_finite(batch: Batch, rows: Tensor, spec: specs.TensorSpec) -> bool:
    """Return whether all numbers in these rows are finite."""
    return all(bool(part[rows].isfinite().all()) for _, part, _ in specs.parts(batch, spec))


def _moved(moment: _Moment, spec: specs.TensorSpec) -> Tensor:
    """Return which rows ended, and with an observation that tells them from the step before, bool [B]."""
    return moment.ended & ~_same(moment.before, moment.ending.final_obs, spec)


def _same(one: Batch, other: Batch, spec: specs.TensorSpec) -> Tensor:
    """Return in which rows two batches of observations are the same, bool [B]."""
    pairs = zip(specs.parts(one, spec), specs.parts(other, spec), strict=True)
    return torch.stack([(a == b).flatten(1).all(1) for (_, a, _), (_, b, _) in pairs]).all(0)
