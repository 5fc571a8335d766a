"""The MLflow run above those of a sweep, or of many seeds: without it they are tracked all the same."""

import logging
from collections.abc import Mapping
from pathlib import Path

from ..common.errors import TrackingError
from ..tracking.parent_run import ParentRun

_log = logging.getLogger(__name__)


def begin_parent(directory: Path, params: dict[str, str]) -> ParentRun | None:
    """Return the run above all that are begun from now on; None if MLflow doesn't take it, with a warning.

    Args:
        directory: Where to remember which one it is.
        params: What is said of it, `env` among that.
    """
    try:
        return ParentRun(directory, params)
    except TrackingError as error:
        _log.warning("there is no MLflow run above those that begin now: %s", error)
        return None


def end_parent(
    parent: ParentRun, metrics: Mapping[str, float], tags: Mapping[str, str], *, is_whole: bool
) -> None:
    """Say in MLflow what came of it; if MLflow doesn't take that, say so.

    Args:
        parent: The run.
        metrics: By name.
        tags: By name.
        is_whole: Whether all below it have come to their ends.
    """
    try:
        parent.close(metrics, tags, is_whole=is_whole)
    except TrackingError as error:
        _log.warning("MLflow wasn't told how it ended: %s", error)
