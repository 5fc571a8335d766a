"""Optimizer steps in machine code, from torch's tensors and back."""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ...distributions import log_slope
from ..kernels.iteration import AdamSteps, Group, Loss, SmallNet, Std
from ..kernels.iteration import Rows as Tensors
from ..thread_pool import Workers
from .kept import SOURCES, call, kept
from .losses import OLD_LOGP, Rows
from .networks import Net, block_rows, lay_out, net_of, places, turn, turned_places
from .steps import Room, State, conclude, descend


def _kept(sources: str) -> tuple[Any, Any, Any]:
    """Return what makes many steps, adds the gradient of some rows, and makes a step of it.

    They are kept for as long as these sources stay.
    """

    @kept
    def many(order, rows, policy, value, state, spans, options, step, loss, room, records):
        tried, made, size = 0, True, order.shape[1]
        while made and tried < len(order):
            sums = np.zeros(5)
            state.gradient[:] = 0
            for is_policy in (True, False):
                net = policy if is_policy else value
                descend(order[tried], size, rows, net, is_policy, loss, room, sums)
            made = conclude(sums, size, state, spans, options, step + tried, loss, records[tried])
            if made:
                turn(policy)
                turn(value)
            tried += 1
        return tried, sources

    @kept
    def part(numbers, total, rows, net, is_policy, loss, room, sums):
        descend(numbers, total, rows, net, is_policy, loss, room, sums)
        return sources

    @kept
    def finish(gradients, sums, size, policy, value, state, spans, options, step, loss, into):
        for n in range(1, len(gradients)):
            gradients[0] += gradients[n]
        made = conclude(sums, size, state, spans, options, step, loss, into)
        if made:
            turn(policy)
            turn(value)
        return made, sources

    return many, part, finish


_many, _part, _finish = _kept(SOURCES)
_MANY, _PART, _FINISH = "optimizer steps", "gradients", "the end of optimizer steps"


@final
class Program:
    """Makes the optimizer steps of two networks.

    Args:
        nets: The network whose output is the head's, and that of the values.
        normal: Of how many numbers actions are; 0 if they are choices.
        size: Rows of a minibatch.
        parts: In how many parts of their own gradient rows are taken, each network by itself; 0 if all steps
            are made in one call, on one thread.
        threads: How many share them.
    """

    def __init__(self, nets: Sequence[SmallNet], normal: int, size: int, parts: int, threads: int) -> None:
        self._dtype, self._size, self._parts = nets[0].weights[0].numpy().dtype, size, parts
        shapes = [[tuple(weight.shape) for weight in net.weights] for net in nets]
        block = min(*(block_rows(each) for each in shapes), -(-size // max(1, parts)))
        begin = np.zeros(4, np.int64)
        self._layers = [lay_out(each, self._dtype, block, begin) for each in shapes]
        _, self._end, turned, result = begin
        self._gradients = np.zeros((max(1, parts), self._end + normal), self._dtype)
        others = [np.zeros(self._end + normal, self._dtype) for _ in range(4)]
        self._state = state = State(others[0], others[1], others[2], others[3], self._gradients[0])
        both = np.zeros(turned, self._dtype)
        self._nets: list[list[Net]] = []
        self._rooms: list[Room] = []
        for _ in range(threads if parts else 1):
            storage = {
                "parameters": state.parameters,
                "gradient": state.gradient,
                "turned": both,
                "results": np.zeros(result, self._dtype),
                "derivatives": np.zeros(result, self._dtype),
            }
            self._nets.append(
                [
                    net_of(layers, block, relu=net.relu, **storage)
                    for layers, net in zip(self._layers, nets, strict=True)
                ]
            )
            policy, value = (np.empty((block, each[0][1]), self._dtype) for each in shapes)
            self._rooms.append(Room(policy, value, np.empty(block, self._dtype)))
        self._places = [self._of_torch(each, normal) for each in self._state[:-1]]
        self._turned = [part for layers in self._layers for part in turned_places(both, layers)]

    def _of_torch(self, flat: Any, normal: int) -> list[Tensor]:
        """Return the parts of a flat array that are torch's weights and biases, and log std."""
        found = [part for layers in self._layers for part in places(flat, layers)]
        return [*found, torch.from_numpy(flat[self._end :])] if normal else found

    def make(
        self,
        rows: Tensors,
        orders: Tensor,
        nets: Sequence[SmallNet],
        std: Std | None,
        adam: AdamSteps,
        loss: Loss,
        workers: Workers,
    ) -> Tensor:
        """Make a step from each minibatch until one isn't made; return their records, [n, 11].

        Args:
            rows: What to learn from.
            orders: [minibatches, size]. Numbers of the rows of each.
            nets: As the program was made with.
            std: Of actions, if they are numbers.
            adam: What makes the steps.
            loss: The loss.
            workers: Threads that share the parts.
        """
        tensors = [
            each for net in nets for pair in zip(net.weights, net.biases, strict=True) for each in pair
        ]
        tensors += [] if std is None else [std.log_std]
        held = {p.data_ptr(): (group, n) for group in adam.groups for n, p in enumerate(group.parameters)}
        owners = [held[tensor.data_ptr()] for tensor in tensors]
        moved = [
            [group.parameters[n] for group, n in owners],
            [group.means[n] for group, n in owners],
            [group.squares[n] for group, n in owners],
        ]
        if any(group.amsgrad for group in adam.groups):
            moved.append([g.most[n] if g.amsgrad else torch.zeros_like(g.parameters[n]) for g, n in owners])
        weights = {*range(0, 2 * sum(map(len, self._layers)), 2)}
        moved = [
            [each.t() if n in weights else each.view(-1) for n, each in enumerate(column)] for column in moved
        ]
        for ours, column in zip(self._places, moved, strict=False):
            torch._foreach_copy_(ours, column)
        torch._foreach_copy_(self._turned, [weight for net in nets for weight in net.weights[1:]])
        spans, options = self._options([group for group, _ in owners])
        records = np.zeros((len(orders), 11))
        arrays = self._rows(rows, squash=loss.squash)
        step = float(adam.steps)
        if self._parts:
            count = self._share(orders.numpy(), arrays, spans, options, step, loss, records, workers)
        else:
            given = *self._nets[0], self._state, spans, options, step, loss, self._rooms[0], records
            count, _ = call(_many, _MANY, orders.numpy(), arrays, *given)
        for ours, column in zip(self._places, moved, strict=False):
            torch._foreach_copy_(column, ours)
        made = records[:count]
        adam.steps.add_(made[:, -1].sum())
        return torch.from_numpy(made).float()

    def _share(
        self,
        orders: Any,
        rows: Rows,
        spans: Any,
        options: Any,
        step: float,
        loss: Loss,
        records: Any,
        workers: Workers,
    ) -> int:
        """Make the steps with threads that share the parts; return how many were tried."""
        starts = [self._size * n // self._parts for n in range(self._parts + 1)]
        for tried, order in enumerate(orders):
            sums = np.zeros((2 * self._parts, 5))

            def work(thread: int, job: int, order: Any = order, sums: Any = sums) -> None:
                which, part = job % 2, job // 2
                net = self._nets[thread][which]._replace(gradient=self._gradients[part])
                numbers = order[starts[part] : starts[part + 1]]
                given = numbers, self._size, rows, net, which == 0, loss, self._rooms[thread], sums[job]
                call(_part, _PART, *given)

            self._gradients.fill(0)
            workers.run(work, 2 * self._parts)
            given = self._state, spans, options, step + tried, loss, records[tried]
            made, _ = call(_finish, _FINISH, self._gradients, sums.sum(0), self._size, *self._nets[0], *given)
            if not made:
                return tried + 1
        return len(orders)

    def _rows(self, rows: Tensors, *, squash: bool) -> Rows:
        """Return what to learn from as arrays."""
        targets, drawn = rows.targets.t().contiguous(), rows.drawn.t().contiguous()
        if squash:
            # Not of the squashed number but of the one that was drawn, as the program rates it now.
            targets[:, OLD_LOGP] += log_slope(drawn).sum(1)
        return Rows(
            rows.policy.contiguous().numpy(),
            rows.value.contiguous().numpy(),
            drawn.numpy(),
            targets.numpy(),
            np.zeros((0, 0), np.bool_) if rows.allowed is None else rows.allowed.contiguous().numpy(),
        )

    def _options(self, groups: list[Group]) -> tuple[Any, Any]:
        """Return Adam's options, [n, 8], and from where to where in the state they hold, [n, 2].

        Args:
            groups: Of each weight and bias, and of log std.
        """
        layers = np.concatenate(self._layers)
        starts = [(start, start + inputs * width) for _, inputs, _, width, start, *_ in layers]
        starts = [*np.array(starts).ravel(), self._end][: len(groups)]
        spans, options = [], []
        for n, group in enumerate(groups):
            if n and group is groups[n - 1]:
                continue
            spans.append(starts[n])
            options.append((*group.numbers, group.maximize, group.decoupled, group.amsgrad))
        stops = [*spans[1:], len(self._state.parameters)]
        return np.array([*zip(spans, stops, strict=True)]), np.array(options, np.float64)
