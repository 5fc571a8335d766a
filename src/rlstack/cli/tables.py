"""Tables as lines of text."""

from collections.abc import Sequence
from typing import Any

from .arguments import shown


def lines_of(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return a table as lines: numbers to the right, texts to the left, nothing for None."""
    texts = [["" if value is None else shown(value) for value in row] for row in rows]
    columns = list(zip(header, *texts, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [any(isinstance(row[n], int | float) for row in rows) for n in range(len(header))]
    return [
        "  ".join(
            text.rjust(width) if to_the_right else text.ljust(width)
            for text, width, to_the_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [[*header], *texts]
    ]
