"""A policy as an MLflow model: how it acts without chance, as a torch.export program. No pickle."""

import copy
import inspect
import logging
import warnings
from importlib.util import find_spec
from typing import Any, final

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from .. import specs
from ..common.errors import TrackingError, begin_of
from ..policies.policy import Policy, RecurrentPolicy
from .uris import mlflow_at, tracking_uri, without_passwords

_ROWS = 2
"""Of the example; torch.export would take a single row for a constant."""

_NAME = "policy"


@final
class Acting(nn.Module):
    """What a policy does with observations, tensors in and tensors out.

    It is called with the leaves of the observations that acting needs, then those of the recurrent state,
    [N, ...] each, as `rlstack.specs.leaves` orders them; it returns actions, and the next state if any.

    Args:
        policy: The policy.
    """

    def __init__(self, policy: Policy | RecurrentPolicy) -> None:
        super().__init__()
        self.policy = policy
        self.inputs = [*_names("obs", policy.acting_spec)]
        self.outputs = [*_names("action", policy.action_spec)]
        if policy.state_spec is not None:
            self.inputs += _names("state", policy.state_spec)
            self.outputs += _names("state", policy.state_spec)

        def forward(*inputs: Tensor) -> Any:
            return self._act(*inputs)

        # torch.export asks for the names of all arguments; those of observations may be no names in Python.
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(f"input_{n}", kind) for n in range(len(self.inputs))]
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self.forward = forward

    def _act(self, *inputs: Tensor) -> Any:
        policy = self.policy
        count = len(list(specs.leaves(policy.acting_spec)))
        obs = _assemble(policy.acting_spec, inputs[:count])
        state = None if policy.state_spec is None else _assemble(policy.state_spec, inputs[count:])
        features, _, state = policy.acting_step(obs, state)
        _, _, actions = policy.draw(features, deterministic=True)
        outputs = _leaves(policy.action_spec, actions)
        if policy.state_spec is not None:
            outputs += _leaves(policy.state_spec, state)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def log_policy(policy: Policy | RecurrentPolicy, run_id: str, uri: str | None = None) -> str:
    """Log a policy as a model of an MLflow run, with its signature; return the model's URI.

    `mlflow.pytorch.load_model` loads it, with pickle disallowed and without rlstack.

    Args:
        policy: The policy.
        run_id: Of the run.
        uri: Where that is; None is where MLflow's settings say.

    Raises:
        TrackingError: If the extra `mlflow` isn't installed, or the policy can't be exported or sent.
    """
    if find_spec("pandas") is None or find_spec("mlflow.pytorch") is None:
        raise TrackingError("it needs pip install 'rlstack[mlflow]'")
    import mlflow

    quiet = logging.getLogger("mlflow.pytorch")
    before, fault, model_uri = quiet.level, None, ""
    quiet.setLevel(logging.ERROR)
    try:
        acting = Acting(copy.deepcopy(policy).cpu().eval())
        inputs = _example(acting.policy)
        signature = _signature(acting, inputs)
        store = mlflow_at(uri or tracking_uri())
        with warnings.catch_warnings(), store, mlflow.start_run(run_id=run_id):
            warnings.simplefilter("ignore")
            # The run ends as it was, whatever becomes of the model.
            try:
                info = mlflow.pytorch.log_model(
                    acting,
                    name=_NAME,
                    signature=signature,
                    input_example=inputs[0].numpy() if len(inputs) == 1 else inputs,
                    serialization_format="pt2",
                    pip_requirements=[f"torch=={torch.__version__}", f"mlflow=={mlflow.__version__}"],
                )
                model_uri = str(info.model_uri)
            except Exception as error:
                fault = error
    except Exception as error:
        # torch.export and MLflow have no errors of their own that would tell.
        fault = error
    finally:
        quiet.setLevel(before)
    if fault is not None:
        raise TrackingError(without_passwords(begin_of(fault))) from fault
    return model_uri


def _signature(acting: Acting, inputs: tuple[Tensor, ...]) -> Any:
    """Return the MLflow signature of a policy, for any number of rows."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    with torch.no_grad():
        outputs = acting(*inputs)
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs

    def schema(tensors: Any, names: Any) -> Any:
        # A single array goes in and comes out as it is, several by name.
        named = zip(names if len(names) > 1 else [None], tensors, strict=True)
        return Schema([TensorSpec(x.numpy().dtype, (-1, *x.shape[1:]), name=name) for name, x in named])

    return ModelSignature(schema(inputs, acting.inputs), schema(outputs, acting.outputs))


def _example(policy: Policy | RecurrentPolicy) -> tuple[Tensor, ...]:
    """Return zeros for all that a policy is given."""
    device = torch.device("cpu")
    parts = [*_leaves(policy.acting_spec, specs.zeros(policy.acting_spec, (_ROWS,), device))]
    if policy.state_spec is not None:
        parts += _leaves(policy.state_spec, policy.initial_state(_ROWS))
    return tuple(parts)


def _names(root: str, spec: specs.TensorSpec) -> list[str]:
    return [".".join((root, *path)) for path, _ in specs.leaves(spec)]


def _leaves(spec: specs.TensorSpec, value: Any) -> list[Tensor]:
    return [part for _, part, _ in specs.parts(value, spec)]


def _assemble(spec: specs.TensorSpec, parts: Any) -> Any:
    """Return tensors as the spec nests them."""
    paths = [path for path, _ in specs.leaves(spec)]
    if paths == [()]:
        return parts[0]
    whole = TensorDict({}, batch_size=parts[0].shape[:1])
    for path, part in zip(paths, parts, strict=True):
        whole[path] = part
    return whole
