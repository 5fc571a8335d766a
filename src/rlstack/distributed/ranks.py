"""The ranks of a training: the processes that train one policy together.

All of them make the same calls in the same order, of three kinds: numbers and words that are exchanged
(`exchange`), tensors that are gathered (`gather`), gradients that are averaged (`average`).
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Final, NamedTuple, final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store
from torch.distributed.rendezvous import rendezvous

from ..common.errors import RankError, told
from .meeting import meet
from .pulse import DEAD, Pulse

_VARIABLES: Final = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What `torchrun` tells each of its processes."""

_FOREVER: Final = timedelta(days=7)
"""gloo's patience: the pulse knows better who is gone."""

_LOOK: Final = timedelta(seconds=1)
"""How long to wait for the others before asking whether they live."""

_NAMING: Final = 10
"""How many such times to wait for the name of whom a connection has broken to."""


class Said(NamedTuple):
    """What one rank says in an exchange."""

    words: dict[str, Any]
    """What JSON can hold."""
    numbers: Tensor
    """[n], float64, on the CPU."""


@final
class Ranks:
    """This process's place among those that train one policy.

    One that is alone is never asked for anything but `many`, `index` and `count`.

    Args:
        pulse: Knows who lives; None for a process that is alone.
        index: Which one this is; rank 0 writes what is kept of the training.
        count: How many there are.
    """

    updates = 0
    """How many updates this rank has made, for messages."""

    def __init__(self, pulse: Pulse | None = None, index: int = 0, count: int = 1) -> None:
        self.index, self.count, self._pulse = index, count, pulse
        self.many = count > 1
        """Whether there are others."""
        self._room = 4096
        self._words: Any = None
        self._sums: Any = None
        if self.many:
            # Two, so that calls of different kinds wait for each other in vain, and are named.
            self._words, self._sums = (dist.new_group(backend="gloo", timeout=_FOREVER) for _ in range(2))

    @property
    def recordable(self) -> bool:
        """Whether `average` can be a part of a CUDA graph."""
        return not self.many or "nccl" in str(dist.get_backend_config())

    def exchange(self, what: str, words: Mapping[str, Any], numbers: Tensor | None = None) -> list[Said]:
        """Return what every rank says, in their order.

        Args:
            what: What it is about; the same on all ranks.
            words: What JSON can hold.
            numbers: [n], on any device. Of the same number on all ranks.

        Raises:
            RankError: If a rank is gone, or says something else.
        """
        text = json.dumps({"what": what, "words": words}).encode()
        rest = b"" if numbers is None else numbers.detach().to("cpu", torch.float64).numpy().tobytes()
        data = len(text).to_bytes(8, "little") + text + rest
        self._begin(what)
        while True:
            room = self._room
            mine = bytearray(len(data).to_bytes(8, "little") + data[: room - 8])
            mine += bytes(room - len(mine))
            every = [torch.empty(room, dtype=torch.uint8) for _ in range(self.count)]
            self._wait(
                partial(
                    dist.all_gather,
                    every,
                    torch.frombuffer(mine, dtype=torch.uint8),
                    group=self._words,
                    async_op=True,
                )
            )
            messages = [bytes(each.numpy()) for each in every]
            longest = max(int.from_bytes(message[:8], "little") for message in messages) + 8
            if longest <= room:
                break
            # All see the same lengths, so all make the same room.
            self._room = 1 << (longest - 1).bit_length()
        return [self._read(message, what, rank) for rank, message in enumerate(messages)]

    def _read(self, message: bytes, what: str, rank: int) -> Said:
        size, text = int.from_bytes(message[:8], "little"), int.from_bytes(message[8:16], "little")
        said = json.loads(message[16 : 16 + text])
        if said["what"] != what:
            raise RankError(
                f"rank {rank} is at {said['what']!r}, rank {self.index} at {what!r} (update {self.updates}): "
                "all ranks must make the same calls in the same order"
            )
        rest = bytearray(message[16 + text : 8 + size])
        numbers = torch.frombuffer(rest, dtype=torch.float64) if rest else torch.empty(0, dtype=torch.float64)
        return Said(said["words"], numbers)

    def gather(self, what: str, numbers: Tensor) -> Tensor:
        """Return the numbers [n] of all ranks, [ranks, n], on their device."""
        self._begin(what)
        every = [torch.empty_like(numbers) for _ in range(self.count)]
        self._wait(
            partial(dist.all_gather, every, numbers, group=self._group(numbers), async_op=True), numbers
        )
        return torch.stack(every)

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor], weight: Tensor | None) -> None:
        """Put the mean over ranks in place of tensors, all in one reduction.

        Args:
            tensors: Of the same shapes on all ranks.
            weight: []. How much this rank's count, in units that are the same on all; None counts all alike.
        """
        self._begin("gradient")
        first = tensors[0]
        share = torch.ones_like(first.flatten()[:1]) if weight is None else weight.view(1)
        flat = torch.cat([*(each.flatten() for each in tensors), share])
        if weight is not None:
            flat[:-1] *= share
        self._wait(partial(dist.all_reduce, flat, group=self._group(flat), async_op=True), flat)
        # What counts nowhere has no gradient.
        flat[:-1] /= flat[-1:].clamp_min(torch.finfo(flat.dtype).tiny)
        parts = flat[:-1].split([each.numel() for each in tensors])
        for each, part in zip(tensors, parts, strict=True):
            each.copy_(part.view_as(each))

    @torch.no_grad()
    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Put the tensors of rank 0 in place of these."""
        for each in tensors:
            self._begin("parameters")
            whole = each.contiguous()
            self._wait(partial(dist.broadcast, whole, 0, group=self._group(whole), async_op=True), whole)
            each.copy_(whole)

    def agree(self, what: str, words: Mapping[str, Any]) -> dict[str, Any]:
        """Return what rank 0 says."""
        return self.exchange(what, words)[0].words

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell the others of an error, which ends this rank's part."""
        try:
            yield
        except RankError:
            raise
        except BaseException as error:
            if self._pulse is not None and not isinstance(error, GeneratorExit):
                self._pulse.fail(told(error), self.updates)
            raise

    def leave(self) -> None:
        """Tell the others that this rank is done."""
        if self._pulse is not None:
            self._pulse.end()

    def _begin(self, what: str) -> None:
        assert self._pulse is not None
        self._pulse.begin(what, self.updates)

    def _group(self, tensor: Tensor) -> Any:
        return self._sums if tensor.device.type == "cpu" else None

    def _wait(self, call: Any, tensor: Tensor | None = None) -> None:
        """Make a call, and wait until all others have made it.

        Raises:
            RankError: If one of them never will.
        """
        pulse = self._pulse
        assert pulse is not None
        try:
            work = call()
            if tensor is not None and tensor.device.type != "cpu":
                # The device waits, this process goes on.
                work.wait()
                return
        except RuntimeError as error:
            raise self._broken(error) from error
        while True:
            try:
                work.wait(_LOOK)
                return
            except RuntimeError as error:
                if work.is_completed():
                    raise self._broken(error) from error
                if fault := pulse.fault():
                    raise RankError(f"{fault} (seen by {pulse.name})") from None

    def _broken(self, error: RuntimeError) -> RankError:
        """Return the error that a broken connection is, with the name of the other end."""
        pulse = self._pulse
        assert pulse is not None
        for _ in range(_NAMING):
            if fault := pulse.fault(DEAD):
                return RankError(f"{fault} (seen by {pulse.name})")
            pulse.wait()
        return RankError(
            f"{pulse.name} lost another rank in update {self.updates}: {' '.join(str(error).split()):.300}"
        )


ALONE: Final = Ranks()

_joined: dict[Any, Ranks] = {}
"""By process group."""


def join() -> Ranks:
    """Return this process's place among the ranks: those of torch's process group, or of `torchrun`.

    Without either, or with one rank, the process is alone.

    Raises:
        RankError: If the launcher's variables can't be used.
    """
    if not dist.is_available():
        return ALONE
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE") or 1) < 2 or any(not os.environ.get(each) for each in _VARIABLES):
            return ALONE
        _initialize()
    group = dist.group.WORLD
    if dist.get_world_size() == 1:
        return ALONE
    if group not in _joined:
        own: Any = _get_default_store()
        store = PrefixStore("rlstack", own.clone())
        pulse = Pulse(store, dist.get_rank(), dist.get_world_size())
        _joined.clear()
        _joined[group] = Ranks(pulse, dist.get_rank(), dist.get_world_size())
    return _joined[group]


def _initialize() -> None:
    """Make the process group of `torchrun`'s variables, and take this rank's GPU."""
    backend = "gloo"
    if torch.cuda.is_available():
        local, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local < there:
            torch.cuda.set_device(local)
            backend = "cpu:gloo,cuda:nccl"
    try:
        store, rank, count = next(rendezvous("env://"))
        store = PrefixStore(meet(PrefixStore("rlstack", store), rank, count), store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count)
    except (RuntimeError, ValueError) as error:
        said = ", ".join(f"{name}={os.environ.get(name)}" for name in _VARIABLES)
        raise RankError(f"no process group could be made of {said}: {told(error)}") from error
