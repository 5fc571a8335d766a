"""`rlstack train --seeds`: many seeds, in processes of their own."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.image
import pytest
from click.testing import CliRunner

from rlstack.cli.app import main
from rlstack.cli.arguments import seeds, without
from rlstack.cli.children import Child, exit_code, run_children
from rlstack.cli.tables import lines_of
from rlstack.runs import checkpoint
from rlstack.tracking.journal import JOURNAL, read_rows
from rlstack.training.interrupts import Interrupt

TINY = ["num_envs=8", "horizon=8", "sgd_minibatch_size=None", "model_config.hiddens=[8]", "device=cpu"]


def test_seeds():
    assert seeds("3") == [3]
    assert seeds("0-3") == [0, 1, 2, 3]
    assert seeds("0-1,7, 9-9") == [0, 1, 7, 9]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "3-1"], "'3-1' are no seeds: use 0-9, or 0,1,5"),
        (["--seeds", "x"], "'x' are no seeds"),
        (["--seeds", "0-3,2"], "'0-3,2' has a seed twice"),
        (["--seeds", "0-3", "--seed", "1"], "seed is given beside --seeds"),
        (["--seeds", "0-3", "seed=1"], "seed is given beside --seeds"),
        (["--seeds", "0-3", "horzon=1"], "horzon is not a hyperparameter"),
        (["--seeds", "0-3", "--resume", "auto"], "give --run-dir with the directory of all"),
        (["--seeds", "0-3", "--resume", "x", "--jobs", "0"], "0 is not in the range"),
    ],
)
def test_mistakes_are_said_once(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["train", "cartpole", *arguments])
    assert result.exit_code == 2
    assert message in result.output
    assert [*tmp_path.iterdir()] == []


def test_without_an_environment(tmp_path):
    result = CliRunner().invoke(main, ["train", "--seeds", "0-3"])
    assert result.exit_code == 2
    assert "there is no environment" in result.output


def test_options_are_left_out():
    words = [
        "cartpole",
        "--seeds",
        "0-9",
        "--jobs=2",
        "gamma=0.9",
        "-f",
        "x",
        "--run-dir",
        "--seeds",
        "--tracking",
        "off",
    ]
    assert without(words, "--seeds", "--jobs", "--run-dir") == [
        "cartpole",
        "gamma=0.9",
        "-f",
        "x",
        "--tracking",
        "off",
    ]


@pytest.fixture
def in_this_process(monkeypatch):
    """Let trainings be run one after the other in this process, which takes seconds less."""

    def run(children, at_once, interrupt, ended):
        for child in children:
            result = CliRunner().invoke(main, child.words)
            child.log.write_text(result.output)
            ended(child, result.exit_code)

    monkeypatch.setattr("rlstack.cli.seeds.run_children", run)


def train(*arguments, code=0):
    result = CliRunner().invoke(main, ["train", "cartpole", *TINY, "--run-dir", "all", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_two_seeds(tracked, in_this_process):
    said = train("--max-updates", "3", "--seeds", "0,7", "--jobs", "2")
    journals = [read_rows(Path(f"all/seed-{seed}", JOURNAL)) for seed in (0, 7)]
    first, second = ([row.metrics["returns/mean"] for row in journal] for journal in journals)
    assert len(first) == len(second) == 3
    assert first[2] != second[2]
    for seed, returns in ((0, first), (7, second)):
        assert re.search(rf"^ +{seed} +3 +192 +{returns[2]:.6g}  Done, not solved$", said, re.MULTILINE)
        assert f"seed: {seed}\n" in Path(f"all/seed-{seed}/config.yaml").read_text()
        assert Path(f"all/seed-{seed}/policy.safetensors").exists()
    picture = matplotlib.image.imread("all/learning_curves.png")
    assert picture.min() < picture.max()
    files = [Path("all", name, "tracking.json") for name in ("", "seed-0", "seed-7")]
    parent, *runs = (json.loads(file.read_text())["run_id"] for file in files)
    assert {tracked.get_run(run).data.tags["mlflow.parentRunId"] for run in runs} == {parent}
    assert tracked.get_run(parent).info.status == "FINISHED"
    assert "MLFLOW_RUN_CONTEXT" not in os.environ


def test_a_seed_that_fails_is_said(tmp_path, in_this_process, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = train("env_config.lenth_=1", "--seeds", "5", "--tracking", "off", code=3)
    assert "seed 5: rlstack: " in said
    assert "To go on:       rlstack train cartpole" in said
    assert said.rstrip().endswith("--seeds 5 --run-dir all --resume auto")


def test_so_many_at_once(tmp_path):
    children = [Child(f"{n}", ["--version"], tmp_path / f"{n}.log") for n in range(3)]
    codes = {}
    assert (
        run_children(children, 2, Interrupt(), lambda child, code: codes.update({child.name: code})) is None
    )
    assert codes == {"0": 0, "1": 0, "2": 0}
    assert all("rlstack, version" in child.log.read_text() for child in children)
    assert exit_code([0, 2, -signal.SIGKILL]) == 137
    assert exit_code([]) == 0


def test_none_is_begun_after_a_signal():
    interrupt = Interrupt()
    interrupt.signum = signal.SIGINT
    assert run_children([Child("a", ["--version"])], 2, interrupt, pytest.fail) == signal.SIGINT


@pytest.mark.slow
def test_what_is_interrupted_goes_on(tmp_path):
    words = ["train", "cartpole", *TINY, "--max-updates", "600", "--seeds", "0-1", "--jobs", "2"]
    words = [sys.executable, "-m", "rlstack", *words, "--tracking", "off", "--run-dir", "all"]
    process = subprocess.Popen(
        [*words, "--checkpoint-every", "10"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    runs = [tmp_path / "all" / f"seed-{seed}" / "checkpoints" for seed in (0, 1)]
    deadline = time.monotonic() + 120
    while not all(map(checkpoint.numbered, runs)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert said.count("Interrupted") >= 2
    again = shlex.split(said.partition("To go on:")[2])
    assert again[:2] == ["rlstack", "train"]
    done = subprocess.run([sys.executable, "-m", *again], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        rows = read_rows(tmp_path / "all" / f"seed-{seed}" / JOURNAL)
        assert [row.metrics["algorithm/steps"] for row in rows] == [*range(1, 601)]


def test_tables():
    assert lines_of(["a", "name"], [[1.25, "x"], [None, "long"]]) == ["   a  name", "1.25  x", "      long"]
