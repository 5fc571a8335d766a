"""Values checked, with errors that say what to change."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from numbers import Real
from typing import Any, TypeVar

from pydantic import ValidationError

from .errors import HparamsError
from .fields import document


def is_number(value: object) -> bool:
    """Return whether a value is a real number, Python's or NumPy's: True and False aren't."""
    return isinstance(value, Real) and not isinstance(value, bool)


_T = TypeVar("_T")


def explained(
    what: str, elsewhere: Mapping[str, str] | None = None, *, title: str = "Fields"
) -> Callable[[type[_T]], type[_T]]:
    """Return a decorator that lets a dataclass of pydantic's say what to change, and what its fields mean.

    It raises an HparamsError, a line for each name that is unknown and each value that can't be.

    Args:
        what: What a field of it is, for errors.
        elsewhere: What to write instead of names that others give to fields, as the end of a sentence.
        title: What its fields are called in its docstring.
    """
    known = elsewhere or {}

    def decorate(cls: type[_T]) -> type[_T]:
        make: Callable[..., None] = cls.__init__
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]

        def init(self: _T, /, **values: Any) -> None:
            faults = {
                name: f"{name} is not {what}"
                + (f": {known[name]}" if name in known else did_you_mean(name, names))
                for name in values
                if name not in names
            }
            try:
                make(self, **{name: value for name, value in values.items() if name in names})
            except ValidationError as error:
                for detail in error.errors():
                    faults.setdefault(".".join(map(str, detail["loc"][:1])), _explain(detail))
            if faults:
                raise HparamsError("\n".join(faults.values()))

        cls.__init__ = init  # type: ignore[assignment]
        document(cls, cls, title)
        return cls

    return decorate


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a clause that offers the nearest known name, or all of them where none is near."""
    known = list(known)
    near = get_close_matches(name, known, n=1)
    return f": did you mean {near[0]}?" if near else f": expected one of {', '.join(known)}"


def check_options(
    options: Mapping[str, Any],
    callee: Callable[..., Any],
    name: str,
    *,
    by_position: int = 0,
    elsewhere: Mapping[str, str] | None = None,
    unsaid: Collection[str] = (),
) -> None:
    """Refuse options that a callable doesn't take by keyword.

    Args:
        options: By name.
        callee: What takes them.
        name: What they are, for errors.
        by_position: How many arguments it is handed before them.
        elsewhere: Its names of options that others call otherwise, by those names.
        unsaid: Options that it takes, but errors don't offer.

    Raises:
        HparamsError: If any are unknown, a line for each with the name that was probably meant.
    """
    parameters = list(inspect.signature(callee).parameters.values())[by_position:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    of = f"is not an option of {getattr(callee, '__name__', callee)}"
    offered = [option for option in known if option not in unsaid]
    faults = []
    for key in options:
        if key not in known:
            meant = (elsewhere or {}).get(key)
            advice = f": did you mean {meant}?" if meant in known else did_you_mean(key, offered)
            faults.append(f"{name}.{key} {of}{advice}")
    if faults:
        raise HparamsError("\n".join(faults))


def _explain(detail: Any) -> str:
    """Return one sentence for one of pydantic's error details."""
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    # Alternatives of a union (a number or None) are reported under the field's name and their own.
    name = str(detail["loc"][0])
    return f"{name} is {detail['input']!r}, expected {_expectation(detail)}"


def _expectation(detail: Any) -> str:
    context = detail.get("ctx", {})
    bounds = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    for bound, words in bounds.items():
        if bound in context:
            return f"a number {words} {context[bound]}"
    if detail["type"] == "literal_error":
        return str(context["expected"])
    kinds = {
        "int_type": "an integer",
        "float_type": "a number",
        "bool_type": "True or False",
        "dict_type": "a dictionary",
        "callable_type": "a class",
        "is_type": "a class",
        "is_instance_of": "one of another type",
        "is_subclass_of": "another class",
        "finite_number": "a finite number",
        "string_type": "a text",
    }
    return kinds.get(detail["type"], str(detail["msg"]))
