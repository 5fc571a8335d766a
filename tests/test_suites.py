"""Runs of tasks with published results, and the pages that are made of them."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from rlstack.cli.app import main
from rlstack.cli.resolve_env import resolve

ROOT = Path(__file__).parents[1]
TINY = ["num_envs=4", "horizon=16", "sgd_minibatch_size=64", "model_config.hiddens=[4]"]


@pytest.fixture
def suites(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import suites

    monkeypatch.setattr(suites, "RECORDS", tmp_path / "suites.json")
    task = suites.Task("gym:CartPole-v1", 256, 20.0, "–", episodes=2)
    monkeypatch.setattr(suites, "SUITES", {"classic": (task,)})
    return suites


@pytest.fixture
def pages(suites):
    import suite_pages

    return suite_pages


@pytest.fixture
def started(monkeypatch, suites):
    """The command lines that were started, in this process, with fewer environments."""
    found = []

    def start(line, **options):
        found.append(line)
        done = CliRunner().invoke(main, [*line[3:5], *TINY, *line[5:]])
        assert done.exit_code == 0, done.output

    monkeypatch.setattr(subprocess, "run", start)
    return found


def test_a_finished_run_is_not_made_again_and_an_interrupted_one_goes_on(suites, started, tmp_path):
    begun = ["train", "gym:CartPole-v1", *TINY, "--seed", "3", "--max-env-steps", "128", "--tracking", "off"]
    directory = tmp_path / "gym-CartPole-v1-3"
    assert CliRunner().invoke(main, [*begun, "--run-dir", str(directory)]).exit_code == 0
    before = (directory / "metrics.jsonl").read_text()
    for _ in range(2):
        suites.run("classic", None, [3], tmp_path)
    assert len(started) == 1
    [record] = json.loads(suites.RECORDS.read_text())
    assert (record["task"], record["seed"], record["env_steps"]) == ("gym:CartPole-v1", 3, 256)
    assert record["command"] == "rlstack train gym:CartPole-v1 --seed 3 --max-env-steps 256"
    assert record["worst"] <= record["mean"] <= 500
    rows = (directory / "metrics.jsonl").read_text()
    assert rows.startswith(before)
    assert len(rows.splitlines()) == 4
    assert 0 <= record["seconds"] < 60
    assert record["curve"][-1][0] == 256


def test_curves_are_means_of_neighbors(suites):
    points = suites.curve(np.arange(100.0), np.arange(100.0) ** 2)
    assert len(points) == 50
    assert points[3] == [6.5, (6**2 + 7**2) / 2]
    assert suites.curve(np.array([8.0]), np.array([1.0])) == [[8.0, 1.0]]


def run(seed, mean, task="gym:CartPole-v1"):
    numbers = {"seed": seed, "mean": mean, "std": 1.0, "worst": mean - 2, "episodes": 2, "seconds": 1500.0}
    said = {"task": task, "command": "rlstack train", "date": "2026-11-27", "versions": {"torch": "2.13"}}
    return {**numbers, **said, "env_steps": 256, "curve": [[64, mean / 2], [256, mean]]}


def test_tables_say_how_many_seeds_there_are(pages, suites):
    [task] = suites.SUITES["classic"]
    assert pages.score([]) == "not run yet"
    assert pages.score([run(0, 21.0)]) == "21.0 (1 seed)"
    assert pages.score([run(0, 1000.0), run(1, 2500.0)]) == "1,750 (1,000 to 2,500, 2 seeds)"
    assert pages.verdict(task, []) == "–"
    assert pages.verdict(task, [run(0, 21.0)]) == "yes, so far"
    assert pages.verdict(task, [run(seed, mean) for seed, mean in enumerate((10.0, 20.0, 29.0))]) == "no"


def test_pages_have_what_is_known(pages, suites, tmp_path, monkeypatch):
    suites.RECORDS.write_text(json.dumps([run(1, 30.0), run(0, 25.0), run(0, 1.0, "gym:Other-v0")]))
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    for name, mark in (("docs/results.md", "classic"), ("README.md", "results")):
        (tmp_path / name).write_text(f"a\n<!-- {mark} -->\nold\n<!-- end {mark} -->\nz\n")
    pages.write()
    page, readme = (tmp_path / name for name in ("docs/results.md", "README.md"))
    assert readme.read_text().splitlines() == [
        "a",
        "<!-- results -->",
        "| task | transitions | rlstack | published | to reach | reached |",
        "|---|---|---|---|---|---|",
        "| gym:CartPole-v1 | 256 | 27.5 (25.0 to 30.0, 2 seeds) | – | ≥ 20.0 | yes, so far |",
        "<!-- end results -->",
        "z",
    ]
    said = page.read_text()
    assert "old" not in said
    assert said.index("25.0 ± 1.0 in 2 | 23.0 | 1,500 s") < said.index("30.0 ± 1.0 in 2")
    assert (tmp_path / "docs/results_classic.png").stat().st_size > 1000
    pages.write()
    assert page.read_text() == said
    readme.write_text("nothing")
    with pytest.raises(ValueError, match="there is no <!-- results --> with an <!-- end results -->"):
        pages.write()


def test_the_pages_say_what_the_records_say(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import suite_pages
    import suites

    found = suites.records()
    page, readme = (ROOT / name for name in ("docs/results.md", "README.md"))
    for path, name, lines in (
        (readme, "results", suite_pages.short_table(found)),
        *((page, suite, suite_pages.full_table(suite, found)) for suite in suites.SUITES),
    ):
        assert suite_pages.put(path.read_text(), name, lines) == path.read_text()


@pytest.mark.parametrize("algorithm", ["feedforward", "recurrent"])
def test_names_of_simulators_come_with_hyperparameters(algorithm):
    env_cls, known = resolve("gym:CartPole-v1", {"gamma": 0.5}, algorithm)
    assert env_cls.__name__ == "CartPole-v1"
    assert known["num_envs"] == 32
    assert known["gamma"] == 0.5
    assert ("hidden_size" in known["model_config"]) == (algorithm == "recurrent")
    # One that nothing is known of.
    assert resolve("gym:MountainCar-v0", {}, algorithm)[1] == {}
