"""Programs of tensor operations that are recorded once and replayed, where that is proved to be the same."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor

from ..common.errors import CaptureError, begin_of
from ..common.random_state import random_state, set_random_state

ROUNDS = 2
"""Of the proof: what a program freezes by mistake shows in the second one."""


class Program(ABC):
    """Tensor operations on tensors that stay where they are.

    What changes more than tensors overrides `go_on`, `check` and `put_back`.
    """

    @abstractmethod
    def run(self) -> Any:
        """Run it once."""

    @abstractmethod
    def storage(self) -> list[Tensor]:
        """Return all tensors that it changes, one of the device that it runs on first."""

    def go_on(self) -> None:  # noqa: B027 (nothing is to be done for tensors)
        """Prepare the next round, eagerly."""

    def check(self) -> None:  # noqa: B027
        """Raise a CaptureError if the rounds so far have changed what isn't a tensor."""

    def put_back(self) -> None:  # noqa: B027
        """Put what isn't a tensor back to what it was before the first round."""


class Recording(ABC):
    """A recorded program."""

    @abstractmethod
    def record(self, run: Callable[[], Any]) -> Any:
        """Record what `run` does, and return what it returned: tensors that each replay fills."""

    @abstractmethod
    def replay(self) -> None:
        """Do it once more."""


@final
class CudaGraph(Recording):
    """A CUDA graph: one launch for all operations, with the addresses and numbers that were recorded."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def record(self, run: Callable[[], Any]) -> Any:
        """Record what `run` does, without doing it."""
        torch.cuda.synchronize()
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                return run()
        finally:
            # torch leaves its own stream current if the end of the recording raises.
            torch.cuda.set_stream(stream)

    def replay(self) -> None:
        """Launch the graph."""
        self._graph.replay()


def capture(program: Program, recording: Recording) -> Any:
    """Record a program and prove that replaying it does what running it does.

    From the same tensors and random numbers, two rounds are run and two are replayed; all that they leave
    must be equal. Afterwards everything is as it was before.

    Args:
        program: What to record.
        recording: Where to.

    Returns:
        What the recorded run returned.

    Raises:
        CaptureError: If it can't be recorded, or does something else when it is replayed.
    """
    program.check()
    tensors = program.storage()
    device = tensors[0].device
    start, chance = [tensor.clone() for tensor in tensors], random_state(device)

    def restart() -> None:
        for tensor, value in zip(tensors, start, strict=True):
            tensor.copy_(value)
        set_random_state(chance, device)

    def rounds(play: Callable[[], Any]) -> list[list[Tensor]]:
        left = []
        for number in range(ROUNDS):
            if number:
                program.go_on()
            play()
            left.append([tensor.clone() for tensor in tensors])
        return left

    try:
        # A graph is recorded on the current device.
        with torch.no_grad(), torch.cuda.device_of(tensors[0]):
            expected = rounds(_checked(program))
            restart()
            result = recording.record(program.run)
            program.check()
            restart()
            got = rounds(recording.replay)
            for number, (theirs, mine) in enumerate(zip(expected, got, strict=True)):
                if not all(torch.equal(a, b) for a, b in zip(theirs, mine, strict=True)):
                    raise CaptureError(f"round {number} of a replay leaves other numbers than a run does")
    except CaptureError:
        raise
    except Exception as error:
        # Whatever an operation raises while it is recorded (a read-back, a copy from the host, …).
        raise CaptureError(begin_of(error)) from error
    finally:
        program.put_back()
        with torch.no_grad():
            restart()
    return result


def _checked(program: Program) -> Callable[[], Any]:
    def run() -> None:
        with _no_waiting():
            program.run()
        program.check()

    return run


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Raise an error where the host would wait for the GPU: a recording that does can't be taken back."""
    if not torch.cuda.is_available():
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
