"""An MLflow run under which others are nested: those of a sweep, or of one training with many seeds."""

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, final

from ..common.errors import TrackingError
from .faults import say_why
from .mlflow_run import last_step, say_params, track_as
from .reach import check_reachable
from .uris import make_store, no_quoted_folders, public_uri, tracking_uri

_CONTEXT: Final = "MLFLOW_RUN_CONTEXT"
"""A variable of MLflow's: tags, as JSON, of each run that this process and those that it starts begin."""

_PARENT: Final = "mlflow.parentRunId"
"""The tag by which MLflow shows one run below another."""


@final
class ParentRun:
    """The run above all that this process and its children begin from now on.

    Args:
        directory: Where `tracking.json` says which one it is, for those who go on.
        params: What is said of it, `env` among that.

    Raises:
        TrackingError: If MLflow can't be reached.
    """

    def __init__(self, directory: Path, params: dict[str, str]) -> None:
        self._run = track_as(params, directory)
        try:
            self._client = self._open()
        except Exception as error:
            raise TrackingError(say_why(error, self._run.uri)) from error
        self._before = os.environ.get(_CONTEXT)
        tags = json.loads(self._before or "{}")
        os.environ[_CONTEXT] = json.dumps({**tags, _PARENT: self._run.run_id})

    def _open(self) -> Any:
        """Make the run or go on with it; return a client of its store."""
        import mlflow

        run, home = self._run, os.getcwd()
        uri = tracking_uri(home, run.uri)
        make_store(uri, home)
        check_reachable(uri)
        with no_quoted_folders(uri):
            client = mlflow.MlflowClient(uri)
        run.move_to(public_uri(uri))
        if run.run_id is not None and last_step(client, run.run_id) is not None:
            client.update_run(run.run_id, status="RUNNING")
        else:
            # A run that is begun is the active one of its thread: here trainings would log to it.
            with ThreadPoolExecutor(1) as other:
                other.submit(run.start, uri).result()
        run.save()
        say_params(client, run.run_id or "", run.params)
        return client

    def close(self, metrics: Mapping[str, float], tags: Mapping[str, str], *, is_whole: bool) -> None:
        """Say what came of it; what is begun from now on is below none, or that which was there before.

        Args:
            metrics: By name.
            tags: By name.
            is_whole: Whether it has come to its end.

        Raises:
            TrackingError: If MLflow doesn't take it.
        """
        run_id = self._run.run_id or ""
        if self._before is None:
            del os.environ[_CONTEXT]
        else:
            os.environ[_CONTEXT] = self._before
        try:
            for name, value in metrics.items():
                self._client.log_metric(run_id, name, value)
            for name, text in tags.items():
                self._client.set_tag(run_id, name, text)
            self._client.set_terminated(run_id, status="FINISHED" if is_whole else "KILLED")
        except Exception as error:
            raise TrackingError(say_why(error, self._run.uri)) from error
