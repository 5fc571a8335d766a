"""What a policy does, as a function of plain tensors."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

from torch import Tensor, nn

from .. import specs
from ..common.errors import ExportError
from .tensors import apart, names, together

if TYPE_CHECKING:
    from ..distributions import Distribution
    from ..policies.base import PolicyBase

NOISE = "noise"


@final
class Acting(nn.Module):
    """What a policy does with observations: tensors in, tensors by their names out.

    It is called with the leaves of the observations that acting needs, those of the recurrent state, and the
    random numbers where it samples, [N, ...] each, as `inputs` names them.

    Args:
        policy: The policy.
        deterministic: Whether it acts without chance.

    Raises:
        ExportError: If it is to sample, and its distribution has no `from_noise`.
    """

    def __init__(self, policy: "PolicyBase", *, deterministic: bool = True) -> None:
        super().__init__()
        self.policy, self._samples = policy, not deterministic
        self.inputs = names("obs", policy.acting_spec)
        if policy.state_spec is not None:
            self.inputs += names("state", policy.state_spec)
        if self._samples:
            cls = policy.distribution_cls
            if cls.noise is None:
                raise ExportError(
                    f"{cls.__name__} can't sample in an exported policy: define noise, noise_shape and "
                    "from_noise in it, or export the policy as it acts without chance"
                )
            self.inputs.append(NOISE)
        self.forward = with_arguments(self._act, len(self.inputs))

    def distribution(self, *inputs: Tensor) -> tuple["Distribution", Any]:
        """Return the distribution of actions, and the next state, of all inputs but the noise."""
        policy, rows = self.policy, inputs[0].shape[0]
        count = len(names("obs", policy.acting_spec))
        obs, state = together(policy.acting_spec, inputs[:count], rows), None
        if policy.state_spec is not None:
            state = together(policy.state_spec, inputs[count:], rows)
        features, _, state = policy.acting_step(obs, state)
        return policy.distribution_cls(features, policy.model), state

    def _act(self, *inputs: Tensor) -> dict[str, Tensor]:
        policy = self.policy
        if self._samples:
            *seen, noise = inputs
            distribution, state = self.distribution(*seen)
            drawn = distribution.from_noise(noise)
        else:
            distribution, state = self.distribution(*inputs)
            drawn = distribution.deterministic_sample()
        actions = apart(policy.action_spec, policy.actions_of(drawn, distribution))
        outputs = dict(zip(names("action", policy.action_spec), actions, strict=True))
        if policy.state_spec is not None:
            after = apart(policy.state_spec, state)
            outputs |= zip(names("next_state", policy.state_spec), after, strict=True)
        return outputs | dict(specs.named(distribution.features, "feature"))


def with_arguments(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Return a function of any arguments as one of so many: torch.export asks for the names of all of them.

    Those of observations may be no names in Python.
    """

    def forward(*inputs: Tensor) -> Any:
        return function(*inputs)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(f"input_{n}", kind) for n in range(count)]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return forward
