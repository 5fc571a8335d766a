"""A program may change its working directory: what was named by a relative path stays where it was."""

import json
import os
import shutil
import sys

import mlflow
import pytest
from click.testing import CliRunner

from rlstack import Trainer
from rlstack.cli.app import main
from rlstack.common.errors import TrackingError
from rlstack.conditions import HitsUpperBound
from rlstack.env import DiscreteDummyEnv
from rlstack.runs import checkpoint
from rlstack.tracking.journal import JOURNAL, read_rows
from rlstack.tracking.sync import sync
from rlstack.tracking.uris import absolute_uri

from .helpers import SMALL

CONFIG = {"num_envs": 4, "horizon": 4, "device": "cpu", "seed": 0, "model_config": SMALL}


class Wanders(DiscreteDummyEnv):
    """Changes the working directory when it is made, and at each reset."""

    def __init__(self, num_envs, /, **kwargs):
        super().__init__(num_envs, **kwargs)
        os.chdir("/")

    def reset(self, *, config=None):
        os.chdir("/")
        return super().reset(config=config)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Work in an empty directory beside another one."""
    (tmp_path / "home").mkdir()
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def store(home, mlflow_uri, monkeypatch):
    """An MLflow store in the working directory, and no settings that say where to track."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(mlflow_uri.removeprefix("sqlite:///"), home / "mlflow.db")
    yield home / "mlflow.db"
    mlflow.set_tracking_uri(None)


def away(home):
    return sorted(path.name for path in (home.parent / "away").iterdir())


@pytest.mark.parametrize("env_cls", [Wanders, DiscreteDummyEnv])
def test_a_run_stays_where_it_began(env_cls, home):
    options = {"run_dir": "run", "checkpoint_config": {"every_updates": 2}, "track": False}
    trainer = Trainer(env_cls, algorithm_config=CONFIG, **options)
    os.chdir(home.parent / "away")
    trainer.run(stop_conditions=[HitsUpperBound("algorithm/steps", 3)])
    trainer.close()
    os.chdir(home)
    with Trainer.resume("run", env_cls=env_cls, algorithm_config={"gamma": 0.5}, track=False) as trainer:
        os.chdir(home.parent / "away")
        trainer.step()
        assert trainer.save() == home / "run" / "checkpoints" / "ckpt-000000004"
    assert [row.step for row in read_rows(home / "run" / JOURNAL)] == [16, 32, 48, 64]
    assert checkpoint.numbered(home / "run" / "checkpoints")[0].name == "ckpt-000000004"
    assert away(home) == []


WANDERS = """
import os
from rlstack.env import DiscreteDummyEnv
os.chdir("/")
class Env(DiscreteDummyEnv):
    def __init__(self, num_envs, /, **kwargs):
        super().__init__(num_envs, **kwargs)
        os.chdir("/")
    def reset(self, *, config=None):
        os.chdir("/")
        return super().reset(config=config)
"""


def run_in(path):
    """Return the statuses, and last updates, of the runs in a store."""
    client = mlflow.MlflowClient(f"sqlite:///{path}")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return [(run.info.status, run.data.metrics.get("algorithm/steps")) for run in runs]


@pytest.mark.parametrize("setting", [None, "variable", "function"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_metrics_go_where_they_were_to_go(when, setting, store, home, monkeypatch):
    before = run_in(store)
    if setting == "variable":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    elif setting == "function":
        mlflow.set_tracking_uri("sqlite:///mlflow.db")
    trainer = Trainer(DiscreteDummyEnv, algorithm_config=CONFIG, run_dir="run")
    if when == "after":
        trainer.step()
    os.chdir(home.parent / "away")
    trainer.step()
    trainer.close()
    assert trainer.tracker.run.uri == f"sqlite:///{store}"
    after = run_in(store)
    assert len(after) == len(before) + 1
    assert ("FINISHED", float(trainer.steps)) in after
    assert away(home) == []
    # MLflow's settings are as they were.
    expected = {None: f"sqlite:///{home.parent}/away/mlflow.db"}
    assert mlflow.get_tracking_uri() == expected.get(setting, "sqlite:///mlflow.db")


class TestWhereNothingSaysWhereToTrack:
    """A run that is gone on with elsewhere stays in its store, if that is a file of this machine."""

    @pytest.fixture
    def run(self, store, home):
        with Trainer(DiscreteDummyEnv, algorithm_config=CONFIG, run_dir="run") as trainer:
            trainer.step()
            trainer.save()
        os.chdir(home.parent / "away")
        return home / "run"

    def go_on(self, run):
        with Trainer.resume(run) as trainer:
            trainer.step()
            trainer.save()
        return trainer.tracker

    def test_it_stays(self, run, store, home, caplog):
        before = run_in(store)
        tracker = self.go_on(run)
        assert (tracker.uri, tracker.is_complete) == (f"sqlite:///{store}", True)
        assert len(run_in(store)) == len(before)
        assert sync(run).run_id == tracker.run_id
        assert away(home) == []
        assert caplog.text == ""

    def test_a_server_that_a_file_names_is_sent_nothing(self, run, store, home, caplog):
        shutil.copy(store, home.parent / "away")
        said = json.loads((run / "tracking.json").read_text())
        (run / "tracking.json").write_text(json.dumps({**said, "uri": "http://127.0.0.1:9"}))
        here = f"sqlite:///{home.parent}/away/mlflow.db"
        assert self.go_on(run).uri == here
        text = f"metrics go to the MLflow store {here} from now on, until now it was http://127.0.0.1:9: "
        assert caplog.text.count(text) == len(caplog.records) == 1

    def test_a_store_that_is_gone_is_not_made_anew(self, run, store, home, caplog):
        shutil.move(store, home.parent / "away")
        assert self.go_on(run).uri == f"sqlite:///{home.parent}/away/mlflow.db"
        assert caplog.text.count(f"until now it was sqlite:///{store}: ") == 1
        assert not store.exists()

    def test_what_is_named_counts(self, run, store, home, monkeypatch, caplog):
        shutil.copy(store, home.parent / "other.db")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///../other.db")
        assert self.go_on(run).uri == f"sqlite:///{home.parent}/other.db"
        assert caplog.text.count(f"until now it was sqlite:///{store}: ") == 1
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///../third.db")
        with pytest.raises(TrackingError, match="is tracked in"):
            sync(run)

    def test_the_callers_active_run_counts(self, run, store, home, caplog):
        shutil.copy(store, home.parent / "away")
        with mlflow.start_run() as active:
            assert self.go_on(run).run_id == active.info.run_id
        assert ("FINISHED", 2.0) in run_in(home.parent / "away" / "mlflow.db")
        assert caplog.text == ""


def test_on_the_command_line(store, home, monkeypatch):
    (home / "wandering_env.py").write_text(WANDERS)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    options = ["num_envs=4", "horizon=4", "device=cpu", "model_config.hiddens=[4]", "--run-dir", "run"]
    train = ["train", "wandering_env.py:Env", *options, "--max-updates", "2"]
    for command in (train, ["train", "--resume", "run", "--max-updates", "3"], ["sync", "run"]):
        os.chdir(home)
        result = CliRunner().invoke(main, [*command, "--tracking", "sqlite:///mlflow.db"])
        assert result.exit_code == 0, result.output
        assert f"sqlite:///{store}" in result.output
        if command[0] == "train":
            assert "Policy:         run/policy.safetensors" in result.output
    found = {path.name for path in (home / "run").iterdir()}
    assert found >= {"policy.safetensors", "config.yaml", "checkpoints", JOURNAL}
    assert len(list(read_rows(home / "run" / JOURNAL))) == 3
    assert ("FINISHED", 3.0) in run_in(store)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:///runs.db", "sqlite:////home/me/runs.db"),
        ("sqlite:///../runs.db", "sqlite:////home/runs.db"),
        ("sqlite:////data/runs.db", "sqlite:////data/runs.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("file:mlruns", "file:///home/me/mlruns"),
        ("file:./mlruns", "file:///home/me/mlruns"),
        ("file:/data/mlruns", "file:///data/mlruns"),
        ("file:///data/mlruns", "file:///data/mlruns"),
        ("mlruns", "file:///home/me/mlruns"),
        ("./mlruns", "file:///home/me/mlruns"),
        ("/data/mlruns", "file:///data/mlruns"),
        ("http://server:5000", "http://server:5000"),
        ("postgresql://user:secret@host/db", "postgresql://user:secret@host/db"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
        ("", ""),
    ],
)
def test_paths_of_stores(uri, expected):
    assert absolute_uri(uri, "/home/me") == expected
