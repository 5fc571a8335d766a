"""Tracking with MLflow, from one background thread: the trainer hands rows over and goes on.

The thread imports mlflow, makes the run and sends metrics in batches. Where to, in which experiment and
which run is up to MLflow's own settings; without any it is a SQLite file in the working directory.

Rows come from the run's journal, or from memory where there is no run directory. What MLflow couldn't be
sent is in the journal: the thread tries again, a resumed run and `sync` go on with it.
"""

import atexit
import logging
import math
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final, final

from .data import ENV_TOTAL_STEPS, Stats
from .journal import JOURNAL, Journal
from .rows import Row, Waiting
from .tracked_run import TrackedRun, TrackingError, public_uri, read_tracked_run

_INTERVAL: Final = 0.5
"""Least time between two batches, s."""
_SHARE: Final = 0.03
"""Most of the time that the thread may be busy while training goes on: what it computes, training can't."""
_LONGEST_PAUSE: Final = 10.0
"""Most time between two batches, s."""
_METRIC_BATCH: Final = 1000
_PARAM_BATCH: Final = 100
"""Metrics, and parameters, that MLflow takes at once."""
_RETRY: Final = 30.0
"""Time between attempts while the server can't be reached, s."""
_PATIENCE: Final = 15.0
"""How long to wait in the end for a server that doesn't answer, if what is left is in a journal, s."""

_log = logging.getLogger(__name__)


@final
class Tracker:
    """Sends one training's parameters and metrics to one MLflow run.

    Nothing is sent before the first `log`: that looks for the caller's active run and starts the thread.

    Args:
        run: What is to be said of the run; a run that has an id is gone on with.
        journal: Where rows are written before they are sent; None keeps those in memory that wait.
        enabled: Whether to send anything at all.
    """

    error: str | None = None
    """Why the last attempt to send failed; None if it didn't."""

    def __init__(self, run: TrackedRun, journal: Journal | None = None, *, enabled: bool = True) -> None:
        self.run, self.enabled, self._journal = run, enabled, journal
        self._rows: Journal | Waiting = Waiting() if journal is None else journal
        self._continued = run.run_id is not None
        """Whether MLflow may have rows that this tracker hasn't sent."""
        self._nonfinite: set[str] = set()
        self._thinned = False
        self._changed = threading.Condition()
        self._status: str | None = None
        """What MLflow knows of the run's status."""
        self._final_status: str | None = None
        self._client: Any = None
        self._thread: threading.Thread | None = None

    @property
    def run_id(self) -> str | None:
        """The MLflow run, as soon as there is one."""
        return self.run.run_id

    def log(self, stats: Stats) -> None:
        """Take the statistics of one update; their MLflow step is `env/total_steps`."""
        if self.enabled or self._journal is not None:
            self._rows.append(Row.now(stats))
        if self.enabled:
            self.start()

    def start(self) -> None:
        """Begin to send, unless that has been done."""
        with self._changed:
            if self._thread is None or not self._thread.is_alive():
                self._start()

    def close(self, status: str = "FINISHED", timeout: float | None = None) -> None:
        """Send what is left and end the thread; the run goes on if `log` is called again.

        Args:
            status: MLflow's status of the run from now on, if rlstack made the run.
            timeout: How long to wait for the server at most, s; None is not long if the journal has it all.
        """
        if timeout is None:
            timeout = 4 * _PATIENCE if self._journal is None else _PATIENCE
        thread = self._thread
        if thread is None or not thread.is_alive():
            return
        with self._changed:
            self._final_status = self.run.status = status
            self._changed.notify_all()
        thread.join(timeout)
        atexit.unregister(self.close)
        self.run.save()
        if len(self._rows):
            why = self.error or f"it took longer than {timeout:.0f} s"
            way = "" if self.run.directory is None else f"; to try again: rlstack sync {self.run.directory}"
            _log.warning("%d updates could not be sent to MLflow: %.200s%s", len(self._rows), why, way)

    def _start(self) -> None:
        # MLflow's active run belongs to a thread: only the caller's can see the caller's.
        mlflow = sys.modules.get("mlflow")
        if self._client is None and mlflow is not None and (active := mlflow.active_run()) is not None:
            self._continued = self._continued and self.run_id == active.info.run_id
            self.run.run_id, self.run.owned = active.info.run_id, False
        self._final_status = None
        self._thread = threading.Thread(target=self._work, name="rlstack-mlflow", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _work(self) -> None:
        """Send batch after batch, and all that is left in the end."""
        pause = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._final_status is not None, pause)
                last = self._final_status is not None
            try:
                self._connect()
                start = time.thread_time()
                self._send(everything=last)
                self.error = None
                busy = time.thread_time() - start
                pause = min(max(_INTERVAL, busy / _SHARE), _LONGEST_PAUSE)
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
                if self.error is None:
                    _log.warning(
                        "MLflow can't be reached; training goes on, it is tried again: %.200s", message
                    )
                self.error = message
                pause = _RETRY
            if last:
                return

    def _connect(self) -> None:
        """Make the run and log its parameters, unless that has been done; find out what it has."""
        if self._client is not None and self.error is None:
            return
        import mlflow
        from mlflow.entities import Param, RunTag

        uri = mlflow.get_tracking_uri()
        _make_store(uri)
        client = mlflow.MlflowClient()
        if self.run_id is not None and (self._continued or (self._client is not None and self.run.owned)):
            last = _last_step(client, self.run_id)
            if last is None:
                # Another store, or the run has been deleted: a new one is sent everything.
                self._rows.rewind()
                self._client = self.run.run_id = None
            else:
                self._rows.skip(last)
        if self._client is not None:
            return
        run_id = self.run_id
        if run_id is None:
            # The fluent API obeys all of MLflow's settings; its active run is this thread's alone.
            directory, settings = self.run.directory, {"MLFLOW_RUN_NAME", "MLFLOW_RUN_ID"}
            run_name = None if directory is None or settings & os.environ.keys() else directory.resolve().name
            run_id = mlflow.start_run(run_name=run_name).info.run_id
            self.run.run_id, self.run.owned = run_id, True
        self._continued, self.run.uri = self._continued or self.run.owned, public_uri(uri)
        self.run.save()
        params = [Param(_allowed(key), value) for key, value in self.run.params.items()]
        try:
            for first in range(0, len(params), _PARAM_BATCH):
                client.log_batch(run_id, params=params[first : first + _PARAM_BATCH])
        except mlflow.MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            # The run of a caller may have other values under these names: the metrics count for more.
            _log.warning("MLflow refuses the parameters, metrics are recorded all the same: %s", error)
        tags = [RunTag(f"rlstack.{key}", value) for key, value in self.run.tags.items()]
        client.log_batch(run_id, tags=tags)
        self._client, self._status = client, None

    def _send(self, *, everything: bool) -> None:
        """Send pending rows, all of them or one batch, and what has to be said of the run."""
        while rows := self._rows.peek(_METRIC_BATCH, everything=everything):
            self._client.log_batch(self.run_id, metrics=self._metrics(rows))
            self._rows.done()
            if not everything:
                break
        self._tag_losses()
        status = self._final_status or "RUNNING"
        if self.run.owned and status != self._status:
            if status == "RUNNING":
                self._client.update_run(self.run_id, status=status)
            else:
                self._client.set_terminated(self.run_id, status=status)
            self._status = status

    def _metrics(self, rows: list[Row]) -> list[Any]:
        from mlflow.entities import Metric

        metrics = []
        for row in rows:
            for key, value in row.metrics.items():
                if math.isfinite(value):
                    metrics.append(Metric(key, value, row.time, row.step))
                else:
                    self._nonfinite.add(key)
        return metrics

    def _tag_losses(self) -> None:
        """Say on the run what its metrics leave out."""
        if self._rows.thinned and not self._thinned:
            self._client.set_tag(
                self.run_id, "rlstack.thinned", "some updates were not recorded: too many per second"
            )
            self._thinned = True
        if self._nonfinite:
            self._client.set_tag(self.run_id, "rlstack.nonfinite", ", ".join(sorted(self._nonfinite)))
            self._nonfinite.clear()


def _allowed(key: str) -> str:
    """Return a parameter's name with what MLflow doesn't allow in one replaced."""
    return re.sub(r"[^\w\-. :/]", "_", key)


def _last_step(client: Any, run_id: str) -> int | None:
    """Return the environment steps of the last row that a run has, -1 without any; None if it isn't there."""
    from mlflow import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    if run.info.lifecycle_stage == "deleted":
        return None
    return int(run.data.metrics.get(ENV_TOTAL_STEPS, -1))


def _make_store(uri: str) -> None:
    """Make a SQLite store that isn't there yet, whole or not at all.

    MLflow makes its tables one by one: two processes at once, or one that is killed meanwhile, would leave a
    store that can't be used.
    """
    from filelock import FileLock
    from mlflow import MlflowClient

    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not path.name or path.exists() or not path.parent.is_dir():
        return
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            partial = path.with_name(f".{path.name}.{os.getpid()}")
            MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
            partial.replace(path)


def sync(directory: Path, *, timeout: float = 600.0) -> TrackedRun:
    """Send to MLflow what a run's journal has and its MLflow run hasn't; return that run.

    Args:
        directory: Of a run that no trainer is at work on.
        timeout: How long to try, s.

    Raises:
        TrackingError: If it was never tracked, is tracked elsewhere, or MLflow can't be reached.
        OSError: If the journal can't be read.
    """
    import mlflow

    run, here = read_tracked_run(directory), public_uri(mlflow.get_tracking_uri())
    if run.uri not in (None, here):
        raise TrackingError(f"{directory} is tracked in {run.uri}, not in {here}: give --tracking {run.uri}")
    status = "KILLED" if run.status == "RUNNING" else run.status
    tracker = Tracker(run, Journal(directory / JOURNAL))
    tracker.start()
    tracker.close(status, timeout=timeout)
    if tracker.error is not None or run.run_id is None:
        raise TrackingError(f"MLflow can't be reached in {here}: {tracker.error or 'no answer':.200}")
    return run
