"""Code in the pages of `docs`."""

import importlib.util
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

from rlstack.cli.app import main

DOCS = Path(__file__).parents[1] / "docs"

LONGEST = 20
"""Lines of code that a simulator's section has at most."""


class Block(NamedTuple):
    """A block of code of a page."""

    needs: str
    """A module that has to be there, as a comment above the block says; empty if none."""
    language: str
    code: str


def all_blocks(page):
    """Return the blocks of code of a page, in order."""
    found = re.findall(
        r"^(?:<!-- needs: ([\w\[\]-]+) -->\n)?```(\w+)\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S
    )
    return [Block(*parts) for parts in found]


def run_page(page):
    """Run a page as its reader does, in the working directory: Python in one session, and rlstack's commands.

    What a block needs and isn't there is left out; `thermostat.py` holds the environment of the guide.
    """
    names = {"__name__": "__main__"}
    Path("thermostat.py").write_text(all_blocks("environments.md")[0].code)
    for block in all_blocks(page):
        if block.needs and importlib.util.find_spec(block.needs) is None:
            continue
        if block.language == "python":
            exec(compile(block.code, page, "exec"), names)
        elif block.language == "console":
            for line in block.code.splitlines():
                run_command(line)
    return names


def run_command(line):
    """Run a line of a shell if it is one of rlstack's commands."""
    words = shlex.split(line, comments=True)
    if words[:1] != ["rlstack"]:
        return
    words, file = (words[1:-2], words[-1]) if ">" in words else (words[1:], None)
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, f"{line}\n{result.output}"
    if file:
        Path(file).write_text(result.stdout)


def blocks(page, needs):
    """Return the Python blocks of a page that need a package, as their markers say."""
    return [block.code for block in all_blocks(page) if (block.needs, block.language) == (needs, "python")]


def run_blocks(page, needs):
    """Run the Python blocks of a page that need a package, each as a file of its own."""
    found = blocks(page, needs)
    assert found
    for code in found:
        assert len(code.splitlines()) <= LONGEST
        exec(compile(code, page, "exec"), {"__name__": "__main__"})


def commands(page, name):
    """Return the words of each `rlstack` command of a page that has a name in it."""
    text = "\n".join(block.code for block in all_blocks(page) if block.language == "console")
    lines = [line for line in text.splitlines() if line.startswith("rlstack ") and name in line]
    return [shlex.split(line, comments=True)[1:] for line in lines]
