"""What nobody reads: keys that an environment returns, and options that it is made with."""

from collections.abc import Callable, Mapping
from typing import Any, final

from ..common.validation import did_you_mean
from .ending import FINAL_OBS, FLAGS, KNOWN

_ENDS = {"done", "dones", "is_last", "is_terminal", "terminal", "terminations", "truncations"}
"""What others return where an episode ends."""


def unread_keys(out: object, name: str) -> str | None:
    """Return in one sentence what an environment's step returns in vain, or None.

    Args:
        out: What it returned.
        name: Of the environment.
    """
    keys = out.keys() if isinstance(out, Mapping) else ()
    read = [name for name in KNOWN if name != FINAL_OBS or any(flag in keys for flag in FLAGS)]
    others = sorted(str(key) for key in keys if key not in read)
    if not others:
        return None
    said = f"{name}.step returns {', '.join(others)}, which nothing reads: leave that out"
    if _ENDS & {*others}:
        said += (
            "; where an episode ends is said by terminated, or by truncated if it would have gone on, both "
            "bool and of shape [B, 1]"
        )
    return said


@final
class OptionReads(dict[str, Any]):
    """Options that note which of them are asked for; whoever goes over all of them has read them all.

    Copies made with `copy` note it in the same place.

    Args:
        options: The options, by name.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.asked: set[str] = set()

    def unread(self, name: str) -> str | None:
        """Return in one sentence which option the environment of this name hasn't asked for, or None."""
        for key in dict.keys(self):
            if key not in self.asked:
                meant = did_you_mean(str(key), sorted(map(str, self.asked))) if self.asked else ""
                return f"{name} never reads env_config.{key}{meant}"
        return None

    def copy(self) -> "OptionReads":
        """Return a copy that notes in the same place what is asked for."""
        made = OptionReads({})
        dict.update(made, dict.items(self))
        made.asked = self.asked
        return made


def _note_one(method: Callable[..., Any]) -> Callable[..., Any]:
    def noting(self: OptionReads, key: Any, /, *others: Any) -> Any:
        self.asked.add(key)
        return method(self, key, *others)

    return noting


def _note_all(method: Callable[..., Any]) -> Callable[..., Any]:
    def noting(self: OptionReads, /, *others: Any) -> Any:
        self.asked.update(dict.keys(self))
        return method(self, *others)

    return noting


for _name in ("__contains__", "__getitem__", "get", "pop", "setdefault"):
    setattr(OptionReads, _name, _note_one(getattr(dict, _name)))

for _name in ("__eq__", "__iter__", "__ne__", "__or__", "__reversed__", "__ror__"):
    setattr(OptionReads, _name, _note_all(getattr(dict, _name)))

for _name in ("items", "keys", "popitem", "values"):
    setattr(OptionReads, _name, _note_all(getattr(dict, _name)))
