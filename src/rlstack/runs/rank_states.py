"""Checkpoints of several ranks: who writes what of them, and how all come to read the same one.

Rank 0 writes a checkpoint as a process that is alone does. In between each other rank writes into it
`state-<rank>.safetensors`: its environments, its random numbers. So all ranks must see the same directory.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..common.errors import CheckpointError, RankError, told
from ..distributed.ranks import Ranks
from . import checkpoint
from .checkpoint import Checkpoint


def write_together(
    ranks: Ranks,
    write: Callable[[Mapping[str, Any], checkpoint.Others], Path],
    state_dict: Callable[[], Mapping[str, Any]],
) -> Path:
    """Write one checkpoint of all ranks; return where it is.

    Args:
        ranks: All of them.
        write: Writes the checkpoint, given a state and what lets the others write theirs; called on rank 0.
        state_dict: Returns this rank's state.

    Raises:
        TypeError, ValueError, OSError: On all ranks, if one of them can't write its part.
    """
    return _write_first(ranks, write, state_dict) if ranks.index == 0 else _write_other(ranks, state_dict)


def _write_first(
    ranks: Ranks,
    write: Callable[[Mapping[str, Any], checkpoint.Others], Path],
    state_dict: Callable[[], Mapping[str, Any]],
) -> Path:
    step = "checkpoint"

    def others(partial: Path) -> list[dict[str, Any]]:
        nonlocal step
        ranks.exchange(step, {"directory": str(partial.absolute())})
        step = "written checkpoint"
        every = [said.words for said in ranks.exchange("states", {})]
        for rank, said in enumerate(every):
            if "error" in said:
                raise OSError(f"rank {rank}: {said['error']}")
        return [said["state"] for said in every[1:]]

    try:
        path = write(state_dict(), others)
    except RankError:
        raise
    except Exception as error:
        ranks.exchange(step, {"error": told(error)})
        raise
    ranks.exchange(step, {"path": str(path.absolute())})
    return path


def _write_other(ranks: Ranks, state_dict: Callable[[], Mapping[str, Any]]) -> Path:
    said = ranks.agree("checkpoint", {})
    if "error" not in said:
        try:
            mine: dict[str, Any] = {
                "state": checkpoint.write_state(Path(said["directory"]), ranks.index, state_dict())
            }
        except Exception as error:
            # Whatever it is, rank 0 says it to all.
            mine = {"error": told(error)}
        ranks.exchange("states", mine)
        said = ranks.agree("written checkpoint", {})
    if "error" in said:
        raise OSError(f"rank 0: {said['error']}")
    return Path(said["path"])


def found_by_first(ranks: Ranks, find: Callable[[], Checkpoint]) -> Checkpoint:
    """Return the checkpoint that rank 0 finds, with this rank's own state if it was written by as many ranks.

    Raises:
        CheckpointError: If it finds none, or another rank can't read it.
    """
    if not ranks.many:
        return find()
    if ranks.index:
        said = ranks.agree("found checkpoint", {})
        if "error" in said:
            raise CheckpointError(f"rank 0: {said['error']}")
        return checkpoint.read(Path(said["path"]), rank=ranks.index, ranks=ranks.count)
    try:
        found = find()
    except Exception as error:
        ranks.exchange("found checkpoint", {"error": told(error)})
        raise
    ranks.exchange("found checkpoint", {"path": str(found.path.absolute())})
    return found
