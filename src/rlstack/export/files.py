"""Writing a policy for other programs, and showing that they get the same actions."""

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..common.atomic_files import write_file
from ..common.errors import ExportError
from ..common.random_state import keep_random_state
from .acting import Acting
from .guide import guide
from .parity import example, largest_error
from .programs import FORMS, trace

if TYPE_CHECKING:
    from ..policies.base import PolicyBase

_ROWS = 4
"""Of the example: enough to be no constant."""


class Exported(NamedTuple):
    """What was written."""

    path: Path
    """The policy."""
    guide: Path
    """What goes in and what comes out, in words."""
    largest_error: float
    """By how much features, actions and states differ from the policy's at most, for 100 random observations;
    in units of the number itself where that is larger than 1."""


def export_policy(
    policy: "PolicyBase", path: str | os.PathLike[str], *, deterministic: bool = True
) -> Exported:
    """Write what a policy does, and a page about it; try first whether it is the same.

    Args:
        policy: The policy.
        path: Where to; a name that ends in .onnx or .pt2 says what it becomes.
        deterministic: Whether it acts without chance; otherwise the random numbers are an input, `noise`.

    Raises:
        ExportError: If it can't be written, or what was written does something else.
        OSError: If there is no room for it, or no permission.
    """
    where = Path(path)
    form = FORMS.get(where.suffix)
    if form is None:
        raise ExportError(f"{where} has no ending that says what to write: use {' or '.join(FORMS)}")
    # Counters and caches of a model's own stay as they are.
    own = copy.deepcopy(policy).cpu().eval()
    acting = Acting(own, deterministic=deterministic)
    with keep_random_state(torch.device("cpu")), torch.no_grad():
        inputs = example(own, _ROWS, deterministic=deterministic)
        outputs = acting(*inputs)
        data = form.write(acting, trace(acting, inputs), list(outputs))
        error = largest_error(acting, form.load(data, acting), deterministic=deterministic)
    said = guide(where.name, acting, inputs, outputs, error=error, deterministic=deterministic)
    beside = where.with_name(f"{where.name}.md")
    write_file(where, data)
    write_file(beside, said.encode())
    return Exported(where, beside, error)
