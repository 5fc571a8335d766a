"""Whether an environment's specs stay what they were."""

from typing import Any, final

from .. import specs
from .base import SPECS, refuse_change


@final
class SpecWatch:
    """Looks whether an environment's specs are still what they were: storage and policy are made for those.

    Args:
        env: The environment.
    """

    def __init__(self, env: Any) -> None:
        self._env, self._seen = env, _look(env)
        self._specs = {name: getattr(env, name).clone() for name in SPECS}

    @property
    def observation_spec(self) -> specs.TensorSpec:
        """What the observations of one simulation were when the environment was made."""
        return self._specs["observation_spec"]

    def check(self) -> None:
        """Refuse specs that have changed; it takes some microseconds.

        Raises:
            EnvError: With what they were and what they are now.
        """
        seen = _look(self._env)
        if seen == self._seen:
            return
        for name, before in self._specs.items():
            if getattr(self._env, name, None) != before:
                refuse_change(self._env, name, before)
        self._seen = seen


def _look(env: Any) -> list[Any]:
    """Return what differs if a spec is replaced or changed; comparing bounds would take much longer."""
    seen: list[Any] = []
    for name in SPECS:
        for path, leaf in specs.leaves(getattr(env, name, None)):
            seen += (path, leaf)
            if isinstance(leaf, specs.TensorSpec):
                seen += (leaf.shape, leaf.dtype, id(leaf.space))
            if isinstance(leaf, specs.Bounded):
                seen += [(id(bound), bound._version) for bound in (leaf.space.low, leaf.space.high)]
    return seen
