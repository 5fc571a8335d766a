"""Tracking with MLflow, from one background thread: the trainer hands rows over and goes on.

The thread imports mlflow, makes the run and sends metrics in batches. Where to, in which experiment and
which run is up to MLflow's own settings; without any it is a SQLite file in the working directory.
"""

import atexit
import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

from .data import ENV_TOTAL_STEPS, Stats

_INTERVAL: Final = 0.5
"""Least time between two batches, s."""
_SHARE: Final = 0.03
"""Most of the time that the thread may be busy while training goes on: what it computes, training can't."""
_MAX_PENDING: Final = 4096
"""Rows that may wait; beyond that every other one is dropped, and of those to come as well."""
_LONGEST_PAUSE: Final = 10.0
"""Most time between two batches, s."""
_METRIC_BATCH: Final = 1000
_PARAM_BATCH: Final = 100
"""Metrics, and parameters, that MLflow takes at once."""
_RETRY: Final = 30.0
"""Time between attempts while the server can't be reached, s."""

_log = logging.getLogger(__name__)


@final
class Tracker:
    """Sends one training's parameters and metrics to one MLflow run.

    Nothing happens before the first `log`: that looks for the caller's active run and starts the thread.

    Args:
        params: Parameters of the run, logged once.
        tags: Tags of the run, logged once.
        enabled: Whether to do anything at all.
    """

    run_id: str | None = None
    """The MLflow run, as soon as there is one."""
    error: str | None = None
    """Why the last attempt to send failed; None if it didn't."""

    def __init__(self, params: Mapping[str, str], tags: Mapping[str, str], *, enabled: bool = True) -> None:
        self.enabled = enabled
        self._params, self._tags = dict(params), dict(tags)
        self._rows: list[tuple[int, Stats]] = []
        self._latest: tuple[int, Stats] | None = None
        self._count, self._stride = 0, 1
        self._thinned = False
        self._nonfinite: set[str] = set()
        self._changed = threading.Condition()
        self._owned = False
        """Whether the run is one that rlstack made, and so has to end."""
        self._status = "RUNNING"
        self._final_status: str | None = None
        self._client: Any = None
        self._thread: threading.Thread | None = None

    def log(self, stats: Stats) -> None:
        """Take the statistics of one update; their MLflow step is `env/total_steps`."""
        if not self.enabled:
            return
        with self._changed:
            if self._thread is None or not self._thread.is_alive():
                self._start()
            self._count += 1
            self._latest = (time.time_ns() // 1_000_000, dict(stats))
            if self._count % self._stride == 0:
                self._rows.append(self._latest)
            if len(self._rows) > _MAX_PENDING:
                del self._rows[::2]
                self._stride *= 2
                self._thinned = True

    def close(self, status: str = "FINISHED", timeout: float = 60.0) -> None:
        """Send what is left and end the thread; the run goes on if `log` is called again.

        Args:
            status: MLflow's status of the run from now on, if rlstack made the run.
            timeout: How long to wait for the server at most, s.
        """
        thread = self._thread
        if thread is None or not thread.is_alive():
            return
        with self._changed:
            if self._latest is not None and self._count % self._stride:
                self._rows.append(self._latest)
            self._stride = 1
            self._final_status = status
            self._changed.notify_all()
        thread.join(timeout)
        atexit.unregister(self.close)
        if self._rows:
            why = self.error or f"it took longer than {timeout:.0f} s"
            _log.warning("%d updates could not be sent to MLflow: %s", len(self._rows), why)

    def _start(self) -> None:
        # MLflow's active run belongs to a thread: only the caller's can see the caller's.
        mlflow = sys.modules.get("mlflow")
        if self.run_id is None and mlflow is not None and (active := mlflow.active_run()) is not None:
            self.run_id = active.info.run_id
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
                if self.error is None:
                    _log.warning("MLflow can't be reached; training goes on, it is tried again: %s", error)
                self.error = f"{type(error).__name__}: {error}"
                pause = _RETRY
            if last:
                return

    def _connect(self) -> None:
        """Make the run and log its parameters, unless that has been done."""
        if self._client is None:
            import mlflow
            from mlflow.entities import Param, RunTag

            _make_store(mlflow.get_tracking_uri())
            if self.run_id is None:
                # The fluent API obeys all of MLflow's settings; its active run is this thread's alone.
                self.run_id = mlflow.start_run().info.run_id
                self._owned = True
            client = mlflow.MlflowClient()
            params = [Param(_allowed(key), value) for key, value in self._params.items()]
            try:
                for first in range(0, len(params), _PARAM_BATCH):
                    client.log_batch(self.run_id, params=params[first : first + _PARAM_BATCH])
            except mlflow.MlflowException as error:
                if error.error_code != "INVALID_PARAMETER_VALUE":
                    raise
                # The run of a caller may have other values under these names: the metrics count for more.
                _log.warning("MLflow refuses the parameters, metrics are recorded all the same: %s", error)
            tags = [RunTag(f"rlstack.{key}", value) for key, value in self._tags.items()]
            client.log_batch(self.run_id, tags=tags)
            self._client, self._status = client, "RUNNING"

    def _send(self, *, everything: bool) -> None:
        """Send pending rows, all of them or one batch, and what has to be said of the run."""
        while self._rows:
            with self._changed:
                rows = self._rows[: max(1, _METRIC_BATCH // len(self._rows[0][1]))]
            self._client.log_batch(self.run_id, metrics=self._metrics(rows))
            with self._changed:
                # Thinning may have removed some of them meanwhile; the rest are still there.
                sent = {id(row) for row in rows}
                self._rows = [row for row in self._rows if id(row) not in sent]
                if len(self._rows) < _MAX_PENDING // 8:
                    self._stride = 1
            if not everything:
                break
        self._tag_losses()
        status = self._final_status or "RUNNING"
        if self._owned and status != self._status:
            if status == "RUNNING":
                self._client.update_run(self.run_id, status=status)
            else:
                self._client.set_terminated(self.run_id, status=status)
            self._status = status

    def _metrics(self, rows: list[tuple[int, Stats]]) -> list[Any]:
        from mlflow.entities import Metric

        metrics = []
        for timestamp, stats in rows:
            step = int(stats[ENV_TOTAL_STEPS])
            for key, value in stats.items():
                if math.isfinite(value):
                    metrics.append(Metric(key, value, timestamp, step))
                else:
                    self._nonfinite.add(key)
        return metrics

    def _tag_losses(self) -> None:
        """Say on the run what its metrics leave out."""
        if self._thinned:
            self._client.set_tag(
                self.run_id, "rlstack.thinned", "some updates were not recorded: too many per second"
            )
            self._thinned = False
        if self._nonfinite:
            self._client.set_tag(self.run_id, "rlstack.nonfinite", ", ".join(sorted(self._nonfinite)))
            self._nonfinite.clear()


def _allowed(key: str) -> str:
    """Return a parameter's name with what MLflow doesn't allow in one replaced."""
    return re.sub(r"[^\w\-. :/]", "_", key)


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
