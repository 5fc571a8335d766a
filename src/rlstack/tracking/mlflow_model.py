"""A policy as an MLflow model: how it acts without chance, as a torch.export program. No pickle."""

import copy
import logging
import warnings
from importlib.util import find_spec
from typing import Any, final

import torch
from torch import Tensor, nn

from .. import specs
from ..common.errors import TrackingError, begin_of
from ..export.acting import Acting, with_arguments
from ..export.tensors import apart, names
from ..policies.base import PolicyBase
from ..policies.policy import Policy, RecurrentPolicy
from .uris import mlflow_at, tracking_uri, without_passwords

_ROWS = 2
"""Of the example; torch.export would take a single row for a constant."""

_NAME = "policy"


@final
class _Answering(nn.Module):
    """A policy as MLflow calls it: with the tensors that `Acting.inputs` names, [N, ...] each.

    It returns actions, and the next state if any.

    Args:
        policy: The policy.
    """

    def __init__(self, policy: Policy | RecurrentPolicy) -> None:
        super().__init__()
        self.acting = Acting(policy)
        self.outputs = names("action", policy.action_spec)
        if policy.state_spec is not None:
            self.outputs += names("state", policy.state_spec)
        self.forward = with_arguments(self._answer, len(self.acting.inputs))

    def _answer(self, *inputs: Tensor) -> Any:
        said = list(self.acting(*inputs).values())[: len(self.outputs)]
        return said[0] if len(said) == 1 else tuple(said)


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
        answering = _Answering(copy.deepcopy(policy).cpu().eval())
        inputs = _example(answering.acting.policy)
        signature = _signature(answering, inputs)
        store = mlflow_at(uri or tracking_uri())
        with warnings.catch_warnings(), store, mlflow.start_run(run_id=run_id):
            warnings.simplefilter("ignore")
            # The run ends as it was, whatever becomes of the model.
            try:
                info = mlflow.pytorch.log_model(
                    answering,
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


def _signature(answering: _Answering, inputs: tuple[Tensor, ...]) -> Any:
    """Return the MLflow signature of a policy, for any number of rows."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    with torch.no_grad():
        outputs = answering(*inputs)
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs

    def schema(tensors: Any, names: Any) -> Any:
        # A single array goes in and comes out as it is, several by name.
        named = zip(names if len(names) > 1 else [None], tensors, strict=True)
        return Schema([TensorSpec(x.numpy().dtype, (-1, *x.shape[1:]), name=name) for name, x in named])

    return ModelSignature(schema(inputs, answering.acting.inputs), schema(outputs, answering.outputs))


def _example(policy: PolicyBase) -> tuple[Tensor, ...]:
    """Return zeros for all that a policy is given."""
    device = torch.device("cpu")
    parts = [*apart(policy.acting_spec, specs.zeros(policy.acting_spec, (_ROWS,), device))]
    if policy.state_spec is not None:
        parts += apart(policy.state_spec, policy.initial_state(_ROWS))
    return tuple(parts)
