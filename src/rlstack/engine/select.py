"""Which way of computing an algorithm uses: passes, how many rows at a time, what is recorded."""

from dataclasses import replace

import torch

from ..common.device import can_record
from ..common.errors import HparamsError
from ..hparams import Hparams
from ..policies.policy import Policy, RecurrentPolicy
from ..ppo.advantages import AdvantageEstimator
from ..ppo.backend import Backend, EagerBackend
from ..ppo.collector import Collector
from ..ppo.executor import Executor
from ..ppo.learner import Learner
from ..ppo.memory import default_rows
from .capture import CudaGraph, Recording
from .executor import GraphExecutor
from .kernels.backend import KernelBackend, is_small
from .kernels.base import Kernel
from .kernels.executor import KernelExecutor
from .kernels.select import kernel_class

_BLOCK_BYTES = 2**20
"""Of one layer's activations for one block."""


def make_backend(policy: Policy | RecurrentPolicy, hparams: Hparams, device: torch.device) -> Backend:
    """Return the fastest passes that compute what the policy's model does, or those that are asked for."""
    cls = _kernel(policy, hparams, device)
    return (
        EagerBackend(policy, hparams, device)
        if cls is None
        else KernelBackend(policy, hparams, cls, _cached_rows(policy, hparams))
    )


def with_block_size(policy: Policy | RecurrentPolicy, hparams: Hparams, device: torch.device) -> Hparams:
    """Return the hyperparameters with `grad_block_size` as it suits policy and device, if it wasn't given."""
    if hparams.grad_block_size is not None:
        return hparams
    return replace(hparams, grad_block_size=_block_size(policy, hparams, device))


def _block_size(policy: Policy | RecurrentPolicy, hparams: Hparams, device: torch.device) -> int:
    """Return how many rows to compute at a time.

    With a kernel: a small minibatch as a whole; else as many as keep their activations in a core's cache, and
    few enough to occupy all threads.
    """
    if _kernel(policy, hparams, device) is None:
        return default_rows(device)
    rows = _cached_rows(policy, hparams)
    total = hparams.num_envs * hparams.horizon
    minibatch = min(total, (hparams.sgd_minibatch_size or total) * hparams.sequence_length)
    if is_small(minibatch, sum(parameter.numel() for parameter in policy.parameters())):
        return minibatch
    share = -(-minibatch // torch.get_num_threads())
    return max(64, min(rows, share))


def _cached_rows(policy: Policy | RecurrentPolicy, hparams: Hparams) -> int:
    """Return of how many rows a core's cache holds one layer's activations."""
    config = policy.model.config
    width = max([*config.get("hiddens", ()), *config.get("value_hiddens", ()), config.get("hidden_size", 0)])
    return _BLOCK_BYTES // (width * (2 if hparams.enable_amp else 4))


def _kernel(policy: Policy | RecurrentPolicy, hparams: Hparams, device: torch.device) -> type[Kernel] | None:
    if hparams.engine != "auto" or device.type != "cpu":
        return None
    return kernel_class(policy, amp=hparams.enable_amp)


def make_recorder(hparams: Hparams, device: torch.device) -> type[Recording] | None:
    """Return what records programs on this device; None if nothing is to be recorded.

    Raises:
        HparamsError: If the device has no graphs and they are asked for.
    """
    if hparams.engine == "graph" and not can_record(device):
        raise HparamsError("engine is 'graph', which needs a CUDA device: use auto, eager or compile")
    return CudaGraph if can_record(device) and hparams.engine in ("auto", "graph") else None


def make_executor(collector: Collector, learner: Learner, advantages: AdvantageEstimator) -> Executor:
    """Return the fastest executor that an algorithm's engine and device allow.

    Raises:
        HparamsError: If the device has no graphs and they are asked for.
    """
    recorder = make_recorder(learner.hparams, learner.backend.device)
    if recorder is None:
        cls = KernelExecutor if learner.hparams.engine == "auto" else Executor
        return cls(collector, learner, advantages)
    return GraphExecutor(collector, learner, advantages, recorder)
