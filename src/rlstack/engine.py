"""How to compute: which passes for which policy, and how many rows at a time."""

import torch

from .hparams import Hparams
from .kernels import Kernel, kernel_class
from .kernels.passes import KernelPasses
from .passes import EagerPasses, Passes
from .policies import Policy, RecurrentPolicy

_BLOCK_BYTES = 2**20
"""Of one layer's activations for one block."""


def make_passes(policy: Policy | RecurrentPolicy, hparams: Hparams, device: torch.device) -> Passes:
    """Return the fastest passes that compute what the policy's model does, or those that are asked for."""
    cls = _kernel(policy, hparams, device)
    if cls is not None:
        return KernelPasses(policy, hparams, cls)
    return EagerPasses(policy, hparams, device)


def default_block_size(policy: Policy | RecurrentPolicy, hparams: Hparams, device: torch.device) -> int:
    """Return how many rows to compute at a time.

    On a CPU: as many as keep their activations in a core's cache, and few enough to occupy all threads.
    """
    if device.type == "cuda":
        return 65536
    if _kernel(policy, hparams, device) is None:
        return 2048
    config = policy.model.config
    width = max(config.get("hiddens") or (config["hidden_size"],))
    rows = _BLOCK_BYTES // (width * (2 if hparams.enable_amp else 4))
    total = hparams.num_envs * hparams.horizon
    minibatch = (hparams.sgd_minibatch_size or total) * hparams.sequence_length
    share = -(-min(total, minibatch) // torch.get_num_threads())
    return max(64, min(rows, share))


def _kernel(policy: Policy | RecurrentPolicy, hparams: Hparams, device: torch.device) -> type[Kernel] | None:
    if hparams.engine != "auto" or device.type != "cpu":
        return None
    return kernel_class(policy, amp=hparams.enable_amp)
