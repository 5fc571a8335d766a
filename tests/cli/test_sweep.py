"""`rlstack sweep`, mostly in this process: what it leaves behind, and that it goes on."""

import csv
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
import psutil
import pytest
import yaml
from click.testing import CliRunner

from rlstack import Policy
from rlstack.cli.app import main
from rlstack.runs import checkpoint
from rlstack.tracking.journal import JOURNAL, read_rows

SMALL = {
    "num_envs": 8,
    "horizon": 8,
    "sgd_minibatch_size": None,
    "model_config": {"hiddens": [8]},
    "device": "cpu",
}
SWEEP = {
    "search": {
        "optimizer_config.lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "model_config.activation_fn": ["tanh", "relu"],
        "env_config.length": {"low": 0.4, "high": 0.6},
        "horizon": [4, 8],
    },
    "trials": 3,
    "seeds": [0, 1],
    "max_updates": 4,
    "reports": 2,
}
GOOD = {"env": "cartpole", "algorithm_config": SMALL, "sweep": SWEEP}


def searching(**search):
    return {"sweep": {**SWEEP, "search": search}}


def write(said, name="sweep.yaml"):
    Path(name).write_text(yaml.safe_dump(said))
    return name


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["sweep", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def journals(directory="runs/sweep"):
    """Return what every run of a sweep has written, by its name."""
    return {path.parent.name: path.read_bytes() for path in Path(directory).glob(f"*/{JOURNAL}")}


def test_a_sweep(tracked):
    said = run("-f", write(GOOD))
    home = Path("runs/sweep")
    assert {path.name for path in home.glob("trial-*")} == {
        f"trial-{n}-seed-{s}" for n in range(3) for s in (0, 1)
    }
    with (home / "trials.csv").open() as file:
        table = [*csv.DictReader(file)]
    assert [row["state"] for row in table] == ["complete"] * 3
    values = [float(row["returns/mean"]) for row in table]
    assert values == sorted(values, reverse=True)
    for row in table:
        for seed in (0, 1):
            directory = home / f"trial-{row['trial']}-seed-{seed}"
            used = yaml.safe_load((directory / "config.yaml").read_text())["algorithm_config"]
            assert used["seed"] == seed
            assert float(row["optimizer_config.lr"]) == float(used["optimizer_config"]["lr"])
            assert row["model_config.activation_fn"] == used["model_config"]["activation_fn"]
            assert float(row["env_config.length"]) == used["env_config"]["length"]
            assert int(row["horizon"]) == used["horizon"]
            # Its value is the mean over the last part, here two updates.
            last = [each.metrics["returns/mean"] for each in read_rows(directory / JOURNAL)]
            assert len(last) == 4
            assert float(row[f"seed {seed}"]) == pytest.approx(sum(last[2:]) / 2)
            Policy.load(directory / "policy.safetensors")
    for name in ("importance.png", "slices.png"):
        picture = matplotlib.image.imread(home / name)
        assert picture.min() < picture.max()
        assert f"{home / name}" in said
    assert f"Best:        trial {table[0]['trial']}" in said
    # All runs are nested below that of the sweep.
    [parent] = (json.loads((home / "tracking.json").read_text())["run_id"],)
    found = [json.loads((path / "tracking.json").read_text())["run_id"] for path in home.glob("trial-*")]
    assert {tracked.get_run(each).data.tags["mlflow.parentRunId"] for each in found} == {parent}
    data = tracked.get_run(parent).data
    assert data.metrics["best"] == pytest.approx(values[0])
    assert data.params["sweep.search.horizon"] == "[4, 8]"
    assert float(data.tags["best.optimizer_config.lr"]) == float(table[0]["optimizer_config.lr"])
    assert tracked.get_run(parent).info.status == "FINISHED"


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_over_once_and_is_reported_again(work):
    file = write({**GOOD, "sweep": {**SWEEP, "trials": 2, "seeds": [3]}})
    first = run("-f", file, "--tracking", "off", "--run-dir", "found")
    before = journals("found")
    again = run("-f", file, "--tracking", "off", "--run-dir", "found")
    assert journals("found") == before
    assert again.partition("\n")[2] == first[first.index("trial  state") :]
    assert run("--report", "found") == again.partition("\n")[2]
    assert "Its policy:  found/trial-" in again
    # The best point is what `rlstack train` takes, and gives the same run.
    point = shlex.split(again.partition("Its point:")[2])
    best = again.partition("Its policy:")[2].split()[0]
    without = {key: value for key, value in GOOD.items() if key != "sweep"}
    words = ["train", "-f", write(without, "run.yaml"), *point, "--seed", "3", "--max-updates", "4"]
    result = CliRunner().invoke(main, [*words, "--tracking", "off", "--run-dir", "again"])
    assert result.exit_code == 0, result.output
    one, other = (read_rows(Path(name, JOURNAL)) for name in (Path(best).parent, "again"))
    assert [row.metrics["rewards/mean"] for row in one] == [row.metrics["rewards/mean"] for row in other]
    # One trial more goes on with it, another search doesn't.
    write({**GOOD, "sweep": {**SWEEP, "trials": 3, "seeds": [3]}})
    run("-f", file, "--tracking", "off", "--run-dir", "found")
    assert {**journals("found"), **before} == journals("found") != before
    write({**GOOD, "sweep": {**SWEEP, "seeds": [3], "metric": "rewards/mean"}})
    said = run("-f", file, "--tracking", "off", "--run-dir", "found", code=2)
    assert "found is a sweep with another sweep.metric: put it back" in said


def test_a_trial_that_fails_is_one_of_many(work):
    # Half of the horizons can't be cut into such minibatches.
    search = {"horizon": [4, 5], "gamma": {"low": 0.9, "high": 0.99}}
    small = {**SMALL, "sgd_minibatch_size": 32}
    sweep = {**SWEEP, "search": search, "trials": 4, "seeds": [0], "max_updates": 1}
    said = run("-f", write({**GOOD, "algorithm_config": small, "sweep": sweep}), "--tracking", "off")
    failed = [line for line in said.splitlines() if " failed: " in line]
    assert 1 <= len(failed) < 10
    assert all("sgd_minibatch_size is 32, expected a divisor of the buffer's 40" in line for line in failed)
    assert "Best: " in said


STOPS = """
import os, signal
from pathlib import Path
from rlstack.env import CartPole

class Stops(CartPole):
    def reset(self, *, config=None):
        with Path("resets").open("a") as resets:
            resets.write("x")
        if Path("resets").stat().st_size == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return super().reset(config=config)
"""


def test_ctrl_c_ends_it_with_what_there_is(work):
    Path("stops.py").write_text(STOPS)
    search = {"gamma": {"low": 0.9, "high": 0.99}}
    sweep = {**SWEEP, "search": search, "trials": 2, "seeds": [0], "max_updates": 6}
    said = run("-f", write({**GOOD, "env": "stops.py:Stops", "sweep": sweep}), "--tracking", "off", code=130)
    assert re.search(r"^ +0  complete ", said, re.MULTILINE)
    assert re.search(r"^ +1  interrupted ", said, re.MULTILINE)
    again = shlex.split(said.partition("To go on:")[2])
    first = journals()["trial-1-seed-0"]
    said = run(*again[2:])
    assert "To go on" not in said
    # From where it was.
    assert journals()["trial-1-seed-0"].startswith(first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": None}, "sweep.yaml: env is missing"),
        ({"env": "cartpol"}, "sweep.yaml: cartpol is not a built-in environment"),
        ({"sweep": None}, "sweep.yaml: there is no section sweep with a search"),
        ({"swep": {}}, "sweep.yaml: swep is not a key"),
        ({"sweep": {"max_updates": 3}}, "there is no section sweep with a search"),
        (
            {"sweep": {**SWEEP, "trals": 3}},
            "sweep.yaml: sweep.trals is not a key of sweep: did you mean trials?",
        ),
        (
            {"sweep": {**SWEEP, "search": {"gama": [1]}}},
            "sweep.search.gama is not a hyperparameter: did you mean",
        ),
        (
            {"sweep": {**SWEEP, "search": {"gamma": {"low": 0.5, "high": 2}}}},
            "sweep.search.gamma is 2, expected",
        ),
        (
            {"sweep": {**SWEEP, "search": {"horizon": [2, "x"]}}},
            "sweep.search.horizon is 'x', expected an integer",
        ),
        ({"sweep": {**SWEEP, "search": {"seed": [1, 2]}}}, "sweep.search.seed can't be searched: give seeds"),
        ({"sweep": {**SWEEP, "search": {"model_cls": ["no.Such"]}}}, "there is no module no"),
    ],
)
def test_mistakes_are_said_before_anything_is_made(changes, message, work):
    assert message in run("-f", write({**GOOD, **changes}), code=2)
    assert [path.name for path in work.iterdir()] == ["sweep.yaml"]


def test_a_statistic_that_there_is_not_ends_it(work):
    file = write({**GOOD, "sweep": {**SWEEP, "metric": "returns/men"}})
    result = CliRunner().invoke(main, ["sweep", "-f", file, "--tracking", "off"])
    assert result.exit_code == 2
    assert "returns/men is not a statistic: did you mean returns/mean?" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a file"),
        (["-f", "sweep.yaml", "--report", "."], "give a file"),
        (["--report", "."], "not the directory of a sweep: there is no sweep.yaml in it"),
    ],
)
def test_what_is_asked_for_in_vain(arguments, message, work):
    write(GOOD)
    if arguments == ["--report", "."]:
        Path("sweep.yaml").unlink()
    assert message in run(*arguments, code=2)


def test_without_optuna(work, monkeypatch):
    monkeypatch.setattr("rlstack.cli.sweep_command.find_spec", lambda name: None)
    assert "a sweep needs Optuna: pip install 'rlstack[sweep]'" in run("-f", write(GOOD), code=2)


def command(*arguments, **options):
    return subprocess.Popen([sys.executable, "-m", "rlstack", *arguments], start_new_session=True, **options)


def wait_until(holds, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_of_two_processes_that_is_ended_goes_on(signum, work):
    """Ended by Ctrl-C, it writes checkpoints; killed, its workers end too."""
    sweep = {**SWEEP, "trials": 4, "seeds": [0], "max_updates": 400}
    trainer = {"checkpoint_config": {"every_updates": 10}}
    file = write({**GOOD, "sweep": sweep, "trainer": trainer})
    words = ["sweep", "-f", file, "--jobs", "2", "--tracking", "off"]
    process = command(*words, stdout=subprocess.DEVNULL)
    runs = [Path(f"runs/sweep/trial-{n}-seed-0") for n in (0, 1)]
    wait_until(lambda: all(checkpoint.numbered(path / "checkpoints") for path in runs), process)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    os.kill(process.pid, signum)
    assert process.wait(60) == (130 if signum == signal.SIGINT else -signal.SIGKILL)
    psutil.wait_procs(workers, 60)
    assert not any(worker.is_running() for worker in workers)
    begun = [checkpoint.numbered(path / "checkpoints")[0].name for path in runs]
    assert "ckpt-000000400" not in begun
    identities = [(path / "config.yaml").read_text().partition("\n")[0] for path in runs]
    result = subprocess.run([sys.executable, "-m", "rlstack", *words], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert [(path / "config.yaml").read_text().partition("\n")[0] for path in runs] == identities
    for n in range(4):
        steps = [
            row.metrics["algorithm/steps"] for row in read_rows(Path(f"runs/sweep/trial-{n}-seed-0", JOURNAL))
        ]
        assert steps in ([*range(1, 401)], [*range(1, len(steps) + 1)])
    with Path("runs/sweep/trials.csv").open() as table:
        assert {row["state"] for row in csv.DictReader(table)} <= {"complete", "pruned"}
