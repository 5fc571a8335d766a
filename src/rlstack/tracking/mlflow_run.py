"""Which MLflow run a training is tracked in: a small file in the run directory, `tracking.json`.

With it and the journal, what MLflow hasn't got can be sent at any time, by another process too.
"""

import json
import logging
import os
import re
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

from ..common.atomic_files import write_file
from ..common.errors import TrackingError
from ..common.metrics import ENV_TOTAL_STEPS
from ..common.nested import same
from .uris import mlflow_at

_FORMAT = "rlstack.tracking.1"

_FILE = "tracking.json"

_LARGEST = 2**22
"""Bytes; more is no such file."""

_CHANGED = "rlstack.changed."
"""Tags with the values in use of parameters that MLflow has other values of."""

_PARAM_BATCH = 100
"""Parameters that MLflow takes at once."""

_LONGEST_NAME, _LONGEST_TAG, _SHORTEST_CUT = 250, 5000, 500
"""Characters of a tag's name and value, and of the shortest value of a parameter that may have been cut."""

_log = logging.getLogger(__name__)


@final
@dataclass
class MlflowRun:
    """An MLflow run, and what is to be said of it."""

    params: dict[str, str]
    tags: dict[str, str]
    run_id: str | None = None
    """None as long as there is none."""
    uri: str | None = None
    """Where it is, without user and password."""
    owned: bool = False
    """Whether rlstack made the run, and so has to end it."""
    status: str = "RUNNING"
    """Of the training, in MLflow's words."""
    directory: Path | None = field(default=None, repr=False)
    """Where to keep all this; None doesn't."""

    def move_to(self, uri: str) -> None:
        """Take down where the run is from now on, and say so if it was elsewhere."""
        if self.uri == uri:
            return
        if self.uri is not None:
            _log.warning(
                "metrics go to the MLflow store %s from now on, until now it was %s: to go on there, name it "
                "by --tracking or MLFLOW_TRACKING_URI",
                uri,
                self.uri,
            )
        self.uri = uri
        self.save()

    def start(self, uri: str) -> str:
        """Make the run, named after its directory unless MLflow's settings name it; return its id."""
        import mlflow

        # The fluent API obeys all of MLflow's settings; its active run is this thread's alone.
        named = {"MLFLOW_RUN_NAME", "MLFLOW_RUN_ID"} & os.environ.keys()
        run_name = None if self.directory is None or named else self.directory.resolve().name
        with mlflow_at(uri):
            run_id: str = mlflow.start_run(run_name=run_name).info.run_id
        self.run_id, self.owned = run_id, True
        return run_id

    def save(self) -> None:
        """Write the file; if that can't be, training goes on."""
        if self.directory is None:
            return
        said = {key: value for key, value in asdict(self).items() if key != "directory"}
        try:
            write_file(self.directory / _FILE, json.dumps({"format": _FORMAT, **said}, indent=1).encode())
        except OSError as error:
            _log.warning("%s can't be written: %s", self.directory / _FILE, error)


def track_as(params: dict[str, str], directory: Path | None) -> MlflowRun:
    """Return what to track a training as: the run that its directory names, or a new one.

    Args:
        params: Of the algorithm.
        directory: Of the run; None if it has none.
    """
    run = MlflowRun(params, {"version": version("rlstack"), "env": params["env"]}, directory=directory)
    if directory is not None and (directory / _FILE).exists():
        try:
            said = _read(directory / _FILE)
        except TrackingError as error:
            _log.warning("%s; MLflow gets a new run with all metrics", error)
        else:
            run.run_id, run.uri, run.owned = said["run_id"], said["uri"], said["owned"]
    return run


def read_tracked_run(directory: Path) -> MlflowRun:
    """Return what a run directory says of its MLflow run.

    Raises:
        TrackingError: If the file isn't there, or is damaged.
    """
    said = _read(directory / _FILE)
    del said["format"]
    return MlflowRun(**said, directory=directory)


def forget_tracked_run(directory: Path) -> None:
    """Remove the file: another run begins."""
    (directory / _FILE).unlink(missing_ok=True)


def last_step(client: Any, run_id: str) -> int | None:
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


def say_params(client: Any, run_id: str, params: dict[str, str]) -> None:
    """Log a run's parameters; MLflow keeps the first value of each, a later one becomes a tag.

    Args:
        client: Of MLflow.
        run_id: The run.
        params: Those in use from now on, by name.
    """
    from mlflow import MlflowException
    from mlflow.entities import Param, RunTag

    data = client.get_run(run_id).data
    params = {_allowed(key): value for key, value in params.items()}
    new = [Param(key, value) for key, value in params.items() if key not in data.params]
    try:
        for first in range(0, len(new), _PARAM_BATCH):
            client.log_batch(run_id, params=new[first : first + _PARAM_BATCH])
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        # The metrics count for more.
        _log.warning("MLflow refuses the parameters, metrics are recorded all the same: %s", error)
    changed = {
        f"{_CHANGED}{key}"[:_LONGEST_NAME]: value[:_LONGEST_TAG]
        for key, value in params.items()
        if key in data.params and not _kept(value, data.params[key])
    }
    for key in data.tags:
        if key.startswith(_CHANGED) and key not in changed and key.removeprefix(_CHANGED) in params:
            client.delete_tag(run_id, key)
    if tags := {key: value for key, value in changed.items() if data.tags.get(key) != value}:
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        names = ", ".join(key.removeprefix(_CHANGED) for key in tags)
        _log.warning(
            "the MLflow run keeps the parameters that it has; of %s the values in use are its tags %s…",
            names,
            _CHANGED,
        )


def _allowed(key: str) -> str:
    """Return a parameter's name with what MLflow doesn't allow in one replaced."""
    return re.sub(r"[^\w\-. :/]", "_", key)


def _kept(value: str, there: str) -> bool:
    """Return whether a parameter that is there has this value, which MLflow may have cut off."""
    return same(value, there) or (len(there) >= _SHORTEST_CUT and value.startswith(there))


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise TrackingError(f"{path} is damaged: it is too large")
        said = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise TrackingError(f"{path.parent} was never tracked: there is no {path.name} in it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TrackingError(f"{path} can't be read: {error}") from error
    kinds: dict[str, Any] = {"format": str, "params": dict, "tags": dict, "owned": bool, "status": str}
    kinds |= {"run_id": str | None, "uri": str | None}
    if not isinstance(said, dict) or said.keys() != kinds.keys():
        raise TrackingError(f"{path} is damaged: it should say {', '.join(kinds)}")
    texts: Any = (said["params"], said["tags"])
    if (
        said["format"] != _FORMAT
        or not all(isinstance(said[key], kind) for key, kind in kinds.items())
        or not all(isinstance(text, str) for each in texts for text in each.values())
        or (said["run_id"] is not None and not re.fullmatch(r"[\w-]{1,256}", said["run_id"]))
    ):
        raise TrackingError(f"{path} is damaged: it isn't what rlstack writes")
    return said
