"""A recording without a GPU: calls are noted down and made again on the same storage, as by a CUDA graph."""

from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from rlstack.engine.capture import Recording
from rlstack.ppo.executor import Executor

READS_BACK = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"}


class Notes(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.name().split(".")[0] in READS_BACK:
            raise RuntimeError("operation not permitted when stream is capturing")
        out = func(*args, **kwargs)
        self.calls.append((func, *tree_map(fixed, (args, kwargs, out)), torch.is_grad_enabled()))
        return out


def fixed(value):
    """Return a tensor that stays where this one is now, whatever storage that one gets later."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().requires_grad_(value.requires_grad)


class StandIn(Recording):
    made = 0
    replays = 0

    def record(self, run):
        type(self).made += 1
        with Notes() as notes:
            result = run()
        self.calls = notes.calls
        return result

    def replay(self):
        type(self).replays += 1
        # As they were called: below autograd, but some do more where gradients are wanted.
        with torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, out, grad in self.calls:
                with torch.set_grad_enabled(grad):
                    again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def like_on_a_gpu(make, *args, recorder=None, **options):
    """Make an algorithm, or a trainer, that keeps on the CPU what it would keep on a GPU.

    Args:
        make: What makes it.
        args: Of it.
        recorder: Makes a recording; None if nothing is recorded.
        options: Of it.
    """
    with ExitStack() as stack:
        for name in ("learner.reads_wait", "collector.reads_wait", "optimizers.can_record"):
            stack.enter_context(patch(f"rlstack.ppo.{name}", lambda device: True))
        # A GPU has no small optimizer steps of their own.
        stack.enter_context(patch("rlstack.engine.select.KernelExecutor", Executor))
        stack.enter_context(patch("rlstack.engine.select.make_recorder", lambda hparams, device: recorder))
        return make(*args, **options)


def record(make, *args, **options):
    """Make an algorithm on the CPU that does as one on a GPU does, with stand-ins."""
    StandIn.made = StandIn.replays = 0
    return like_on_a_gpu(make, *args, recorder=StandIn, **options)
