"""Tracking with MLflow, from one background thread: the trainer hands rows over and goes on.

The thread imports mlflow, makes the run and sends metrics in batches. Where to, in which experiment and
which run is up to MLflow's own settings; without any it is a SQLite file in the working directory.

Rows come from the run's journal, or from memory where there is no run directory. What MLflow couldn't be
sent is in the journal: the thread tries again, a resumed run and `rlstack sync` go on with it.
"""

import atexit
import logging
import math
import os
import shlex
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Final, final

from ..common.types import Stats
from .faults import say_why
from .journal import Journal
from .metric_rows import MetricQueue, MetricRow
from .mlflow_run import MlflowRun, last_step, say_params
from .reach import check_reachable
from .uris import make_store, no_quoted_folders, public_uri, tracking_uri

_INTERVAL: Final = 0.5
"""Least time between two batches, s."""

_SHARE: Final = 0.03
"""Most of the time that the thread may be busy while training goes on: what it computes, training can't."""

_TURN: Final = 0.05
"""How long the thread may be busy at a time while training goes on, s."""

_LONGEST_PAUSE: Final = 10.0
"""Most time between two batches, s."""

_METRIC_BATCH: Final = 1000
"""Metrics that MLflow takes at once."""

_MANY: Final = 5000
"""Rows that take so long to send that something has to be said."""

_RETRY: Final = 30.0
"""Time between attempts while the server can't be reached, s."""

_PATIENCE: Final = 15.0
"""How long to wait in the end for a server that doesn't answer, if what is left is in a journal, s."""

_log = logging.getLogger(__name__)


@final
class MlflowSender:
    """Sends one training's parameters and metrics to one MLflow run.

    Nothing is sent before the first `log`: that looks for the caller's active run and starts the thread.

    Args:
        run: What is to be said of the run; a run that has an id is gone on with.
        journal: Where rows are written before they are sent; None keeps those in memory that wait.
        enabled: Whether to send anything at all.
    """

    error: str | None = None
    """Why the last attempt to send failed; None if it didn't."""

    def __init__(self, run: MlflowRun, journal: Journal | None = None, *, enabled: bool = True) -> None:
        self.run, self.enabled, self._journal = run, enabled, journal
        self._rows: Journal | MetricQueue = MetricQueue() if journal is None else journal
        self._continued = run.run_id is not None
        """Whether MLflow may have rows that this tracker hasn't sent."""
        self._nonfinite: set[str] = set()
        self._thinned = False
        self._changed = threading.Condition()
        self._status: str | None = None
        """What MLflow knows of the run's status."""
        self._final_status: str | None = None
        self._given_up = False
        """Whether it wasn't waited for the thread to its end."""
        self._home = os.getcwd() if enabled else ""
        """Where paths of MLflow's settings begin, whatever becomes of the working directory."""
        self.uri: str | None = None
        """Where rows are sent to, with a file's path from the root; None as long as that isn't known."""
        self._client: Any = None
        self._thread: threading.Thread | None = None

    @property
    def run_id(self) -> str | None:
        """The MLflow run, as soon as there is one."""
        return self.run.run_id

    def log(self, stats: Stats) -> None:
        """Take the statistics of one update; their MLflow step is `env/total_steps`."""
        if self.enabled or self._journal is not None:
            self._rows.append(MetricRow.now(stats))
        if self.enabled:
            self.start()

    def start(self) -> None:
        """Begin to send, unless that has been done."""
        with self._changed:
            if self._thread is None or not self._thread.is_alive():
                self._start()

    @property
    def is_complete(self) -> bool:
        """Whether MLflow has all that it was to have."""
        alive = self._thread is not None and self._thread.is_alive()
        return self.run_id is not None and self.error is None and not alive and not len(self._rows)

    def close(self, status: str | None = None, timeout: float | None = None) -> None:
        """Send what is left and end the thread; the run goes on if `log` is called again.

        Args:
            status: MLflow's status of the run from now on, if rlstack made the run; None is what was said
                before, or FINISHED.
            timeout: How long to wait for the server to take anything more, s; None is not long if the journal
                has it all.
        """
        if timeout is None:
            timeout = 4 * _PATIENCE if self._journal is None else _PATIENCE
        thread = self._thread
        if thread is None or not thread.is_alive() or self._given_up:
            return
        with self._changed:
            self._final_status = self.run.status = status or self._final_status or "FINISHED"
            self._changed.notify_all()
        waiting = len(self._rows)
        if waiting > _MANY:
            _log.warning("%d updates are still to be sent to MLflow; Ctrl-C gives up", waiting)
        # Whoever gives up waiting, by Ctrl-C for example, needn't do so twice.
        self._given_up = True
        try:
            thread.join(timeout)
            while thread.is_alive() and len(self._rows) < waiting:
                waiting = len(self._rows)
                thread.join(timeout)
        finally:
            atexit.unregister(self.close)
            self.run.save()
        self._given_up = thread.is_alive()
        if len(self._rows):
            why = self.error or self._why_not() or f"it took longer than {timeout:.0f} s"
            _log.warning("%d updates could not be sent to MLflow: %s%s", len(self._rows), why, self.way_out)

    def _why_not(self) -> str | None:
        """Return why MLflow's store can't be reached now, if that shows at once."""
        try:
            check_reachable(self.uri or "")
        except Exception as error:
            return say_why(error, self.run.uri)
        return None

    @property
    def way_out(self) -> str:
        """How what is missing can be sent later, as the end of a sentence."""
        if self.run.directory is None:
            return ""
        where = [] if self.run.uri is None else ["--tracking", self.run.uri]
        command = shlex.join(["rlstack", "sync", str(self.run.directory), *where])
        return f"; to send them: {command}"

    def _start(self) -> None:
        # MLflow's active run belongs to a thread: only the caller's can see the caller's.
        # While another thread imports mlflow, there is nothing in it, and no run of the caller's.
        active_run = getattr(sys.modules.get("mlflow"), "active_run", None)
        if self._client is None and active_run is not None and (active := active_run()) is not None:
            if self.run_id != active.info.run_id:
                # It is where MLflow's settings point to now.
                self._continued, self.run.uri = False, None
            self.run.run_id, self.run.owned = active.info.run_id, False
        self._final_status, self._given_up, self.run.status = None, False, "RUNNING"
        if self._client is None:
            # Whatever happens from here on: there is something to be sent.
            self.run.save()
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
            first_fault = False
            try:
                self._connect()
                start = time.thread_time()
                self._send(everything=last)
                self.error = None
                busy = time.thread_time() - start
                pause = min(max(_INTERVAL, busy / _SHARE), _LONGEST_PAUSE)
            except Exception as error:
                first_fault, self.error = self.error is None, say_why(error, self.run.uri)
                if first_fault:
                    text = "nothing is sent to MLflow: %s; training goes on, it is tried again"
                    _log.warning(text, self.error)
                pause = _RETRY
            if last and not first_fault:
                return

    def _connect(self) -> None:
        """Make the run and log its parameters, unless that has been done; find out what it has."""
        if self._client is not None and self.error is None:
            return
        client = self._open_store()
        if self.run_id is not None and (self._continued or (self._client is not None and self.run.owned)):
            self._find_run(client, self.run_id)
        if self._client is None:
            self._begin_run(client, self.uri or "")
            self._client, self._status = client, None

    def _open_store(self) -> Any:
        """Return a client of the store, which is made if it is a file."""
        import mlflow

        self.uri = tracking_uri(self._home, self.run.uri)
        self.run.move_to(public_uri(self.uri))
        make_store(self.uri, self._home)
        check_reachable(self.uri)
        with no_quoted_folders(self.uri):
            return mlflow.MlflowClient(self.uri)

    def _find_run(self, client: Any, run_id: str) -> None:
        """Find out what MLflow has of a run; one that isn't there any more is forgotten."""
        import mlflow

        last = last_step(client, run_id)
        if last is not None:
            self._rows.skip(last)
            return
        # Another store, or the run has been deleted: a new one is sent everything.
        self._rows.rewind()
        self._client = self.run.run_id = None
        with suppress(mlflow.MlflowException):
            # It is still this thread's active run, if this thread made it.
            mlflow.end_run()

    def _begin_run(self, client: Any, uri: str) -> None:
        """Make the run unless there is one, and write its parameters and tags."""
        from mlflow.entities import RunTag

        run_id = self.run_id or self.run.start(uri)
        self._continued = self._continued or self.run.owned
        self.run.save()
        say_params(client, run_id, self.run.params)
        tags = [RunTag(f"rlstack.{key}", value) for key, value in self.run.tags.items()]
        client.log_batch(run_id, tags=tags)

    def _send(self, *, everything: bool) -> None:
        """Send pending rows, all of them or for a short time, and what has to be said of the run."""
        start = time.thread_time()
        while rows := self._rows.peek(_METRIC_BATCH, everything=everything):
            self._client.log_batch(self.run_id, metrics=self._metrics(rows))
            self._rows.done()
            if not everything and time.thread_time() - start > _TURN:
                break
        self._tag_losses()
        status = self._final_status or "RUNNING"
        if self.run.owned and status != self._status:
            if status == "RUNNING":
                self._client.update_run(self.run_id, status=status)
            else:
                self._client.set_terminated(self.run_id, status=status)
            self._status = status

    def _metrics(self, rows: list[MetricRow]) -> list[Any]:
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
