"""Which parts of Composite observations somebody sees."""

from collections.abc import Iterator, Sequence

from tensordict import TensorDict

from .. import specs
from ..common.types import Batch
from ..common.validation import did_you_mean


def select(spec: specs.TensorSpec, keys: Sequence[str] | None, name: str) -> specs.TensorSpec:
    """Return the parts of a Composite spec that keys name, in the spec's order; all of it for None.

    Args:
        spec: Of one environment's observations.
        keys: A nested one as "a.b"; "a" names all that is below it.
        name: What the keys are called in errors.

    Raises:
        ValueError: If they aren't keys of the spec.
    """
    if keys is None:
        return spec
    if not keys or isinstance(keys, str) or not isinstance(keys, Sequence):
        raise ValueError(f"{name} is {keys!r}, expected a list of at least one key of the observations")
    if not isinstance(spec, specs.Composite):
        raise ValueError(
            f"{name} is {keys!r}, but observations of the spec {specs.kind(spec).__name__} have no keys: "
            "make it a Composite, or leave the option out"
        )
    known = list(_names(spec))
    for key in keys:
        if key not in known:
            raise ValueError(f"{name} has {key!r}, no key of the observations{did_you_mean(str(key), known)}")
    return _part(spec, keys)


def left_out(
    whole: specs.TensorSpec, part: specs.TensorSpec, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the paths below which nothing of a spec is in a part of it."""
    if isinstance(whole, specs.Composite):
        for key, child in whole.items():
            if key in part.keys():  # noqa: SIM118
                yield from left_out(child, part[key], (*path, key))
            else:
                yield (*path, key)


def has(obs: Batch, path: tuple[str, ...]) -> bool:
    """Return whether observations have something at a path."""
    for key in path:
        if not isinstance(obs, TensorDict) or key not in obs.keys():  # noqa: SIM118
            return False
        obs = obs[key]
    return True


def _names(spec: specs.Composite, prefix: str = "") -> Iterator[str]:
    for key, child in spec.items():
        if any(True for _ in specs.leaves(child)):
            yield prefix + key
        if isinstance(child, specs.Composite):
            yield from _names(child, f"{prefix}{key}.")


def _part(spec: specs.Composite, keys: Sequence[str], prefix: str = "") -> specs.Composite:
    kept = {}
    for key, child in spec.items():
        if prefix + key in keys:
            kept[key] = child
        elif isinstance(child, specs.Composite):
            below = _part(child, keys, f"{prefix}{key}.")
            if list(below.keys()):
                kept[key] = below
    return specs.Composite(kept)
