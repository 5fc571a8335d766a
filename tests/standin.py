"""A recording without a GPU: calls are noted down and made again on the same storage, as by a CUDA graph."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlstack.capture import Recording
from rlstack.optimizers import OptimizerOptions
from rlstack.recorded import Recorded

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
        self.calls.append((func, args, kwargs, out, torch.is_grad_enabled()))
        return out


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
                for fixed, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(fixed, torch.Tensor) and fixed.data_ptr() != new.data_ptr():
                        fixed.copy_(new)


def like_on_a_gpu(algorithm):
    """Let an algorithm on the CPU keep on the device what one on a GPU does."""
    learner = algorithm.learner
    learner._on_cpu = False
    learner.entropy_coeff = torch.zeros(())
    if type(learner.optimizer) in (torch.optim.Adam, torch.optim.AdamW):
        lr = torch.tensor(learner.optimizer.param_groups[0]["lr"])
        learner.optimizer.param_groups[0]["lr"] = lr
        learner.options = OptimizerOptions(learner.optimizer)
        learner.capturable = True
    return algorithm


def record(algorithm):
    """Let an algorithm on the CPU do as one on a GPU does, with stand-ins."""
    StandIn.made = StandIn.replays = 0
    like_on_a_gpu(algorithm)
    algorithm._recorded = Recorded(
        algorithm.collector, algorithm.learner, algorithm.advantages, algorithm._sequences, StandIn
    )
    return algorithm
