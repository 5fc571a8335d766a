"""Which model has a forward and backward pass of its own, written out."""

import torch
from torch import nn

from ...distributions import OWN
from ...models.encoder import ObservationEncoder
from ...policies.policy import Policy, RecurrentPolicy
from ...policies.watch import has_hooks
from .base import Kernel
from .lstm import LSTMKernel
from .mlp import MLPKernel

__all__ = ["Kernel", "kernel_class"]

_ACTIVATIONS = (nn.ReLU, nn.Tanh)


def kernel_class(policy: Policy | RecurrentPolicy, *, amp: bool) -> type[Kernel] | None:
    """Return the kernel that computes what this very policy does, or None if there is none."""
    if policy.distribution_cls not in OWN:
        return None
    model = policy.model
    cls: type[Kernel]
    if type(model) in Policy.default_models:
        # Whatever has taken their places may have no layers to look at.
        plain_mlps = type(model.policy) is nn.Sequential and type(model.value) is nn.Sequential
        layers = [*model.policy[:-1], *model.value] if plain_mlps else []
        plain_mlps = plain_mlps and all(type(layer) in (nn.Linear, *_ACTIVATIONS) for layer in layers)
        cls, expected = MLPKernel, plain_mlps
    elif type(model) in RecurrentPolicy.default_models:
        # Cells in 16 bits would lose what they remember.
        lstm = model.lstm
        plain_lstm = type(lstm) is nn.LSTM and lstm.bias and not lstm.bidirectional and not lstm.proj_size
        plain_lstm = plain_lstm and model.value_encoder is None
        cls, expected = LSTMKernel, not amp and plain_lstm and type(model.value) is nn.Linear
    else:
        return None
    encoders = [each for each in (model.encoder, model.value_encoder) if each is not None]
    own = all(type(each) is ObservationEncoder for each in encoders) and not has_hooks(model)
    parameters = list(model.parameters())
    plain = all(type(p) is nn.Parameter and p.requires_grad and not p._backward_hooks for p in parameters)
    # Gradients are parts of one flat tensor, in their order; a fused optimizer takes parameters to be so too.
    plain = plain and all(parameter.is_contiguous() for parameter in parameters)
    dtypes = {parameter.dtype for parameter in parameters}
    known = dtypes in ({torch.float32}, {torch.float64})
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
    return cls if expected and own and plain and known and on_cpu else None
