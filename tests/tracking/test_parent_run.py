"""The MLflow run above those of a sweep."""

import json
import os

import pytest

from rlstack.common.errors import TrackingError
from rlstack.tracking.parent_run import ParentRun

CONTEXT = "MLFLOW_RUN_CONTEXT"


def test_what_begins_meanwhile_is_below_it(tracked, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv(CONTEXT, json.dumps({"team": "walkers"}))
    parent = ParentRun(tmp_path, {"env": "cartpole", "trials": "3"})
    # It isn't the active one, to which a trainer here would log.
    assert mlflow.active_run() is None
    with mlflow.start_run() as child:
        pass
    parent.close({"best": 2.5}, {"best.gamma": "0.9"}, is_whole=False)
    assert json.loads(os.environ[CONTEXT]) == {"team": "walkers"}
    tags = tracked.get_run(child.info.run_id).data.tags
    run = tracked.get_run(tags["mlflow.parentRunId"])
    assert tags["team"] == "walkers"
    assert (run.info.status, run.info.run_name) == ("KILLED", tmp_path.name)
    assert (run.data.params["trials"], run.data.metrics["best"]) == ("3", 2.5)
    assert run.data.tags["best.gamma"] == "0.9"
    # It is gone on with.
    again = ParentRun(tmp_path, {"env": "cartpole", "trials": "3"})
    assert tracked.get_run(run.info.run_id).info.status == "RUNNING"
    assert json.loads(os.environ[CONTEXT])["mlflow.parentRunId"] == run.info.run_id
    again.close({}, {}, is_whole=True)
    assert tracked.get_run(run.info.run_id).info.status == "FINISHED"


def test_without_mlflow_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.delenv(CONTEXT, raising=False)
    with pytest.raises(TrackingError):
        ParentRun(tmp_path, {"env": "cartpole"})
    assert CONTEXT not in os.environ
