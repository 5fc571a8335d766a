"""Small optimizer steps in machine code, from torch's tensors and back."""

import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numba
import numpy as np
import torch
from torch import Tensor

from ...distributions import log_slope
from ..kernels.iteration import AdamSteps, Group, Loss, SmallNet, Std
from ..kernels.iteration import Rows as Tensors
from .compiled import OPTIONS
from .losses import OLD_LOGP, Rows
from .networks import Net
from .products import BYTES
from .steps import State, iterate

_log = logging.getLogger(__name__)


def _kept(sources: str) -> Any:
    """Return `iterate`, kept on disk once it is compiled, for as long as these sources stay.

    numba itself looks at the file of this function alone.
    """

    @numba.njit(**OPTIONS, cache=True)
    def kept(order, rows, policy, value, layers, state, plain, spans, options, step, loss, records):
        tried = iterate(order, rows, policy, value, layers, state, plain, spans, options, step, loss, records)
        return tried, sources

    return kept


_SOURCES = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
_iterate = _kept(hashlib.sha256(_SOURCES).hexdigest())


def _call(*args: Any) -> int:
    """Call `iterate`; say if it had to be compiled first."""
    start, known = time.perf_counter(), len(_iterate.signatures)
    count: int = _iterate(*args)[0]
    if len(_iterate.signatures) > known and not sum(_iterate.stats.cache_hits.values()):
        seconds = time.perf_counter() - start
        _log.warning(
            "the optimizer steps were compiled in %.1f s; from now on they are taken from %s",
            seconds,
            _iterate.stats.cache_path,
        )
    return count


@final
class Program:
    """Makes the optimizer steps of two networks.

    Args:
        nets: The network whose output is the head's, and that of the values.
        normal: Of how many numbers actions are; 0 if they are choices.
        size: Rows of a minibatch.
    """

    def __init__(self, nets: Sequence[SmallNet], normal: int, size: int) -> None:
        weight = nets[0].weights[0]
        self._normal = normal
        self._dtype = np.dtype(str(weight.dtype).removeprefix("torch."))
        lanes, begin, tables = BYTES // self._dtype.itemsize, np.zeros(4, np.int64), []
        for net in nets:
            table, before = [], 0
            for each in net.weights:
                outputs, inputs = each.shape
                width = -(-outputs // lanes) * lanes
                plain, ours, turned, result = begin
                table.append((plain, inputs, outputs, width, ours, turned, result))
                begin += ((inputs + 1) * outputs, (inputs + 1) * width, outputs * before, size * width)
                before = width
            tables.append(np.array(table))
        self._layers = np.concatenate(tables)
        _, self._end, turned, result = begin
        self._state = State(*(np.zeros(self._end + normal, self._dtype) for _ in State._fields))
        storage = [np.zeros(length, self._dtype) for length in (turned, result, result)]
        self._nets = [
            self._net(table, net.relu, storage, size) for table, net in zip(tables, nets, strict=True)
        ]

    def _net(self, table: Any, relu: bool, storage: list[Any], size: int) -> Net:
        """Return a network with its part of the storage: for turned weights, results and derivatives."""
        last = slice(table[-1][-1], table[-1][-1] + size * table[-1][3])
        ends = [storage[n][last].reshape(size, -1) for n in (1, 2)]
        return Net(table, relu, self._state.parameters, self._state.gradient, *storage, *ends)

    def make(
        self,
        rows: Tensors,
        orders: Tensor,
        nets: Sequence[SmallNet],
        std: Std | None,
        adam: AdamSteps,
        loss: Loss,
    ) -> Tensor:
        """Make a step from each minibatch until one isn't made; return their records, [n, 11].

        Args:
            rows: What to learn from.
            orders: [minibatches, size]. Numbers of the rows of each.
            nets: As the program was made with.
            std: Of actions, if they are numbers.
            adam: What makes the steps.
            loss: The loss.
        """
        tensors = [
            each for net in nets for pair in zip(net.weights, net.biases, strict=True) for each in pair
        ]
        tensors += [] if std is None else [std.log_std]
        held = {p.data_ptr(): (group, n) for group in adam.groups for n, p in enumerate(group.parameters)}
        owners = [held[tensor.data_ptr()] for tensor in tensors]
        moved = [[group.parameters[n].view(-1) for group, n in owners]]
        moved += [[group.means[n].view(-1) for group, n in owners]]
        moved += [[group.squares[n].view(-1) for group, n in owners]]
        if any(group.amsgrad for group in adam.groups):
            most = [g.most[n] if g.amsgrad else torch.zeros_like(g.parameters[n]) for g, n in owners]
            moved += [[each.view(-1) for each in most]]
        plain = [torch.cat(column) for column in moved]
        plain += [plain[0][:0]] * (4 - len(plain))
        spans, options = self._options([group for group, _ in owners])
        records = np.zeros((len(orders), 11))
        count = _call(
            orders.numpy(),
            self._rows(rows, squash=loss.squash),
            *self._nets,
            self._layers,
            self._state,
            tuple(each.numpy() for each in plain),
            spans,
            options,
            float(adam.steps),
            loss,
            records,
        )
        for column, values in zip(moved, plain, strict=False):
            torch._foreach_copy_(column, list(values.split([each.numel() for each in column])))
        made = records[:count]
        adam.steps.add_(made[:, -1].sum())
        return torch.from_numpy(made).float()

    def _rows(self, rows: Tensors, *, squash: bool) -> Rows:
        """Return what to learn from as arrays."""
        targets, drawn = rows.targets.t().contiguous(), rows.drawn.t().to(rows.targets.dtype).contiguous()
        if squash:
            # Not of the squashed number but of the one that was drawn, as the program rates it now.
            targets[:, OLD_LOGP] += log_slope(drawn).sum(1)
        return Rows(
            rows.policy.contiguous().numpy(),
            (rows.value[:0] if rows.value is rows.policy else rows.value).contiguous().numpy(),
            drawn.numpy(),
            targets.numpy(),
            np.zeros((0, 0), np.bool_) if rows.allowed is None else rows.allowed.contiguous().numpy(),
            self._normal > 0,
        )

    def _options(self, groups: list[Group]) -> tuple[Any, Any]:
        """Return Adam's options, [n, 8], and from where to where in the state they hold, [n, 2].

        Args:
            groups: Of each weight and bias, and of log std.
        """
        starts = [(start, start + inputs * width) for _, inputs, _, width, start, *_ in self._layers]
        starts = [*np.array(starts).ravel(), self._end][: len(groups)]
        spans, options = [], []
        for n, group in enumerate(groups):
            if n and group is groups[n - 1]:
                continue
            spans.append(starts[n])
            options.append((*group.numbers, group.maximize, group.decoupled, group.amsgrad))
        stops = [*spans[1:], len(self._state.parameters)]
        return np.array([*zip(spans, stops, strict=True)]), np.array(options, np.float64)
