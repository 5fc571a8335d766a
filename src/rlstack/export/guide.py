"""The page that lies beside an exported policy: what goes in, what comes out."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from .. import specs
from ..common.types import LOG_STD, LOGITS, MEAN
from .acting import NOISE, Acting

_FEATURES = {
    f"feature.{MEAN}": "mean of the normal variable that is drawn, before it is squashed or clipped",
    f"feature.{LOG_STD}": "natural logarithm of its standard deviation",
    f"feature.{LOGITS}": "unnormalized log-probabilities of the choices; -inf where the mask forbids one",
}

_RUN = {
    ".onnx": """import numpy as np, onnxruntime
session = onnxruntime.InferenceSession({name!r})
inputs = {{
{inputs}
}}
action, = session.run(["{action}"], inputs)""",
    ".pt2": """import torch
policy = torch.export.load({name!r}).module()
outputs = policy(
{inputs}
)
action = outputs["{action}"]""",
}


def guide(
    name: str,
    acting: Acting,
    inputs: list[Tensor],
    outputs: Mapping[str, Tensor],
    *,
    error: float,
    deterministic: bool,
) -> str:
    """Return the page, as Markdown.

    Args:
        name: Of the exported file.
        acting: The policy.
        inputs: Examples of what it takes.
        outputs: Of what it returns then.
        error: How much the file differs from the policy at most.
        deterministic: Whether it acts without chance.
    """
    how = "the most probable or mean action" if deterministic else "an action drawn at random"
    suffix = name[name.rindex(".") :]
    given = dict(zip(acting.inputs, inputs, strict=True))
    code = _RUN[suffix].format(name=name, action=next(iter(outputs)), inputs=_arguments(given, suffix))
    table = "| name | dtype | shape | what it is |\n|---|---|---|---|"
    return "\n".join(
        [
            f"# {name}",
            "",
            f"A policy trained with rlstack: it returns {how} for each row of observations. "
            "Normalization of observations, squashing and bounds of actions, and action masks are inside: "
            "observations go in as the environment returns them, actions come out as it takes them, both in "
            "the environment's own units.",
            "",
            f"For 100 random observations it differs from the policy by at most {error:.2g}. "
            "`batch` is any number of rows, each on its own.",
            "",
            "## Inputs",
            "",
            table,
            *_rows(given, _meanings(acting)),
            "",
            "## Outputs",
            "",
            table,
            *_rows(outputs, _meanings(acting)),
            "",
            "## Use",
            "",
            f"```python\n{code}\n```",
            "",
        ]
    )


def _rows(tensors: Mapping[str, Tensor], meanings: Mapping[str, str]) -> Iterator[str]:
    for name, value in tensors.items():
        shape = ", ".join(["batch", *map(str, value.shape[1:])])
        said = meanings.get(name, "a feature of the action distribution")
        yield f"| `{name}` | {_dtype(value.dtype)} | [{shape}] | {said} |"


def _meanings(acting: Acting) -> dict[str, str]:
    """Return what each tensor is, by name."""
    policy = acting.policy
    found = dict(_FEATURES)
    for root, spec in (("obs", policy.acting_spec), ("action", policy.action_spec)):
        for path, leaf in specs.leaves(spec):
            found[".".join((root, *path))] = _values(leaf)
    if policy.action_mask is not None:
        found[".".join(("obs", *policy.action_mask.path))] = "1 or True where a choice is allowed"
    for path, _ in specs.leaves(policy.state_spec) if policy.state_spec is not None else ():
        name = ".".join(path)
        found[f"state.{name}"] = f"memory: zeros as an episode begins, then the last `next_state.{name}`"
        found[f"next_state.{name}"] = f"memory after this step, the next `state.{name}`"
    found[NOISE] = f"random numbers, new ones for each step: {policy.distribution_cls.noise}"
    return found


def _values(spec: specs.TensorSpec) -> str:
    """Return which values a leaf has, in words."""
    match specs.kind(spec):
        case specs.Bounded:
            low, high = (_numbers(bound) for bound in (spec.space.low, spec.space.high))
            return f"from {low} to {high}"
        case specs.Unbounded:
            return "any number"
        case specs.Categorical:
            return f"a choice, 0 to {int(spec.space.n) - 1}"
        case specs.MultiCategorical:
            return f"choices, each from 0 on, of {spec.nvec.tolist()}"
        case specs.OneHot:
            return "a choice: 1 or True in its place alone"
    return "0 or 1 each"


def _numbers(bound: Tensor) -> str:
    """Return a bound as one number where all are the same."""
    values = bound.flatten().tolist()
    shown = [f"{value:.6g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else f"[{', '.join(shown)}]"


def _arguments(given: Mapping[str, Tensor], suffix: str) -> str:
    lines = []
    for name, value in given.items():
        shape, dtype = (1, *value.shape[1:]), _dtype(value.dtype)
        if suffix == ".onnx":
            lines.append(f'    "{name}": np.zeros({shape}, np.{dtype.replace("bool", "bool_")}),')
        else:
            lines.append(f"    torch.zeros({shape}, dtype=torch.{dtype}),  # {name}")
    return "\n".join(lines)


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
