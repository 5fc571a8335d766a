"""What stands in more than one file of the repository agrees."""

import re
import subprocess
import tomllib
from pathlib import Path

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
    command = ["make", "--no-print-directory", "-n", "quick", "STAMP=Makefile"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = [word for word in shown.split() if word.startswith("tests/")]
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_citation_says_what_the_project_says():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cff["cff-version"] == "1.2.0"
    assert cff["message"]
    assert cff["title"] == PROJECT["name"]
    assert cff["abstract"] == PROJECT["description"]
    for key in ("version", "license", "authors", "keywords"):
        assert cff[key] == PROJECT[key], key
    assert "Apache License" in (ROOT / "LICENSE").read_text()
