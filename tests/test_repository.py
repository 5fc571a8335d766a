"""What stands in more than one file of the repository agrees."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def recipe(target):
    """Return the lines that a target of the Makefile runs."""
    text = (ROOT / "Makefile").read_text()
    [body] = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    return [line.strip().removeprefix("$(BIN)/") for line in body.splitlines()]


def test_a_commit_must_pass_what_lint_runs():
    [repo] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    [hook] = repo["hooks"]
    assert (hook["entry"], hook["language"]) == ("make lint", "system")
    assert hook["always_run"] is True
    assert hook["pass_filenames"] is False
    assert [line.split()[0] for line in recipe("lint")] == ["ruff", "ruff", "mypy", "codespell"]


def test_quick_lints_as_lint_does_and_names_tests_that_there_are():
    assert set(recipe("quick")[:-1]) < set(recipe("lint"))
    command = ["make", "--no-print-directory", "-n", "quick"]
    # A `make` around this suite hands its own flags on.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    shown = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    named = [word for word in shown.split() if word.startswith("tests/")]
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/design.md", "docs/ppo.md", "docs/performance.md"]
)
def test_links_lead_to_what_there_is(page):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_each_detail_of_the_algorithm_is_where_it_is_said_to_be():
    text = (ROOT / "docs/ppo.md").read_text()
    table = text.partition("| detail | formula | where | source |\n")[2].partition("\n\n")[0]
    source, checked = ROOT / "src/rlstack", 0
    formulas = [source / "ppo/estimates.py", source / "ppo/losses.py"]
    for row in table.splitlines()[1:]:
        # Formulas may have bars of their own.
        for name, file in re.findall(r"`(\w+)`(?: in `([\w/]+\.py)`)?", row.split("|")[-3]):
            places = [source / file] if file else formulas
            assert any(
                re.search(rf"^(class|def) {name}\b", place.read_text(), re.MULTILINE) for place in places
            ), row
            checked += 1
        for file in re.findall(r"`([\w/]+\.py)`", row.split("|")[-3]):
            assert (source / file).is_file(), row
            checked += 1
    assert checked > 30


def test_the_proofs_are_those_that_contributors_are_told_of():
    proofs = re.findall(r'^    "(R.*)": \w+\.prove,', (ROOT / "proofs/__main__.py").read_text(), re.MULTILINE)
    told = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (R[\dR, ]+) \| .* \| `(\w+)`", told, re.MULTILINE)
    assert [f"{numbers.replace(',', '')} {name}" for numbers, name in rows] == proofs


@pytest.fixture
def gpu_tests(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu_tests

    return gpu_tests


def test_what_the_gpu_path_rests_on_is_tested(gpu_tests):
    rows = gpu_tests.assumptions()
    assert len(rows) > 15
    for what, there, here in rows:
        assert there or here, what
        for file, name in (test.split("::") for test in there + here):
            assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), (file, name)
        # What is run on a GPU.
        assert all(test.startswith("tests/test_gpu.py::") for test in there)


def test_what_holds_is_told_by_how_tests_ended(gpu_tests):
    rows = gpu_tests.assumptions()
    ends = {test: {"PASSED"} for row in rows for test in row.there}

    def said(ends):
        lines = [line for line in gpu_tests.verdicts(ends) if line.startswith("| ")]
        return dict(line.strip("| ").split(" | ") for line in lines)

    table = said(ends)
    assert {table[what] for what, there, _ in rows if there} == {"holds"}
    assert {table[what] for what, there, _ in rows if not there} == {"not shown"}
    one = "tests/test_gpu.py::test_memory_stays_flat"
    [what] = [row.what for row in rows if one in row.there]
    for end, verdict in (("FAILED", "**fails**: test_memory_stays_flat"), ("SKIPPED", "not shown")):
        assert said({**ends, one: {"PASSED", end}})[what] == verdict
    assert said({**ends, "tests/test_gpu.py::test_x": {"ERROR"}})["1 other GPU tests"] == "**fails**: test_x"


def test_the_change_log_begins_with_this_version():
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == PROJECT["version"]


def test_the_citation_says_what_the_project_says():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cff["cff-version"] == "1.2.0"
    assert cff["message"]
    assert cff["title"] == PROJECT["name"]
    assert cff["abstract"] == PROJECT["description"]
    for key in ("version", "license", "authors", "keywords"):
        assert cff[key] == PROJECT[key], key
    assert "Apache License" in (ROOT / "LICENSE").read_text()
