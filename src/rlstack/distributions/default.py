"""Which distribution an action spec has."""

import torch

from .. import specs
from .base import Distribution
from .discrete import Bernoulli, Categorical, OneHotCategorical
from .normal import Normal, SquashedNormal

OWN = frozenset({Bernoulli, Categorical, Normal, OneHotCategorical, SquashedNormal})
"""All that there are here."""


def default_distribution(action_spec: specs.TensorSpec) -> type[Distribution]:
    """Return the distribution for an action spec when none is given.

    Raises:
        TypeError: If there is none for it.
    """
    if isinstance(action_spec, specs.Composite):
        raise TypeError("action_spec is a Composite: give a distribution_cls and a model_cls for its actions")
    cls = specs.kind(action_spec)
    if cls is specs.Categorical:
        return Categorical
    if cls is specs.OneHot:
        return OneHotCategorical
    if cls is specs.Binary:
        return Bernoulli
    if cls is specs.MultiCategorical:
        if len(action_spec.shape) != 1:
            raise ValueError(
                f"action_spec is a MultiCategorical of shape {list(action_spec.shape)}, "
                "expected one dimension: flatten nvec"
            )
        return Categorical
    if cls in (specs.Unbounded, specs.Bounded) and action_spec.dtype.is_floating_point:
        if cls is specs.Unbounded:
            return Normal
        check_bounds(action_spec)
        return SquashedNormal
    raise TypeError(
        f"action_spec is {cls.__name__} of {action_spec.dtype}, for which there is no default distribution: "
        "use Categorical, MultiCategorical, OneHot, Binary, or floating Unbounded or Bounded, or give a "
        "distribution_cls and a model_cls"
    )


def check_bounds(action_spec: specs.Bounded) -> None:
    """Refuse bounds that [-1, 1] can't be mapped onto.

    Raises:
        ValueError: If one is infinite.
    """
    if not (torch.isfinite(action_spec.space.low) & torch.isfinite(action_spec.space.high)).all():
        raise ValueError("action_spec is Bounded with an infinite bound: use finite bounds, or Unbounded")
