"""Figures as files."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(figure: "Figure", title: str, path: Path) -> None:
    """Write a figure with a title, as it is, into a PNG file."""
    figure.suptitle(title, parse_math=False)
    with warnings.catch_warnings():
        # Fonts lack some letters.
        warnings.simplefilter("ignore")
        figure.savefig(path, dpi=120)
