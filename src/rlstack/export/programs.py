"""Policies as programs of other libraries: how they are made, and how they are run."""

import contextlib
import io
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.errors import ExportError, begin_of
from .acting import Acting

_NEEDED = ("onnx", "onnxscript", "onnxruntime")

_NOT_USERS = tuple(str(Path(path)) for path in (*map(str, torch.__path__), str(Path(__file__).parents[1])))
"""Where code lies that isn't the model's, unless the model is rlstack's."""

Run = Callable[[Sequence[Tensor]], dict[str, Tensor]]
"""Takes tensors in the order of `Acting.inputs`, returns them by name."""


class Form(NamedTuple):
    """One kind of file."""

    write: Callable[[Acting, torch.export.ExportedProgram, Sequence[str]], bytes]
    """Return the file's content, given names of the outputs."""
    load: Callable[[bytes, Acting], Run]
    """Return what runs a file's content."""


def trace(acting: Acting, inputs: Sequence[Tensor]) -> torch.export.ExportedProgram:
    """Return all operations of a policy, for any number of rows.

    Args:
        acting: The policy, on the CPU.
        inputs: Examples of what it takes, [N, ...] with N > 1: torch would take a single row for a constant.

    Raises:
        ExportError: If the policy does what can't be written down; says where.
    """
    rows = torch.export.Dim("batch", min=1)
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(
                acting, tuple(inputs), dynamic_shapes=tuple({0: rows} for _ in inputs), strict=False
            )
    except Exception as error:
        # torch.export has no error of its own that would tell.
        model, distribution = type(acting.policy.model).__name__, acting.policy.distribution_cls.__name__
        if "specialized it to be a constant" in str(error):
            raise ExportError(
                f"{model} or {distribution} can't be exported for any number of rows, which it takes for a "
                "constant: write values.shape[0] for len(values)"
            ) from error
        raise ExportError(
            f"{model} can't be exported{_place(error)}: {begin_of(error)}. What it does may not depend on "
            "values of tensors: no if, .item() or loop over them; torch.where chooses between two"
        ) from error


def _place(error: BaseException) -> str:
    """Return where in its user's code an error arose, and the line there; nothing if it was nowhere in it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_NOT_USERS)]
    own = [frame for frame in own if "site-packages" not in frame.filename and frame.line]
    return f", see {Path(own[-1].filename).name}:{own[-1].lineno}, `{own[-1].line}`" if own else ""


def _write_pt2(acting: Acting, program: torch.export.ExportedProgram, outputs: Sequence[str]) -> bytes:
    data = io.BytesIO()
    with _quiet():
        torch.export.save(program, data)
    return data.getvalue()


def _load_pt2(data: bytes, acting: Acting) -> Run:
    with _quiet():
        program = torch.export.load(io.BytesIO(data)).module()
    return lambda inputs: program(*inputs)


def _write_onnx(acting: Acting, program: torch.export.ExportedProgram, outputs: Sequence[str]) -> bytes:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ExportError(f"ONNX needs {', '.join(missing)}: pip install 'rlstack[export]'")
    try:
        with _quiet():
            made = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=acting.inputs,
                output_names=list(outputs),
                external_data=False,
            )
        assert made is not None
        return made.model_proto.SerializeToString()
    except Exception as error:
        model = type(acting.policy.model).__name__
        raise ExportError(
            f"{model} can't be written as ONNX: {begin_of(error)}. Export it to a .pt2 file, or let it use "
            "operations that ONNX has"
        ) from error


def _load_onnx(data: bytes, acting: Acting) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]

    def run(inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        named = zip(acting.inputs, inputs, strict=True)
        found = session.run(outputs, {name: value.contiguous().numpy() for name, value in named})
        return {name: torch.from_numpy(value) for name, value in zip(outputs, found, strict=True)}

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Hush what torch and the ONNX exporter print of themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


FORMS = {".onnx": Form(_write_onnx, _load_onnx), ".pt2": Form(_write_pt2, _load_pt2)}
"""By the ending of the file's name."""
