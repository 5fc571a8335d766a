"""A real MLflow SQLite store, read back."""

import contextlib
import http.server
import json
import logging
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time

import mlflow
import pytest

from rlstack import Trainer
from rlstack.common.errors import TrackingError
from rlstack.conditions import HitsUpperBound
from rlstack.env import DiscreteDummyEnv
from rlstack.tracking import mlflow_sender
from rlstack.tracking.faults import explain, say_why
from rlstack.tracking.journal import JOURNAL, Journal, read_rows
from rlstack.tracking.metric_rows import MetricQueue
from rlstack.tracking.mlflow_run import MlflowRun
from rlstack.tracking.mlflow_sender import MlflowSender
from rlstack.tracking.sync import sync
from rlstack.tracking.uris import public_uri

from ..helpers import SMALL


class Optional(DiscreteDummyEnv):
    """It takes any option and needs none."""

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, device=device)


CONFIG = {"num_envs": 4, "horizon": 4, "device": "cpu", "model_config": SMALL}


def make(**changes):
    return Trainer(DiscreteDummyEnv, algorithm_config={**CONFIG, **changes})


def after(updates):
    return [HitsUpperBound("algorithm/steps", updates)]


def test_every_update_and_every_parameter_can_be_read_back(tracked):
    trainer = make(gamma=0.5)
    history = list(trainer.updates(stop_conditions=after(25)))
    run = tracked.get_run(trainer.tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.end_time is not None
    assert run.data.params == trainer.algorithm.params
    assert run.data.params["gamma"] == "0.5"
    assert run.data.params["model_config.hiddens"] == "[16]"
    assert run.data.tags["rlstack.env"] == "DiscreteDummyEnv"
    assert run.data.metrics.keys() == history[0].keys()
    for key in ("returns/mean", "losses/total", "algorithm/steps", "memory/percent"):
        metrics = tracked.get_metric_history(run.info.run_id, key)
        recorded = sorted((metric.step, metric.value) for metric in metrics)
        assert recorded == [(int(stats["env/total_steps"]), pytest.approx(stats[key])) for stats in history]


def test_the_callers_active_run_is_used_and_left_open(tracked):
    with mlflow.start_run() as active:
        trainer = make()
        trainer.run(stop_conditions=after(2))
        assert trainer.tracker.run_id == active.info.run_id
        assert tracked.get_run(active.info.run_id).info.status == "RUNNING"
        assert mlflow.active_run().info.run_id == active.info.run_id
    assert tracked.get_run(active.info.run_id).data.metrics["algorithm/steps"] == 2


def test_mlflows_settings_are_obeyed(tracked, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the user")
    trainer = make()
    trainer.run(stop_conditions=after(1))
    run = tracked.get_run(trainer.tracker.run_id)
    assert run.info.experiment_id == tracked.get_experiment_by_name("of the user").experiment_id


def test_trainers_side_by_side_have_runs_of_their_own(tracked):
    one, two = make(), make()
    for _ in range(3):
        one.step()
        two.step()
    two.step()
    one.tracker.close()
    two.tracker.close()
    assert one.tracker.run_id != two.tracker.run_id
    assert tracked.get_run(one.tracker.run_id).data.metrics["algorithm/steps"] == 3
    assert tracked.get_run(two.tracker.run_id).data.metrics["algorithm/steps"] == 4


def test_a_run_goes_on(tracked):
    trainer = make()
    trainer.run(stop_conditions=after(2))
    run_id = trainer.tracker.run_id
    trainer.step()
    trainer.tracker.close("KILLED")
    assert trainer.tracker.run_id == run_id
    run = tracked.get_run(run_id)
    assert (run.info.status, run.data.metrics["algorithm/steps"]) == ("KILLED", 3)
    assert len(tracked.get_metric_history(run_id, "returns/mean")) == 3


def senders():
    """Return the threads that send to MLflow; other tests' trainers may still have theirs."""
    return {thread for thread in threading.enumerate() if thread.name == "rlstack-mlflow"}


def test_nothing_happens_before_the_first_step(tracked):
    before = senders()
    trainer = make()
    trainer.eval()
    trainer.tracker.close()
    assert senders() <= before
    assert trainer.tracker.run_id is None


def test_no_thread_is_left_after_a_run(tracked):
    before = senders()
    make().run(stop_conditions=after(1))
    assert senders() <= before


def row(step, **values):
    return {"env/total_steps": float(step), **values}


def test_values_that_are_not_finite_are_named_instead(tracked):
    tracker = MlflowSender(MlflowRun({}, {}))
    tracker.log(row(1, a=float("nan"), b=1.0))
    tracker.log(row(2, a=2.0, b=float("inf")))
    tracker.close()
    run = tracked.get_run(tracker.run_id)
    assert run.data.tags["rlstack.nonfinite"] == "a, b"
    assert run.data.metrics == {"a": 2.0, "b": 1.0, "env/total_steps": 2.0}


def test_rows_are_thinned_evenly_only_when_too_many_wait(tracked, monkeypatch):
    monkeypatch.setattr(mlflow_sender, "MetricQueue", lambda: MetricQueue(64))
    monkeypatch.setattr(mlflow_sender, "_INTERVAL", 1000.0)
    ready, go = threading.Event(), threading.Event()
    connect = MlflowSender._connect

    def wait_then_connect(self):
        ready.set()
        go.wait(30)
        connect(self)

    monkeypatch.setattr(MlflowSender, "_connect", wait_then_connect)
    tracker = MlflowSender(MlflowRun({}, {}))
    for step in range(1, 201):
        tracker.log(row(step, a=float(step)))
    ready.wait(30)
    go.set()
    tracker.close()
    steps = sorted(metric.step for metric in tracked.get_metric_history(tracker.run_id, "a"))
    # 200 rows, at most 64 waiting: every fourth one, and the last.
    assert steps == list(range(4, 201, 4))
    assert "not recorded" in tracked.get_run(tracker.run_id).data.tags["rlstack.thinned"]


def test_the_last_update_is_always_recorded(tracked):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_sender, "MetricQueue", lambda: MetricQueue(4))
        tracker = MlflowSender(MlflowRun({}, {}))
        patch.setattr(tracker, "_start", lambda: None)
        for step in range(1, 8):
            tracker.log(row(step))
    tracker._start()
    tracker.close()
    assert tracked.get_run(tracker.run_id).data.metrics["env/total_steps"] == 7


def test_names_that_mlflow_does_not_allow(tracked):
    tracker = MlflowSender(MlflowRun({"env_config.mass[kg]": "1"}, {}))
    tracker.log(row(1))
    tracker.close()
    assert tracked.get_run(tracker.run_id).data.params == {"env_config.mass_kg_": "1"}


def test_parameters_that_a_run_has_other_values_of_become_tags(tracked, caplog):
    with mlflow.start_run() as active, caplog.at_level(logging.WARNING, logger="rlstack.tracking.mlflow_run"):
        for gamma in (0.5, 0.6):
            make(gamma=gamma).run(stop_conditions=after(2))
    assert len(tracked.get_metric_history(active.info.run_id, "returns/mean")) == 4
    data = tracked.get_run(active.info.run_id).data
    assert (data.params["gamma"], data.tags["rlstack.changed.gamma"]) == ("0.5", "0.6")
    [said] = caplog.records
    assert "gamma" in said.message


def test_refused_parameters_cost_no_metrics(tracked, monkeypatch, caplog):
    log_batch = mlflow.MlflowClient.log_batch

    def refuse(self, run_id, metrics=(), params=(), tags=()):
        if params:
            raise mlflow.MlflowException("no", mlflow.protos.databricks_pb2.INVALID_PARAMETER_VALUE)
        log_batch(self, run_id, metrics=metrics, tags=tags)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", refuse)
    trainer = make()
    with caplog.at_level(logging.WARNING, logger="rlstack.tracking.mlflow_run"):
        trainer.run(stop_conditions=after(2))
    assert "refuses the parameters" in caplog.text
    assert len(tracked.get_metric_history(trainer.tracker.run_id, "returns/mean")) == 2


def test_a_hanging_server_does_not_hold_the_program(tracked, monkeypatch, caplog):
    before = senders()
    go = threading.Event()
    send = MlflowSender._send
    monkeypatch.setattr(
        MlflowSender, "_send", lambda self, *, everything: go.wait(30) and send(self, everything=everything)
    )
    tracker = MlflowSender(MlflowRun({}, {}))
    tracker.log(row(1))
    with caplog.at_level(logging.WARNING, logger="rlstack.tracking.mlflow_sender"):
        tracker.close(timeout=0.5)
    assert "longer than" in caplog.text
    tracker.log(row(2))
    assert senders() - before == {tracker._thread}
    go.set()
    tracker._thread.join(30)
    assert len(tracked.get_metric_history(tracker.run_id, "env/total_steps")) == 2


@pytest.mark.slow
def test_two_processes_make_one_store(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    processes = [
        subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0
        assert "could not be sent" not in errors
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs(["0"])
    assert [run.data.metrics["algorithm/steps"] for run in runs] == [3, 3]
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]


def test_many_parameters(tracked):
    params = {f"p{i}": str(i) for i in range(250)}
    tracker = MlflowSender(MlflowRun(params, {}))
    tracker.log(row(1))
    tracker.close()
    assert tracked.get_run(tracker.run_id).data.params == params


def test_a_failing_store_warns_and_training_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    trainer = make()
    with caplog.at_level(logging.WARNING, logger="rlstack.tracking.mlflow_sender"):
        stats = trainer.run(stop_conditions=after(3))
    assert stats["algorithm/steps"] == 3
    assert trainer.tracker.error is not None
    assert "3 updates could not be sent to MLflow" in caplog.text


def test_outages_lose_nothing(tracked, monkeypatch, caplog):
    monkeypatch.setattr(mlflow_sender, "_INTERVAL", 0.01)
    monkeypatch.setattr(mlflow_sender, "_SHARE", 10.0)
    monkeypatch.setattr(mlflow_sender, "_RETRY", 0.01)
    failures = [True, False, True, True, False]
    send = MlflowSender._send

    def unreliable(self, *, everything):
        if failures and failures.pop(0):
            raise ConnectionError("refused")
        send(self, everything=everything)

    monkeypatch.setattr(MlflowSender, "_send", unreliable)
    trainer = make()
    for _ in range(30):
        trainer.step()
    while failures:
        time.sleep(0.01)
    trainer.close()
    assert trainer.tracker.error is None
    assert len(tracked.get_metric_history(trainer.tracker.run_id, "returns/mean")) == 30


SCRIPT = """
from rlstack import Trainer
from rlstack.env import DiscreteDummyEnv
trainer = Trainer(DiscreteDummyEnv, algorithm_config={"num_envs": 4, "horizon": 4})
for _ in range(3):
    trainer.step()
"""


def test_a_script_that_just_ends_is_tracked_to_its_end(tmp_path, mlflow_uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "script")
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient(mlflow_uri)
    [run] = client.search_runs([client.get_experiment_by_name("script").experiment_id])
    assert run.data.metrics["algorithm/steps"] == 3
    assert run.info.status == "FINISHED"


def make_in(directory, **changes):
    every = {"every_updates": 2, "every_seconds": None}
    return Trainer(
        DiscreteDummyEnv,
        algorithm_config={**CONFIG, "seed": 0},
        run_dir=directory,
        checkpoint_config=every,
        **changes,
    )


def history(client, run_id, key="returns/mean"):
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, key))


def rows_of(directory, key="returns/mean"):
    return [(row.step, row.metrics[key]) for row in read_rows(directory / JOURNAL)]


class TestJournaled:
    def test_a_resumed_run_goes_on_with_its_mlflow_run_and_journal(self, tracked, tmp_path):
        trainer = make_in(tmp_path / "run")
        for _ in range(5):
            trainer.step()
        # As if it were killed: rows of five updates are everywhere, the last checkpoint is of the fourth.
        trainer.tracker.close("RUNNING")
        trainer.run_dir.close()
        again = Trainer.resume(tmp_path / "run")
        again.run(stop_conditions=after(8))
        again.close()
        assert again.tracker.run_id == trainer.tracker.run_id
        assert tracked.get_run(again.tracker.run_id).info.run_name == "run"
        steps = [16 * n for n in range(1, 9)]
        assert [step for step, _ in rows_of(tmp_path / "run")] == steps
        assert history(tracked, again.tracker.run_id) == rows_of(tmp_path / "run")
        assert tracked.get_run(again.tracker.run_id).info.status == "FINISHED"

    def test_resuming_says_nothing_of_parameters_that_are_the_same(self, tracked, tmp_path, caplog):
        trainer = Trainer(
            Optional,
            # A model of default options, which are tuples.
            algorithm_config={
                "num_envs": 4,
                "horizon": 4,
                "device": "cpu",
                "gamma": 1,
                "lr_schedule": ((0, 1e-3), (100, 1)),
                "optimizer_config": {"betas": (0.9, 0.99)},
                "env_config": {"sizes": (1, 2.0), "scale": 1, "limit": float("inf")},
            },
            run_dir=tmp_path / "run",
        )
        trainer.run(stop_conditions=after(2))
        trainer.close()
        with caplog.at_level(logging.WARNING, logger="rlstack"):
            again = Trainer.resume(tmp_path / "run")
            again.run(stop_conditions=after(4))
            again.close()
        assert caplog.text == ""
        data = tracked.get_run(again.tracker.run_id).data
        assert data.params == trainer.algorithm.params == again.algorithm.params
        assert not [key for key in data.tags if key.startswith("rlstack.changed")]

    def test_parameters_that_differ_from_now_on_are_said_once(self, tracked, tmp_path, caplog):
        make_in(tmp_path / "run").run(stop_conditions=after(1))
        said = []
        for updates, config in enumerate([{"gamma": 0.5}, None, {"gamma": 0.95}, None], 2):
            caplog.clear()
            with caplog.at_level(logging.WARNING, logger="rlstack"):
                again = Trainer.resume(tmp_path / "run", algorithm_config=config)
                again.run(stop_conditions=after(updates))
                again.close()
            data = tracked.get_run(again.tracker.run_id).data
            assert data.params["gamma"] == "0.95"
            said.append((data.tags.get("rlstack.changed.gamma"), caplog.text.count("gamma")))
        assert said == [("0.5", 1), ("0.5", 0), (None, 0), (None, 0)]

    def test_rows_that_mlflow_has_are_not_sent_again_however_late_they_come(
        self, tracked, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(mlflow_sender, "_INTERVAL", 0.01)
        monkeypatch.setattr(mlflow_sender, "_SHARE", 10.0)
        trainer = make_in(tmp_path / "run")
        for _ in range(3):
            trainer.step()
        trainer.save()
        for _ in range(200):
            trainer.algorithm.collect()
            stats = trainer.algorithm.step() | {"env/total_steps": float(trainer.algorithm.env_steps)}
            trainer.tracker.log(stats | {"returns/mean": 1.0})
        trainer.tracker.close("RUNNING")
        trainer.run_dir.close()
        assert len(history(tracked, trainer.tracker.run_id)) == 203
        again = Trainer.resume(tmp_path / "run")
        for _ in range(210):
            again.step()
            if again.steps == 20:
                # From here on it is known what MLflow has.
                while again.tracker._client is None:
                    time.sleep(0.05)
        again.close()
        steps = [step for step, _ in history(tracked, again.tracker.run_id)]
        assert steps == [16 * n for n in range(1, 214)]

    def test_what_could_not_be_sent_is_sent_by_sync(self, tracked, tmp_path, monkeypatch, caplog):
        def refused(self, *, everything):
            raise ConnectionError("refused")

        with monkeypatch.context() as patch:
            patch.setattr(MlflowSender, "_send", refused)
            trainer = make_in(tmp_path / "run")
            trainer.run(stop_conditions=after(4))
            trainer.close()
        assert f"rlstack sync {tmp_path / 'run'} --tracking sqlite:///" in caplog.text
        assert not trainer.tracker.is_complete
        assert history(tracked, trainer.tracker.run_id) == []
        for _ in range(2):
            found = sync(tmp_path / "run")
            assert (found.run_id, found.status) == (trainer.tracker.run_id, "FINISHED")
            assert history(tracked, found.run_id) == rows_of(tmp_path / "run")
        assert len(rows_of(tmp_path / "run")) == 4
        assert tracked.get_run(found.run_id).info.status == "FINISHED"

    def test_a_run_that_mlflow_has_lost_is_sent_again(self, tracked, tmp_path):
        trainer = make_in(tmp_path / "run")
        trainer.run(stop_conditions=after(4))
        trainer.close()
        tracked.delete_run(trainer.tracker.run_id)
        again = Trainer.resume(tmp_path / "run")
        again.run(stop_conditions=after(6))
        again.close()
        assert again.tracker.run_id != trainer.tracker.run_id
        assert history(tracked, again.tracker.run_id) == rows_of(tmp_path / "run")

    def test_journals_are_written_without_tracking(self, tracked, tmp_path):
        trainer = make_in(tmp_path / "run", track=False)
        stats = trainer.run(stop_conditions=after(3))
        trainer.close()
        assert len(rows_of(tmp_path / "run")) == 3
        [*_, last] = read_rows(tmp_path / "run" / JOURNAL)
        assert last.metrics == stats
        with pytest.raises(TrackingError, match="was never tracked"):
            sync(tmp_path / "run")

    def test_sync_sends_nowhere_else(self, tracked, tmp_path, monkeypatch):
        trainer = make_in(tmp_path / "run")
        trainer.run(stop_conditions=after(2))
        trainer.close()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
        with pytest.raises(TrackingError, match="give --tracking sqlite:///"):
            sync(tmp_path / "run")
        assert not (tmp_path / "other.db").exists()

    def test_a_damaged_record_costs_the_run_not_the_metrics(self, tracked, tmp_path, caplog):
        trainer = make_in(tmp_path / "run")
        trainer.run(stop_conditions=after(2))
        trainer.close()
        file = tmp_path / "run" / "tracking.json"
        file.write_text(file.read_text().replace('"run_id"', '"run"'))
        with pytest.raises(TrackingError, match=r"tracking\.json is damaged"):
            sync(tmp_path / "run")
        again = Trainer.resume(tmp_path / "run")
        again.run(stop_conditions=after(4))
        again.close()
        assert "MLflow gets a new run with all metrics" in caplog.text
        assert history(tracked, again.tracker.run_id) == rows_of(tmp_path / "run")
        assert len(rows_of(tmp_path / "run")) == 4

    def test_wide_rows_are_sent_in_batches_that_mlflow_takes(self, tracked, tmp_path):
        wide = {f"wide/{n}": float(n) for n in range(700)}
        tracker = MlflowSender(MlflowRun({}, {}), Journal(tmp_path / JOURNAL))
        for step in range(1, 6):
            tracker.log(row(step, **(wide if step % 2 else {})))
        tracker.close()
        assert tracker.error is None
        assert [step for step, _ in history(tracked, tracker.run_id, "wide/699")] == [1, 3, 5]

    def test_sync_does_not_say_that_all_is_well_if_the_server_hangs(self, tracked, tmp_path, monkeypatch):
        trainer = make_in(tmp_path / "run")
        trainer.run(stop_conditions=after(2))
        trainer.close()
        go = threading.Event()
        monkeypatch.setattr(MlflowSender, "_send", lambda self, *, everything: go.wait(30))
        with pytest.raises(TrackingError, match="no answer"):
            sync(tmp_path / "run", timeout=0.5)
        go.set()

    def test_a_status_that_was_said_stays(self, tracked, tmp_path):
        trainer = make_in(tmp_path / "run")
        trainer.step()
        trainer.tracker.close("FAILED")
        trainer.close()
        assert tracked.get_run(trainer.tracker.run_id).info.status == "FAILED"

    def test_it_is_waited_once_for_a_server_that_hangs(self, tracked, tmp_path, monkeypatch):
        monkeypatch.setattr(mlflow_sender, "_PATIENCE", 1.0)
        go = threading.Event()
        monkeypatch.setattr(MlflowSender, "_send", lambda self, *, everything: go.wait(30))
        trainer = make_in(tmp_path / "run")
        trainer.step()
        start = time.monotonic()
        trainer.tracker.close("KILLED")
        trainer.close()
        assert time.monotonic() - start < 1.9
        assert json.loads((tmp_path / "run" / "tracking.json").read_text())["status"] == "KILLED"
        go.set()
        trainer.tracker._thread.join(30)

    def test_what_was_never_connected_can_be_sent_elsewhere(self, tracked, tmp_path, mlflow_uri, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
            trainer = make_in(tmp_path / "run")
            trainer.run(stop_conditions=after(3))
            trainer.close()
        with pytest.raises(TrackingError, match="is tracked in sqlite:////proc/nowhere"):
            sync(tmp_path / "run")
        found = sync(tmp_path / "run", anywhere=True)
        assert history(tracked, found.run_id) == rows_of(tmp_path / "run")

    def test_a_run_that_is_deleted_meanwhile_is_made_anew(self, tracked, tmp_path, monkeypatch):
        monkeypatch.setattr(mlflow_sender, "_INTERVAL", 0.01)
        monkeypatch.setattr(mlflow_sender, "_RETRY", 0.01)
        trainer = make_in(tmp_path / "run")
        trainer.step()
        while trainer.tracker._client is None:
            time.sleep(0.05)
        first = trainer.tracker.run_id
        tracked.delete_run(first)
        trainer.run(stop_conditions=after(20))
        trainer.close()
        assert trainer.tracker.is_complete
        assert trainer.tracker.run_id != first
        assert history(tracked, trainer.tracker.run_id) == rows_of(tmp_path / "run")

    def test_two_trainers_while_mlflow_is_imported(self, tmp_path, mlflow_uri):
        script = SCRIPT.replace("for _ in range(3):", "other = Trainer(DiscreteDummyEnv)\nfor _ in range(3):")
        script = script.replace(
            "Trainer(DiscreteDummyEnv)",
            "Trainer(DiscreteDummyEnv, algorithm_config={'num_envs': 4, 'horizon': 4})",
        )
        script += "    other.step()\n"
        environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow_uri}
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr


def test_system_metrics_are_recorded_on_request(tracked):
    trainer = Trainer(DiscreteDummyEnv, algorithm_config=CONFIG, system_metrics=True)
    stats = trainer.run(stop_conditions=after(2))
    metrics = tracked.get_run(trainer.tracker.run_id).data.metrics
    assert 0 < metrics["system/system_memory_usage_percentage"] < 100
    assert metrics.keys() == stats.keys()
    assert not any(key.startswith("system/") for key in make().step())


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("http://me:secret@127.0.0.1:5000/x", "http://127.0.0.1:5000/x"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("postgresql://me:secret@host/db", "postgresql://host/db"),
        ("postgresql://me:sec/ret@host/db", "postgresql://host/db"),
        ("http://me:sec@ret@host:5000", "http://host:5000"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db"),
        ("databricks", "databricks"),
    ],
)
def test_no_password_is_kept(uri, public):
    assert public_uri(uri) == public


class Refuses(http.server.BaseHTTPRequestHandler):
    """A server that answers everything with one code."""

    code = 403

    def do_POST(self):
        self.send_response(self.code)
        self.end_headers()

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


def deleted_experiment(store, monkeypatch):
    client = mlflow.MlflowClient(f"sqlite:///{store}")
    client.delete_experiment(client.create_experiment("gone"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "gone")
    return f"sqlite:///{store}"


def with_version(version):
    def change(store, _):
        with contextlib.closing(sqlite3.connect(store)) as database:
            database.execute("UPDATE alembic_version SET version_num = ?", (version,))
            database.commit()
        return f"sqlite:///{store}"

    return change


def junk(store, _):
    store.write_bytes(b"no database" * 1000)
    return f"sqlite:///{store}"


OLD = "that of another version of MLflow: if of an older one, make a copy of it, then run mlflow db upgrade"
REFUSED = {
    "deleted": (deleted_experiment, "the experiment or run is deleted: restore it, or name another"),
    "older": (with_version("451aebb31d03"), OLD),
    "newer": (with_version("ffffffffffff"), OLD),
    "no database": (junk, "the store's file is no SQLite database"),
    "scheme": (lambda *_: "htp://127.0.0.1", "MLflow knows no stores like htp://127.0.0.1: begin with"),
    "driver": (lambda *_: "postgresql://me:secret@127.0.0.1/runs", "a package for stores like this one"),
    "read only": (
        lambda store, _: f"sqlite:///file:{store}?mode=ro&uri=true",
        "the store can't be written: let its file and directory be writable",
    ),
    "folder": (lambda store, _: f"sqlite:///{store.parent}", "the store can't be written"),
    "no folder": (lambda *_: "sqlite:////proc/nowhere/runs.db", "the store can't be written"),
    "below a file": (lambda store, _: f"sqlite:///{store}/runs.db", "the store can't be written"),
    "in a folder that can't be written": (lambda *_: "sqlite:////sys/runs.db", "the store can't be written"),
    "host": (lambda *_: "http://no.host.invalid", "there is no host as in http://no.host.invalid"),
    "port": (lambda *_: "http://127.0.0.1:9", "nothing answers at http://127.0.0.1:9: see whether"),
}


def why_nothing_is_sent(uri, monkeypatch, caplog):
    """Return what is said at once, and what in the end, of a run that MLflow doesn't take."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    caplog.clear()
    tracker = MlflowSender(MlflowRun({}, {}))
    with caplog.at_level(logging.WARNING, logger="rlstack.tracking.mlflow_sender"):
        tracker.log(row(1))
        tracker.close()
    first, last = [
        record.getMessage() for record in caplog.records if record.name == "rlstack.tracking.mlflow_sender"
    ]
    assert "secret" not in first + last
    assert first.startswith("nothing is sent to MLflow: ")
    assert last.startswith("1 updates could not be sent to MLflow: ")
    assert "can't be reached" not in first + last
    return first, last


@pytest.mark.parametrize("name", REFUSED)
def test_why_nothing_is_sent_is_said(name, mlflow_uri, tmp_path, monkeypatch, caplog):
    change, words = REFUSED[name]
    monkeypatch.chdir(tmp_path)
    shutil.copy(mlflow_uri.removeprefix("sqlite:///"), tmp_path / "store.db")
    first, last = why_nothing_is_sent(change(tmp_path / "store.db", monkeypatch), monkeypatch, caplog)
    assert words in first
    assert words in last
    # No folder of another name came to be.
    assert {path.name for path in tmp_path.iterdir()} <= {"store.db"}


def test_errors_are_cut_between_words():
    error = ValueError(" ".join(80 * ["reason"]))
    assert re.search(r"\(ValueError: (reason )+…\)$", say_why(error, None))
    assert say_why(ValueError("http://me:secret@host"), None).endswith("(ValueError: http://host)")


def test_why_a_server_that_goes_away_takes_nothing(tracked, tmp_path, monkeypatch, caplog):
    """MLflow is still trying when the run ends."""
    monkeypatch.setattr(mlflow_sender, "_PATIENCE", 0.5)
    go = threading.Event()
    monkeypatch.setattr(MlflowSender, "_connect", lambda self: go.wait(30))
    tracker = MlflowSender(MlflowRun({}, {}), Journal(tmp_path / JOURNAL))
    tracker.uri = "http://127.0.0.1:9"
    tracker.log(row(1))
    tracker.close()
    assert "1 updates could not be sent to MLflow: nothing answers at" in caplog.text
    go.set()
    tracker._thread.join(30)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (401, "the server doesn't let you in: set MLFLOW_TRACKING_USERNAME"),
        (403, "the server doesn't let you in: set MLFLOW_TRACKING_USERNAME"),
        (404, "is not MLflow: see whether the address is right"),
    ],
)
def test_what_a_server_answers_is_said(code, words, server, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Refuses, "code", code)
    first, last = why_nothing_is_sent(server, monkeypatch, caplog)
    assert words in first
    assert words in last


def test_a_server_in_trouble_can_not_be_reached():
    error = mlflow.MlflowException("API request failed with 503 error responses")
    assert explain(error, "http://host") == "MLflow can't be reached"


def test_sync_says_why(tracked, tmp_path, monkeypatch):
    trainer = make_in(tmp_path / "run")
    trainer.run(stop_conditions=after(2))
    trainer.close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "htp://127.0.0.1")
    with pytest.raises(TrackingError, match=r"nothing could be sent to htp://.*: MLflow knows no stores"):
        sync(tmp_path / "run", anywhere=True)
