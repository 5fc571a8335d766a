"""Which actions an observation allows."""

from typing import Any, final

import torch
from tensordict import TensorDict
from torch import Tensor

from .. import specs
from ..common.types import LOGITS, OBS
from ..common.validation import did_you_mean


@final
class ActionMask:
    """The leaf of the observations that is True where a choice is allowed.

    Args:
        key: Name of the leaf; "a.b" is b within a.
        observation_spec: Of one environment.
        action_spec: Of one environment; Categorical, MultiCategorical or OneHot.

    Raises:
        TypeError, ValueError: If there is no such leaf, or it or the actions are of another form.
    """

    path: tuple[str, ...]
    """Where the leaf is."""
    shape: tuple[int, ...]
    """Of one row: [*A, n] of a Categorical of n choices, [sum(nvec)] of a MultiCategorical, *A of OneHot."""

    def __init__(self, key: str, observation_spec: specs.TensorSpec, action_spec: specs.TensorSpec) -> None:
        found = {".".join(path): (path, leaf) for path, leaf in specs.leaves(observation_spec)}
        if key not in found or not isinstance(observation_spec, specs.Composite):
            known = did_you_mean(str(key), found) if isinstance(observation_spec, specs.Composite) else ""
            raise ValueError(
                f"action_mask_key is {key!r}, expected a leaf of a Composite observation_spec{known}"
            )
        self.path, leaf = found[key]
        kind = None if isinstance(action_spec, specs.Composite) else specs.kind(action_spec)
        self._sizes = None
        if kind is specs.MultiCategorical:
            self._sizes = action_spec.nvec.tolist()
            self.shape = (sum(self._sizes),)
        elif kind is specs.Categorical:
            self.shape = (*action_spec.shape, int(action_spec.space.n))
        elif kind is specs.OneHot:
            self.shape = tuple(action_spec.shape)
        else:
            raise TypeError(
                f"action_mask_key is {key!r}, but action_spec is {type(action_spec).__name__}, expected "
                "Categorical, MultiCategorical or OneHot: only choices can be masked"
            )
        kind = specs.kind(leaf)
        if tuple(leaf.shape) != self.shape or not (leaf.dtype is torch.bool or kind is specs.Binary):
            raise ValueError(
                f"{OBS}.{key} is {kind.__name__} of {leaf.dtype} and shape {list(leaf.shape)}, no action "
                f"mask: expected Binary(shape={list(self.shape)}, dtype=torch.bool)"
            )
        if len(found) == 1:
            raise ValueError(f"{OBS}.{key} is the whole observation, expected another leaf beside the mask")

    def given(self, obs: Any) -> Tensor:
        """Return the leaf of observations [*N, ...] as bool [*N, *shape]."""
        return obs[self.path].to(torch.bool)

    def allowed(self, obs: Any) -> Tensor:
        """Return which choices are allowed, bool [*N, *shape]; all of an action's where none is."""
        given = self.given(obs)
        return torch.cat([part | ~part.any(-1, keepdim=True) for part in self._parts(given)], -1)

    def is_stuck(self, obs: Any) -> Tensor:
        """Return whether there is an action for which nothing is allowed, bool [*N]."""
        given = self.given(obs)
        dims = given.ndim - len(self.shape)
        stuck = [~part.any(-1) for part in self._parts(given)]
        return torch.stack(stuck, -1).flatten(dims).any(-1)

    def _parts(self, given: Tensor) -> list[Tensor]:
        """Return the masks of single actions, choices last."""
        return [given] if self._sizes is None else list(given.split(self._sizes, -1))

    def rest(self, observation_spec: specs.TensorSpec) -> specs.TensorSpec:
        """Return the spec of observations without the leaf."""
        rest = observation_spec.clone()
        del rest[self.path]
        return rest


def mask_logits(features: TensorDict, allowed: Tensor) -> TensorDict:
    """Return features [N, ...] in which choices that aren't `allowed` [N, ...] have probability 0."""
    features = features.copy()
    features[LOGITS] = features[LOGITS].masked_fill(~allowed, -torch.inf)
    return features
