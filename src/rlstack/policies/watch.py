"""What of a policy may be changed by its user while it is trained: found, and followed."""

from typing import Any, NamedTuple, final

from torch import nn

from ..common.serialization import is_dense

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _Parameter(NamedTuple):
    value: nn.Parameter
    trained: bool
    form: tuple[Any, ...]
    """dtype and device."""
    strides: tuple[int, ...]


class _Look(NamedTuple):
    """What was seen; objects are kept, so that no other one takes the place of one that is gone."""

    distribution_cls: Any
    layers: dict[str, nn.Module]
    own: dict[str, bool]
    """By layer, whether it has hooks or a `forward` of its own."""
    parameters: dict[str, _Parameter]


@final
class PolicyWatch:
    """Looks whether a policy is still what it was.

    Args:
        policy: Which.
    """

    def __init__(self, policy: Any) -> None:
        self._policy, self._seen, self._key = policy, _look(policy), _key(policy)

    def changes(self) -> str | None:
        """Return in words what has changed since the last look; None if nothing has.

        Raises:
            RuntimeError: If a parameter has another dtype, is on another device, or has gaps in memory.
        """
        key = _key(self._policy)
        if key == self._key:
            return None
        before, now = self._seen, _look(self._policy)
        for name, (value, _, form, _) in now.parameters.items():
            if name in before.parameters and form != before.parameters[name].form:
                was, is_ = (" on ".join(map(str, each)) for each in (before.parameters[name].form, form))
                raise RuntimeError(
                    f"{name} is {is_} now, it was {was} when the algorithm was made: make a new algorithm"
                )
            if not is_dense(value):
                raise RuntimeError(f"{name} has gaps or repeats in memory now: make it from a dense copy")
        self._seen, self._key = now, key
        found = [f"{name} was replaced" for name in _others(before.layers, now.layers)]
        found += [
            f"{name} has {'hooks or a forward of its own' if now.own[name] else 'no hooks any more'}"
            for name in now.own
            if now.own[name] != before.own.get(name, False)
        ]
        for name, (value, trained, _, strides) in now.parameters.items():
            old = before.parameters.get(name)
            if old is None or old.value is not value:
                found.append(f"{name} is another parameter")
            elif old.trained != trained:
                found.append(f"{name} was {'un' if trained else ''}frozen")
            elif old.strides != strides:
                found.append(f"{name} is laid out otherwise in memory")
        found += [f"{name} is gone" for name in before.parameters if name not in now.parameters]
        if before.distribution_cls is not now.distribution_cls:
            found.append("distribution_cls was replaced")
        return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def has_hooks(model: nn.Module) -> bool:
    """Return whether a layer runs code of its user's when it is called: hooks, or a `forward` of its own."""
    return any(_is_own(layer) for layer in model.modules())


def _look(policy: Any) -> _Look:
    layers = dict(policy.named_modules())
    parameters = {
        name: _Parameter(value, value.requires_grad, (value.dtype, value.device), value.stride())
        for name, value in policy.named_parameters()
    }
    own = {name: _is_own(layer) for name, layer in layers.items()}
    return _Look(policy.distribution_cls, layers, own, parameters)


def _key(policy: nn.Module) -> list[Any]:
    """Return what differs if anything that `_look` sees does; it takes some ten microseconds."""
    key: list[Any] = [policy.distribution_cls]
    layers = [policy]
    while layers:
        layer = layers.pop()
        key += (id(layer), _is_own(layer))
        for value in layer._parameters.values():
            if value is not None:
                key += (id(value), value.requires_grad, value.dtype, value.device, value.stride())
        layers += [child for child in layer._modules.values() if child is not None]
    return key


def _is_own(layer: nn.Module) -> bool:
    return "forward" in vars(layer) or any(getattr(layer, name) for name in _HOOKS)


def _others(before: dict[str, nn.Module], now: dict[str, nn.Module]) -> list[str]:
    return [name for name in now if now[name] is not before.get(name)]
