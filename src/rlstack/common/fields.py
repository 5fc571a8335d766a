"""What editors, `help` and `inspect.signature` know of the fields of pydantic's dataclasses."""

import inspect
import textwrap
from dataclasses import MISSING, fields
from typing import get_type_hints

_BY_POSITION = inspect.Parameter.POSITIONAL_ONLY


def meanings(cls: type) -> dict[str, str]:
    """Return the texts below the fields of a dataclass of pydantic's, by field, each in one line."""
    return {
        name: " ".join(inspect.cleandoc(field.description).split())
        for base in reversed(cls.__mro__)
        for name, field in vars(base).get("__pydantic_fields__", {}).items()
        if field.description
    }


def document(cls: type, fields_cls: type, title: str) -> None:
    """Let the signature of a class name all fields of a dataclass, and its docstring say what they mean.

    Args:
        cls: It takes the fields as keywords, and nothing else but by position.
        fields_cls: The dataclass.
        title: What to call them.
    """
    hints = get_type_hints(fields_cls)
    others = [
        each for each in inspect.signature(cls).parameters.values() if each.kind is each.POSITIONAL_ONLY
    ]
    keywords = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default if field.default_factory is MISSING else field.default_factory(),
            annotation=hints[field.name],
        )
        for field in fields(fields_cls)
    ]
    cls.__signature__ = inspect.Signature([*others, *keywords])  # type: ignore[attr-defined]
    texts = [
        textwrap.fill(f"{name}: {text}", 100, initial_indent="    ", subsequent_indent="        ")
        for name, text in meanings(fields_cls).items()
    ]
    cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", f"{title}:", *texts, ""])
