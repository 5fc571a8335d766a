"""Where MLflow keeps its runs, whatever characters a path has."""

import logging
import os
import shlex
import shutil
import sqlite3

import mlflow
import pytest
import sqlalchemy
from click.testing import CliRunner

from rlstack import Trainer
from rlstack.cli.app import main
from rlstack.common.errors import TrackingError
from rlstack.conditions import HitsUpperBound
from rlstack.env import DiscreteDummyEnv
from rlstack.tracking import uris
from rlstack.tracking.journal import JOURNAL, read_rows
from rlstack.tracking.mlflow_model import log_policy
from rlstack.tracking.mlflow_sender import MlflowSender
from rlstack.tracking.uris import make_store, public_uri, sqlite_file, sqlite_uri, tracking_uri

from ..helpers import SMALL

ODD = [
    " ", "ü", "%", "%20", "#", "?", "&", ";", "=", "+", "'", '"', "\\", "\n", "\t", "~", "😀", ":", "@", "[",
    "]", "{", "$", "*", "|", "<", "`", ",", "!", "%s", "%2F", "..", "?a=b&c", "://", "a:b@c",
]  # fmt: skip
CONFIG = {"num_envs": 2, "horizon": 2, "device": "cpu", "model_config": SMALL}


@pytest.mark.parametrize("odd", ODD)
def test_a_sqlite_uri_means_its_file_for_sqlalchemy_too(tmp_path, odd):
    folder = tmp_path / f"a{odd}b"
    folder.mkdir(parents=True)
    file = folder / "mlflow.db"
    uri = sqlite_uri(file)
    assert sqlite_file(uri) == file
    assert public_uri(uri) == uri
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE here (x)"))
    engine.dispose()
    assert file.is_file()
    # Neither too much quoted nor none at all makes another store of it.
    quoted = mlflow.utils.file_utils.path_to_local_sqlite_uri(str(file))
    assert public_uri(quoted) == public_uri(f"{quoted}?timeout=3") == uri
    assert sqlite_file(quoted.replace("sqlite:", "sqlite+pysqlite:")) == file


@pytest.mark.parametrize("odd", ODD)
def test_a_folder_of_mlflow_keeps_its_name(tmp_path, monkeypatch, odd):
    folder = tmp_path / f"a{odd}b"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    uri = (folder / "mlruns").as_uri()
    assert public_uri("./mlruns") == public_uri(uri) == uri
    assert mlflow.utils.file_utils.local_file_uri_to_path(uri) == str(folder / "mlruns")


@pytest.mark.parametrize(
    "uri",
    ["databricks", "uc", "http://host:5000/a%20b", "sqlite://", "arn:aws:sagemaker:x", "postgresql://h/d"],
)
def test_other_uris_stay(uri):
    assert public_uri(uri) == uri
    assert sqlite_file(uri) is None


def test_databases_in_memory_are_no_files():
    assert sqlite_file("sqlite:///:memory:") is sqlite_file("sqlite:///file:/a.db?uri=true") is None


def test_what_mlflow_cannot_do_is_said(tmp_path, monkeypatch):
    folder = tmp_path / os.fsdecode(b"a\x80b")
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    with pytest.raises(TrackingError, match=r"MLflow can't keep a store in .* isn't UTF-8"):
        tracking_uri()


def test_runs_in_odd_directories(tmp_path, mlflow_uri, monkeypatch, caplog):
    """A run, a second one, one that goes on, a model, and what the printed command sends."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    here = tmp_path / "my project ü%?20#&;=+'\"~😀:@[a] %20\\ \n?a=..%2Fb"
    here.mkdir()
    monkeypatch.chdir(here)
    make_tables = uris.make_tables

    def complete(file, home):
        # Making all tables takes long.
        shutil.copy(sqlite_file(mlflow_uri), file)
        with sqlite3.connect(file) as store:
            store.execute("DELETE FROM experiments")
        make_tables(file, home)

    monkeypatch.setattr(uris, "make_tables", complete)
    with caplog.at_level(logging.WARNING, logger="rlstack"):
        runs = []
        for name in ("one run", "two"):
            trainer = Trainer(DiscreteDummyEnv, algorithm_config=CONFIG, run_dir=name)
            trainer.run(stop_conditions=[HitsUpperBound("algorithm/steps", 2)])
            trainer.close()
            runs.append(trainer.tracker.run_id)
        assert trainer.tracker.is_complete
        log_policy(trainer.algorithm.policy, runs[1])
        assert caplog.text == ""
        send = MlflowSender._send
        monkeypatch.setattr(MlflowSender, "_send", lambda self, *, everything: 1 / 0)
        again = Trainer.resume("one run")
        again.run(stop_conditions=[HitsUpperBound("algorithm/steps", 4)])
        again.close()
        monkeypatch.setattr(MlflowSender, "_send", send)
    command = caplog.text.rpartition("to send them: ")[2].strip()
    rlstack, *arguments = shlex.split(command)
    assert rlstack == "rlstack"
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    client = mlflow.MlflowClient(sqlite_uri(here / "mlflow.db"))
    for name, run_id in zip(("one run", "two"), runs, strict=True):
        steps = [metric.step for metric in client.get_metric_history(run_id, "returns/mean")]
        assert steps == [row.step for row in read_rows(here / name / JOURNAL)]
    assert list((here / "mlruns").rglob("MLmodel"))
    # No folder of another name came to be.
    assert list(tmp_path.iterdir()) == [here]


def test_a_folder_that_is_in_use_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(uris, "make_tables", lambda file, home: file.touch())
    kept = tmp_path / "a%20b"
    kept.mkdir()
    make_store(f"sqlite:///{tmp_path}/a%20b/new/mlflow.db", str(tmp_path))
    assert (tmp_path / "a b" / "new" / "mlflow.db").is_file()
    assert list(kept.iterdir()) == []
