"""Sending to MLflow what tracking missed, from the journal of a run."""

import shlex
from pathlib import Path

from ..common.errors import TrackingError
from .journal import JOURNAL, Journal
from .mlflow_run import MlflowRun, read_tracked_run
from .mlflow_sender import MlflowSender
from .uris import public_uri, tracking_uri


def sync(directory: Path, *, anywhere: bool = False, timeout: float = 600.0) -> MlflowRun:
    """Send to MLflow what a run's journal has and its MLflow run hasn't; return that run.

    Args:
        directory: Of a run that no trainer is at work on.
        anywhere: Whether to send to MLflow's current store even if the run was tracked in another one.
        timeout: How long to wait for the server to take anything, s.

    Raises:
        TrackingError: If it was never tracked, is tracked elsewhere, or MLflow can't take it.
        OSError: If the journal can't be read.
    """
    run = read_tracked_run(directory)
    here = public_uri(tracking_uri(before=run.uri))
    if run.uri is not None and public_uri(run.uri) != here and not anywhere:
        way = f"give --tracking {shlex.quote(run.uri)}"
        raise TrackingError(f"{directory} is tracked in {run.uri}, not in {here}: {way}")
    status = "KILLED" if run.status == "RUNNING" else run.status
    tracker = MlflowSender(run, Journal(directory / JOURNAL))
    tracker.start()
    tracker.close(status, timeout=timeout)
    if not tracker.is_complete:
        raise TrackingError(f"nothing could be sent to {here}: {tracker.error or 'no answer'}")
    return run
