"""Code in the pages of `docs`."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"

LONGEST = 20
"""Lines of code that a simulator's section has at most."""


def blocks(page, needs):
    """Return the Python blocks of a page that need a package, as their markers say."""
    text = (DOCS / page).read_text()
    return re.findall(rf"<!-- needs: {needs} -->\n```python\n(.*?)```", text, re.DOTALL)


def run_blocks(page, needs):
    """Run the Python blocks of a page that need a package, each as a file of its own."""
    found = blocks(page, needs)
    assert found
    for code in found:
        assert len(code.splitlines()) <= LONGEST
        exec(compile(code, page, "exec"), {"__name__": "__main__"})


def commands(page, name):
    """Return the words of each `rlstack` command of a page that has a name in it."""
    text = "\n".join(re.findall(r"```console\n(.*?)```", (DOCS / page).read_text(), re.DOTALL))
    return [line.split()[1:] for line in text.splitlines() if line.startswith("rlstack ") and name in line]
