"""What the GPU path rests on: read from docs/performance.md, and shown by the GPU tests."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
TIME = 240.0
"""s, for all tests."""
FAULTS = {"FAILED", "ERROR"}


class Assumption(NamedTuple):
    """Something that must hold, with the tests that would notice if it didn't, as `tests/file.py::name`."""

    what: str
    there: list[str]
    """On a GPU."""
    here: list[str]
    """Without one."""


def assumptions() -> list[Assumption]:
    """Return what docs/performance.md says must hold."""
    text = (ROOT / "docs" / "performance.md").read_text()
    table = text.partition("### What the GPU path rests on\n")[2].partition("\n#")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]
    return [Assumption(what.strip(), _tests(there), _tests(here)) for what, there, here in rows[1:]]


def _tests(cell: str) -> list[str]:
    names = re.findall(r"`([\w/.:]+)`", cell)
    return [f"tests/{name if '::' in name else f'test_gpu.py::{name}'}" for name in names]


def run_tests() -> dict[str, set[str]]:
    """Return how the GPU tests ended, all variants of each by its name; those not reached are missing."""
    options = ["-v", "-m", "gpu", "-p", "no:cacheprovider", "tests/test_gpu.py"]
    command = [sys.executable, "-m", "pytest", *options]
    with tempfile.TemporaryFile("w+") as output:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, cwd=ROOT, stdout=output, timeout=TIME, check=False)
        output.seek(0)
        said = output.read()
    ends: dict[str, set[str]] = {}
    pattern = r"^(tests/[\w/.]+::\w+).* (PASSED|FAILED|ERROR|SKIPPED)\b"
    for name, end in re.findall(pattern, said, re.MULTILINE):
        ends.setdefault(name, set()).add(end)
    print(said.partition("= FAILURES =")[2][-6000:], end="", flush=True)
    return ends


def verdicts(ends: dict[str, set[str]]) -> Iterator[str]:
    """Yield a table of what holds, given how tests ended; those that aren't named there come last."""
    yield from ("| what must hold | here |", "|---|---|")
    named = set()
    for what, there, _ in assumptions():
        named |= {*there}
        yield f"| {what} | {_verdict({name: ends.get(name, {'not run'}) for name in there})} |"
    others = {name: seen for name, seen in ends.items() if name not in named}
    yield f"| {len(others)} other GPU tests | {_verdict(others)} |"


def _verdict(ends: dict[str, set[str]]) -> str:
    if failed := [name.partition("::")[2] for name, seen in ends.items() if seen & FAULTS]:
        return f"**fails**: {', '.join(failed)}"
    return "holds" if set().union(*ends.values()) == {"PASSED"} else "not shown"
