"""The parameters of a model's parts, in an optimizer's groups.

The first group has options of its own for no part; each other one is that of the part that its `part` names.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

PART = "part"
"""Key of a group: the name of a child module, or a parameter, of the model."""


def part_of(name: str) -> str:
    """Return the part of the model that a parameter of the policy belongs to, by its name."""
    return name.removeprefix("model.").partition(".")[0]


def groups_of(
    named: Mapping[str, nn.Parameter], options: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return groups of parameters for an optimizer to be made with.

    Args:
        named: The parameters, by name.
        options: By part those of its group; `""` is the rest of the model, and comes first.
    """
    groups: dict[str, dict[str, Any]] = {
        part: {**its, "params": [], **({PART: part} if part else {})} for part, its in options.items()
    }
    for name, parameter in named.items():
        groups.get(part_of(name), groups[""])["params"].append(parameter)
    return [*groups.values()]


def add_parameters(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> None:
    """Put parameters that an optimizer doesn't have into the groups of their parts; frozen ones stay out.

    Args:
        optimizer: Which.
        named: All parameters of the policy, by name.
    """
    groups = optimizer.param_groups
    known = {id(parameter) for group in groups for parameter in group["params"]}
    own = {group[PART]: group for group in groups if PART in group}
    for name, parameter in named.items():
        if parameter.requires_grad and id(parameter) not in known:
            own.get(part_of(name), groups[0])["params"].append(parameter)


def regroup(
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    names: list[str],
    named: Mapping[str, nn.Parameter],
) -> dict[str, Any]:
    """Give an optimizer the parameters that another one had, in that order; return that one's state for it.

    A part that had no group there has the options of the first one. Groups made by hand stay as they are.

    Args:
        optimizer: Which.
        state: As the other's `state_dict` returned it.
        names: Names of the other's parameters, in its order.
        named: All parameters of the policy, by name.
    """
    groups, there = optimizer.param_groups, state["param_groups"]
    if not all(PART in group for group in [*groups[1:], *there[1:]]):
        return dict(state)
    said = {group.get(PART): group for group in there}
    own = {group[PART] for group in groups[1:]}
    part = {name: part_of(name) if part_of(name) in own else None for name in names}
    order: list[int] = []
    options: list[dict[str, Any]] = []
    for group in groups:
        its = [number for number, name in enumerate(names) if part[name] == group.get(PART)]
        group["params"] = [named[names[number]] for number in its]
        mark = {PART: group[PART]} if PART in group else {}
        known = said.get(group.get(PART), said[None])
        options.append({**known, **mark, "params": [*range(len(order), len(order) + len(its))]})
        order += its
    moments = {now: state["state"][was] for now, was in enumerate(order) if was in state["state"]}
    return {**state, "state": moments, "param_groups": options}
