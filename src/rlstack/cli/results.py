"""What a training on the command line leaves behind, each thing named in a line; why, if it isn't there."""

import shlex
from collections.abc import Callable
from pathlib import Path

from ..common.errors import RunDirError, TrackingError, told
from ..runs.run_dir import RunDir
from ..tracking.mlflow_model import log_policy
from ..training.trainer import Trainer


def run_dir_of(trainer: Trainer) -> RunDir:
    """Return its run directory; its path is from the root, environments may go elsewhere."""
    assert trainer.run_dir is not None
    return trainer.run_dir


def save_policy(trainer: Trainer, path: Path) -> str:
    """Save the policy; return where it is, or why it isn't anywhere."""
    try:
        trainer.algorithm.policy.save(run_dir_of(trainer).path / path.name)
    except Exception as error:
        # Whatever it is, it mustn't hide why training ended.
        return f"not saved, {told(error)}"
    return str(path)


def draw_curve(title: str, trainer: Trainer, directory: Path) -> str:
    """Draw the learning curve of the whole run; return where it is, or why there is none."""
    return drawn(directory / "learning_curve.png", lambda: trainer.plot(title=title))


def drawn(path: Path, draw: Callable[[], object]) -> str:
    """Draw a picture; return where it is, or why there is none.

    Args:
        path: Where it is then.
        draw: Draws it.
    """
    try:
        draw()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            return f"not drawn, {told(error)}"
        return "not drawn, it needs matplotlib: pip install 'rlstack[viz]'"
    except Exception as error:
        return f"not drawn, {error if isinstance(error, RunDirError) else told(error)}"
    return str(path)


def where_tracked(trainer: Trainer) -> str:
    """Return which MLflow run has the metrics and how to look at it, or why there is none."""
    tracker = trainer.tracker
    if not tracker.enabled:
        return "none"
    if not tracker.is_complete:
        return f"incomplete{tracker.way_out}"
    uri = tracker.run.uri or ""
    look = shlex.join(["mlflow", "ui", "--backend-store-uri", uri])
    return f"{tracker.run_id} in {uri}\n{16 * ' '}{look}  (needs pip install 'rlstack[mlflow]')"


def log_model(trainer: Trainer, *, interrupted: bool) -> str | None:
    """Log the policy as a model of the tracked run; return its name, or why it isn't, None if not tracked."""
    tracker = trainer.tracker
    if not tracker.enabled or tracker.run_id is None or not tracker.is_complete:
        return None
    if interrupted:
        # Whoever ends a process gives it seconds.
        return "none, the run was interrupted: going on with it logs one in the end"
    try:
        return log_policy(trainer.algorithm.policy, tracker.run_id, tracker.uri)
    except Exception as error:
        return f"none, {error if isinstance(error, TrackingError) else told(error)}"
