"""What `docs/simulators.md` shows runs; what needs a simulator of its own is run by the tests in `sims`."""

import re
import tomllib
from pathlib import Path

from .pages import DOCS, run_blocks

ROOT = Path(__file__).parents[1]
PAGE = (DOCS / "simulators.md").read_text()


def test_what_needs_gymnasium_alone(capsys):
    run_blocks("simulators.md", "gymnasium")
    length, *_ = map(float, capsys.readouterr().out.split())
    assert length >= 8


def test_each_block_is_run_by_some_test():
    marked = re.findall(r"<!-- needs: (\w+) -->\n```python", PAGE)
    assert len(marked) == PAGE.count("```python") >= 3
    for needs in {*marked} - {"gymnasium"}:
        assert f'run_blocks("simulators.md", "{needs}")' in (ROOT / f"tests/sims/test_{needs}.py").read_text()


def test_its_links_are_there():
    headings = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", PAGE, re.MULTILINE)}
    assert {*re.findall(r"\]\(#([\w-]+)\)", PAGE)} == headings


def test_extras_are_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pages = [ROOT / "README.md", *DOCS.rglob("*.md"), *(ROOT / "tests" / "sims").glob("*.txt")]
    for file in (*pages, *(ROOT / "src").rglob("*.py")):
        named = re.findall(r"(?:rlstack|-e '?\.)\[([\w,-]+)\]", file.read_text())
        assert {extra for names in named for extra in names.split(",")} <= {*extras}, file
    assert {path.stem for path in (ROOT / "tests" / "sims").glob("*.txt")} <= {
        extra.replace("-", "_") for extra in extras
    }


def test_simulators_that_are_tested_have_all_they_need():
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "sims").glob("test_*.py")}
    assert tests == {path.stem for path in (ROOT / "tests" / "sims").glob("*.txt")}
    for name in tests:
        assert "pytest.importorskip(" in (ROOT / f"tests/sims/test_{name}.py").read_text()
