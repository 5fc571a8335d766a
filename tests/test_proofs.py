"""Small samples of what `make prove` proves."""

import json
import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from proofs import configs, damage, disk, envs, hostile, kills, memory, outages, seeds, signals, sweeps

from rlstack import RecurrentAlgorithm
from rlstack.cli.app import main


def test_damage(tmp_path):
    found = damage.prove(tmp_path, count=200)
    assert found["unnoticed"] == []


def test_generated_configurations(tmp_path):
    assert configs.generated(tmp_path, 300, random.Random(1)) == []


@pytest.mark.parametrize("number", range(0, len(configs.HAND_WRITTEN), 34))
def test_configurations_by_hand(tmp_path, number):
    assert configs.by_hand(tmp_path, number, configs.HAND_WRITTEN[number]) == ""


def test_a_good_configuration_is_good(tmp_path, tracked):
    file = tmp_path / "good.json"
    file.write_text(json.dumps(configs.GOOD))
    command = ["train", "-f", str(file), "num_sgd_iters=2", "--tracking", "off", "--run-dir", "out"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    # What was used is a configuration itself.
    again = CliRunner().invoke(
        main, ["train", "-f", "out/config.yaml", "--run-dir", "again", "--max-updates", "1"]
    )
    assert again.exit_code == 0, again.output
    texts = (Path(name, "config.yaml").read_text() for name in ("out", "again"))
    (first, one), (second, two) = (text.split("\n", 1) for text in texts)
    assert one == two
    # But not itself the same run.
    assert first != second
    assert first.startswith("id: ")
    assert "num_sgd_iters: 2" in one
    assert "keep: 2" in one


def test_a_full_disk(tmp_path):
    assert disk.one(tmp_path, "limit") == ""


def test_hostile_files(tmp_path):
    found = hostile.prove(tmp_path)
    assert found["faults"] == []
    assert found["files"] >= 30


# The one by a single SIGINT is tests/test_cli.py's.
@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_signals(tmp_path, number):
    assert signals.one(tmp_path / "run", number) == ""


@pytest.mark.slow
def test_one_seed(tmp_path):
    assert seeds.one(tmp_path, 3) == ""


@pytest.mark.slow
def test_memory(tmp_path, tracked):
    # Little is left behind at the start as well; the real bound is for many updates.
    assert memory.prove(tmp_path, updates=800, warm=400)["bytes_per_update"] < 8192


@pytest.mark.slow
def test_kills(tmp_path):
    found = kills.kill_often(tmp_path, 1, seed=7, updates=60)
    assert found["faults"] == []
    assert found["while_saving"] >= 1


@pytest.mark.parametrize("case", envs.CASES, ids=lambda case: case.name)
def test_misbehaving_environments(case):
    assert envs.one(case) == ""


def test_misbehaving_environments_of_recurrent_policies():
    assert [fault for case in envs.CASES[::7] if (fault := envs.one(case, RecurrentAlgorithm))] == []
    assert len(envs.CASES) >= 60


@pytest.mark.parametrize(
    ("name", "options"), envs.FAULTS, ids=lambda part: part if isinstance(part, str) else ""
)
@pytest.mark.parametrize("place", envs.PLACES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_injected_faults(name, options, place, value):
    assert envs.inject(name, options, place, value) == ""


@pytest.mark.slow
def test_outages(tmp_path, mlflow_uri):
    # A server makes its tables in ten seconds.
    shutil.copy(mlflow_uri.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    outage = ("pass", "refuse", "500", "lose", "hang", "lose", "refuse", "pass")
    found = outages.prove(tmp_path, seconds=1.0, trainings=(outage,), restart=False)
    assert found["faults"] == []
    assert found["rows"] >= 8
    # Other tests run beside; `make prove` holds it to 1 %.
    assert found["largest_share_of_an_iteration"] < 0.05


@pytest.mark.slow
def test_sweeps(tmp_path):
    found = sweeps.prove(tmp_path, trials=3, kills=1, updates=60)
    assert found["faults"] == []
    assert found["attempts"] > found["trials"] == 3
