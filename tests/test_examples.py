"""The examples run, and show what they say they show."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) <= 150


def test_hidden_velocity(capsys):
    names = runpy.run_path(str(EXAMPLES[0].with_name("hidden_velocity.py")))
    blind, sighted = names["main"](30)
    # Blind policies overshoot for good; 30 updates are enough to see the difference.
    assert sighted < 0.6 * blind
    assert "Mean distance to the target" in capsys.readouterr().out
