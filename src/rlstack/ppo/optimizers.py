"""Optimizers, made and tried."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..common.device import can_record
from ..common.errors import HparamsError, begin_of
from ..common.random_state import keep_random_state
from ..common.validation import check_options, did_you_mean, is_number
from ..hparams import Hparams
from .parameter_groups import groups_of, part_of

LOWEST_LR, HIGHEST_LR = 1e-5, 1e-2
"""Between these the learning rate is adapted."""

_CHOSEN = ("foreach", "fused", "capturable", "differentiable")
"""How an optimizer computes: rlstack knows what is fastest."""


def make_optimizer(
    hparams: Hparams, named: Mapping[str, nn.Parameter], device: torch.device
) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
    """Return the optimizer, and the state of one like it after a step.

    It is fused where its class can be: that is faster, and lets the device gate it. On a GPU its steps can be
    recorded too where its class can: its learning rate is a tensor then.

    Args:
        hparams: What it is made with.
        named: All parameters of the policy, by name; it gets those that aren't frozen.
        device: Where they are.

    Raises:
        HparamsError: If its class can't be used, or an option of it is unknown or can't be.
    """
    cls = hparams.optimizer_cls
    if not isinstance(cls, type) or not issubclass(cls, torch.optim.Optimizer):
        raise HparamsError(f"optimizer_cls is {cls!r}, expected a class of torch.optim")
    closure = inspect.signature(cls.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise HparamsError(f"optimizer_cls is {cls.__name__}, which needs a closure: use another")
    known = inspect.signature(cls).parameters
    if "lr" not in known and all(each.kind is not each.VAR_KEYWORD for each in known.values()):
        raise HparamsError(f"optimizer_cls is {cls.__name__}, which takes no learning rate lr: use another")
    parts = options_of_parts(hparams)
    options = {"lr": 1e-3, **(hparams.optimizer_config or {})}
    options = {name: value for name, value in options.items() if name not in parts}
    _check(options, cls, "optimizer_config")
    _check_parts(parts, hparams, named)
    _check_rates(options["lr"], parts, hparams)
    lr, as_tensor = options["lr"], False
    if "fused" in known and not options.keys() & {*_CHOSEN}:
        options["fused"] = True
        as_tensor = hparams.adaptive_lr is not None
        if can_record(device) and "capturable" in known:
            as_tensor = True
            # Tests record on a CPU too, where Adam needs no such option and refuses it.
            options["capturable"] = device.type == "cuda"
    each = {part: {**options, **own} for part, own in {"": {}, **parts}.items()}
    trained = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    for part, its in each.items():
        if as_tensor:
            its["lr"] = torch.tensor(float(its["lr"]), dtype=torch.float32, device=device)
        where = f"optimizer_config.{part}" if part else "optimizer_config"
        optimizer = _make(cls, [*trained.values()], its, where)
    examples = [_try(cls, [*trained.values()], its, device) for its in each.values()]
    if parts:
        # A class looks at the options of all its groups only as if they were for every parameter.
        optimizer = _make(cls, groups_of(trained, each), each[""], "optimizer_config")
    # As it was given: a float32 tensor has another value.
    optimizer.defaults["lr"] = lr
    return optimizer, examples[0]


def options_of_parts(hparams: Hparams) -> dict[str, dict[str, Any]]:
    """Return what options parts of the model have for themselves, by the parts' names."""
    known = inspect.signature(hparams.optimizer_cls).parameters
    config = hparams.optimizer_config or {}
    return {name: dict(own) for name, own in config.items() if isinstance(own, Mapping) and name not in known}


def _check(options: Mapping[str, Any], cls: type, where: str) -> None:
    """Refuse options that an optimizer doesn't have, or that can't be."""
    known = inspect.signature(cls).parameters
    check_options(options, cls, where, by_position=1, elsewhere={"learning_rate": "lr"}, unsaid=_CHOSEN)
    for name, value in options.items():
        default = 0.0 if name == "lr" else known[name].default if name in known else None
        expected = _expectation(value, default)
        if expected is None and name in known and known[name].annotation == bool | None:
            expected = None if isinstance(value, bool | None) else "True, False or None"
        if expected:
            raise HparamsError(f"{where}.{name} is {value!r}, expected {expected}")


def _check_parts(
    parts: Mapping[str, Mapping[str, Any]], hparams: Hparams, named: Mapping[str, nn.Parameter]
) -> None:
    """Refuse options of parts that the model doesn't have, or that no part can have for itself."""
    there = dict.fromkeys(map(part_of, named))
    for part, own in parts.items():
        where = f"optimizer_config.{part}"
        if part not in there:
            raise HparamsError(f"{where} is no part of the model with parameters{did_you_mean(part, there)}")
        _check(own, hparams.optimizer_cls, where)  # type: ignore[arg-type]
        for name in own.keys() & {*_CHOSEN}:
            raise HparamsError(f"{where}.{name} is for all parts alike: give it as optimizer_config.{name}")


def _check_rates(lr: Any, parts: Mapping[str, Mapping[str, Any]], hparams: Hparams) -> None:
    """Refuse a learning rate that can't be adapted, or to which parts' rates can't keep a proportion."""
    if hparams.adaptive_lr is not None and not LOWEST_LR <= float(lr) <= HIGHEST_LR:
        raise HparamsError(
            f"optimizer_config.lr is {lr}, expected {LOWEST_LR} to {HIGHEST_LR} where adaptive_lr is set"
        )
    if hparams.lr_schedule is not None and not float(lr) and any("lr" in own for own in parts.values()):
        raise HparamsError(
            f"optimizer_config.lr is {lr}, expected a number above 0: with lr_schedule, learning rates of "
            "parts keep their proportion to it"
        )


def _expectation(value: Any, default: Any) -> str | None:
    """Return what an option must be by its default, in words, where its value isn't that; else None."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "True or False"
    if is_number(default):
        finite = is_number(value) and math.isfinite(value)
        fits = finite or (isinstance(value, Tensor) and value.numel() == 1)
        return None if fits else "a number"
    if isinstance(default, tuple) and all(is_number(each) or each is None for each in default):
        fits = isinstance(value, tuple | list) and len(value) == len(default)
        fits = fits and not any(map(_expectation, value, default))
        return None if fits else f"{len(default)} numbers, like {default}"
    return None


def _make(
    cls: type[torch.optim.Optimizer], parameters: list[Any], options: dict[str, Any], where: str
) -> torch.optim.Optimizer:
    try:
        optimizer = cls(parameters, **options)
    except Exception as error:
        # Whatever a class raises, it is named as its own.
        raise HparamsError(f"{where}: {error} (optimizer_cls is {cls.__name__})") from error
    if options.get("capturable"):
        # torch would warn of every step that isn't recorded; the first update never is.
        optimizer._warned_capturable_if_run_uncaptured = True
    return optimizer


@torch.no_grad()
def _try(
    cls: type[torch.optim.Optimizer],
    parameters: list[nn.Parameter],
    options: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    """Make a step on small parameters of the same dtypes and dimensions; return the optimizer's state then.

    Raises:
        HparamsError: If that can't be; it would otherwise be found in the middle of the first update.
    """
    shapes = {(tuple(min(size, 2) for size in each.shape), each.dtype) for each in parameters}
    small = [nn.Parameter(torch.zeros(shape, dtype=dtype, device=device)) for shape, dtype in shapes]
    for parameter in small:
        parameter.grad = torch.zeros_like(parameter)
    try:
        with keep_random_state(device):
            optimizer = _make(cls, small, options, "optimizer_config")
            optimizer.step()
            return optimizer.state_dict()
    except Exception as error:
        raise HparamsError(
            f"optimizer_cls is {cls.__name__}, which can't make a step on these parameters with this "
            f"optimizer_config ({begin_of(error)}): use another"
        ) from error


@torch.no_grad()
def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Lay gradients and states out in memory as their parameters are: fused steps take them to be so."""
    for parameter in [each for group in optimizer.param_groups for each in group["params"]]:
        if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
            parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
        state = optimizer.state.get(parameter, {})
        for key, value in state.items():
            same = isinstance(value, Tensor) and value.shape == parameter.shape
            if same and value.stride() != parameter.stride():
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
