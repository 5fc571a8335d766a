"""The programs of an algorithm, each recorded once and replayed."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, final

import torch
from torch import Tensor, nn

from ..common.errors import CaptureError
from ..ppo.collector import Collector
from ..ppo.learner import Learner
from ..ppo.rollout_buffer import Sequences, count
from .capture import Program, Recording, capture
from .snapshot import ObjectSnapshot

_log = logging.getLogger(__name__)

_MOST_RECORDINGS = 8
"""Of one kind: each holds memory."""


class GraphCache:
    """Programs of one kind that have been recorded; what can't be is run as it is, and said once.

    Args:
        what: What the programs do.
        recorder: Makes a recording.
    """

    reason: str | None = None
    """Why programs aren't replayed; None while they are."""

    def __init__(self, what: str, recorder: Callable[[], Recording]) -> None:
        self._what, self._recorder = what, recorder
        self._places: list[int] = []
        self._known: dict[Any, tuple[Recording, Program, Any]] = {}

    def forget(self) -> None:
        """Drop all recordings: what they read or write isn't where it was."""
        self._known.clear()

    def give_up(self, error: CaptureError) -> None:
        """Record nothing from now on."""
        self.reason = str(error)
        self.forget()
        _log.warning("%s eagerly, not as a graph: %s", self._what, error)

    def replay(
        self,
        key: Any,
        tensors: list[Tensor],
        make: Callable[[], Program],
        before: Callable[[Program], None] = lambda program: None,
    ) -> Any:
        """Return what the recorded program with this key returns; None if it must be run instead.

        Args:
            key: Tells programs apart.
            tensors: What they read and write: once one lies elsewhere in memory, they are recorded anew.
            make: Makes the program, if there is none yet.
            before: Puts the input where the program reads it.
        """
        places = [tensor.data_ptr() for tensor in tensors]
        if places != self._places:
            self.forget()
            self._places = places
        if self.reason is None and key not in self._known and len(self._known) < _MOST_RECORDINGS:
            try:
                program, recording = make(), self._recorder()
                before(program)
                self._known[key] = recording, program, capture(program, recording)
            except CaptureError as error:
                self.give_up(error)
        if key not in self._known:
            return None
        recording, program, result = self._known[key]
        before(program)
        recording.replay()
        return result


def _numbers(policy: nn.Module) -> Iterator[Tensor]:
    """Yield what a policy computes with; a sparse buffer has no one place in memory."""
    yield from policy.parameters()
    yield from (buffer for buffer in policy.buffers() if buffer.layout is torch.strided)


class _Horizon(Program):
    def __init__(self, collector: Collector, snapshot: ObjectSnapshot, *, deterministic: bool) -> None:
        self._collector, self._snapshot, self._deterministic = collector, snapshot, deterministic

    def run(self) -> bool:
        self._collector.rollout(deterministic=self._deterministic)
        self._snapshot.rebind()
        return True

    def storage(self) -> list[Tensor]:
        # Those of the device first: an environment may hold some elsewhere.
        return [*self._collector.tensors(), *self._snapshot.tensors()]

    def go_on(self) -> None:
        self._collector.buffer.go_on()

    def check(self) -> None:
        path = self._snapshot.changed()
        if path is not None:
            raise CaptureError(
                f"{path} changes from step to step and is no tensor: make it one, of the device"
            )

    def put_back(self) -> None:
        self._snapshot.put_back()


@final
class GraphedRollout:
    """Simulates the horizons of a collector by replaying them.

    Args:
        collector: Whose environment and policy they are of.
        recorder: Makes a recording.
    """

    def __init__(self, collector: Collector, recorder: Callable[[], Recording]) -> None:
        self._collector = collector
        self.graphs = GraphCache(f"{type(collector.env).__name__} is simulated", recorder)
        self._snapshot: ObjectSnapshot | None = None
        self._changes = -1
        self._warm = False

    def __call__(self, *, deterministic: bool) -> None:
        """Fill the buffer from its first observations on."""
        collector = self._collector
        # The first horizon makes what is made only once.
        if self._warm and self.graphs.reason is None:
            snapshot = self._held()
            if snapshot is not None and self.graphs.replay(
                (deterministic, collector.sequences_key),
                [*_numbers(collector.policy), *collector.tensors()],
                lambda: _Horizon(collector, snapshot, deterministic=deterministic),
            ):
                return
        self._warm = True
        collector.rollout(deterministic=deterministic)

    def _held(self) -> ObjectSnapshot | None:
        """Return what the environment holds, its tensors where recordings have them; None if it can't be."""
        env, snapshot = self._collector.env, self._snapshot
        try:
            if snapshot is not None and (path := snapshot.changed()) is None:
                snapshot.rebind()
                return snapshot
            # A reset with another config is one thing, a counter of resets another.
            self._changes += 1
            if self._changes > _MOST_RECORDINGS:
                raise CaptureError(f"{path} changes again and again and is no tensor: make it one")
            self.graphs.forget()
            self._snapshot = ObjectSnapshot(env, type(env).__name__)
        except CaptureError as error:
            self.graphs.give_up(error)
            return None
        return self._snapshot


class _Function(Program):
    """Some function of tensors, whose changes show in all of its rounds alike."""

    def __init__(self, run: Callable[[], Any], tensors: Callable[[], list[Tensor]]) -> None:
        self._run, self._tensors = run, tensors

    def run(self) -> Any:
        return self._run()

    def storage(self) -> list[Tensor]:
        return self._tensors()


@final
class GraphedFunction:
    """Calls a function of tensors by replaying it, from the second call on.

    Args:
        what: What it does.
        function: Returns tensors, or True.
        tensors: Returns all tensors that it changes.
        recorder: Makes a recording.
    """

    def __init__(
        self,
        what: str,
        function: Callable[[], Any],
        tensors: Callable[[], list[Tensor]],
        recorder: Callable[[], Recording],
    ) -> None:
        self._function, self._tensors = function, tensors
        self.graphs = GraphCache(what, recorder)
        self._warm = False

    def __call__(self) -> Any:
        """Return what the function returns."""
        result = None
        if self._warm:
            tensors = self._tensors
            result = self.graphs.replay("", tensors(), lambda: _Function(self._function, tensors))
        self._warm = True
        return self._function() if result is None else result


class _Step(_Function):
    """One optimizer step, on the sequences whose numbers are in `index`."""

    def __init__(self, learner: Learner, sequences: Sequences, index: slice | Tensor) -> None:
        self.index = index if isinstance(index, slice) else index.clone()

        def run() -> Tensor:
            losses = learner.gradient(sequences, self.index)
            return learner.finish(losses, sequences, self.index) if learner.capturable else losses

        super().__init__(run, learner.tensors)


@final
class GraphedStep:
    """Makes the optimizer steps of a learner by replaying them.

    Args:
        learner: Whose parameters and optimizer they change.
        recorder: Makes a recording.
    """

    def __init__(self, learner: Learner, recorder: Callable[[], Recording]) -> None:
        self._learner = learner
        self.graphs = GraphCache("Optimizer steps are made", recorder)
        if learner.scaler is not None:
            self.graphs.give_up(CaptureError("float16's gradient scaler is steered by the host"))

    def __call__(self, sequences: Sequences, index: slice | Tensor) -> Tensor:
        """Make one optimizer step; return its record."""
        learner = self._learner
        # The first update makes gradients and the optimizer's state.
        if not learner.warm or self.graphs.reason is not None:
            return learner.step(sequences, index)
        if isinstance(index, slice) and count(index) < len(sequences):
            index = torch.arange(index.start, index.stop, device=learner.backend.device)

        def before(program: Program) -> None:
            if isinstance(program, _Step) and isinstance(index, Tensor):
                program.index.copy_(index)  # type: ignore[union-attr]

        key = "whole" if isinstance(index, slice) else len(index)
        tensors = [*learner.tensors(), *_numbers(learner.backend.policy), *sequences.tensors()]
        result = self.graphs.replay(key, tensors, lambda: _Step(learner, sequences, index), before)
        if result is None:
            return learner.step(sequences, index)
        return result.clone() if learner.capturable else learner.finish(result, sequences, index)
