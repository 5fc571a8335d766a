"""Optimizers: how they are made, and their options as given, set by hand and found in checkpoints."""

import inspect
import logging
import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, final

import torch
from torch import Tensor, nn

from .data import is_number, keep_random_state
from .hparams import Hparams, HparamsError, check_options

_log = logging.getLogger(__name__)


def make_optimizer(
    hparams: Hparams, parameters: list[torch.nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """Return the optimizer, fused where its class can be: that is faster, and lets the device gate it.

    On a GPU its steps can be recorded too where its class can: its learning rate is a tensor then.
    """
    if not isinstance(hparams.optimizer_cls, type) or not issubclass(
        hparams.optimizer_cls, torch.optim.Optimizer
    ):
        raise HparamsError(f"optimizer_cls is {hparams.optimizer_cls!r}, expected a class of torch.optim")
    closure = inspect.signature(hparams.optimizer_cls.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise HparamsError(
            f"optimizer_cls is {hparams.optimizer_cls.__name__}, which needs a closure: use another"
        )
    options = {"lr": 1e-3, **(hparams.optimizer_config or {})}
    check_options(options, hparams.optimizer_cls, "optimizer_config")
    _check_kinds(options, hparams.optimizer_cls)
    can_fuse = "fused" in inspect.signature(hparams.optimizer_cls).parameters
    if can_fuse and not {"fused", "foreach", "differentiable", "capturable"} & set(options):
        options["fused"] = True
        if device.type == "cuda" and "capturable" in inspect.signature(hparams.optimizer_cls).parameters:
            options |= {
                "capturable": True,
                "lr": torch.tensor(float(options["lr"]), dtype=torch.float32, device=device),
            }
    try:
        optimizer = hparams.optimizer_cls(parameters, **options)
    except (TypeError, ValueError) as error:
        raise HparamsError(f"optimizer_config: {error}") from None
    _try_step(hparams.optimizer_cls, options, parameters[:1])
    if options.get("capturable"):
        # torch would warn of every step that isn't recorded; the first update never is.
        optimizer._warned_capturable_if_run_uncaptured = True
    return optimizer


def _check_kinds(options: Mapping[str, Any], optimizer_cls: type[torch.optim.Optimizer]) -> None:
    """Refuse options of another kind than their defaults are: torch's own errors don't name them.

    Raises:
        HparamsError: With what was given and what was expected.
    """
    for name, value in options.items():
        parameter = inspect.signature(optimizer_cls).parameters.get(name)
        default = None if parameter is None else parameter.default
        if name == "lr" or _is_number(default):
            fits, expected = isinstance(value, Tensor) or _is_number(value), "a number"
        elif isinstance(default, bool):
            fits, expected = isinstance(value, bool), "True or False"
        elif isinstance(default, tuple):
            fits = isinstance(value, list | tuple) and [*map(_is_number, value)] == [True] * len(default)
            expected = f"{len(default)} numbers, like {default}"
        else:
            continue
        if not fits:
            raise HparamsError(f"optimizer_config.{name} is {value!r}, expected {expected}")


def _is_number(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)


def _try_step(
    optimizer_cls: type[torch.optim.Optimizer], options: Mapping[str, Any], parameters: list[nn.Parameter]
) -> None:
    """Make one step on copies of parameters, so that an optimizer that can't is named in time.

    Raises:
        HparamsError: If it raises an error.
    """
    copies = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    for copy in copies:
        copy.grad = torch.zeros_like(copy)
    try:
        with keep_random_state(copies[0].device) if copies else nullcontext():
            optimizer_cls(copies, **options).step()
    except Exception as error:
        raise HparamsError(
            f"optimizer_cls is {optimizer_cls.__name__}, whose step raised {type(error).__name__}: {error}"
        ) from error


@final
class OptimizerOptions:
    """Options of an optimizer's parameter groups.

    Args:
        optimizer: Whose.
    """

    lr: Tensor | None
    """[]. The learning rate, where optimizer steps can be recorded: a recording reads it there."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        lr = optimizer.param_groups[0]["lr"]
        self.lr = lr if isinstance(lr, Tensor) else None
        self.given = {key: _plain(value) for key, value in optimizer.defaults.items()}
        """As the optimizer was made with them, those that it has by default too."""
        self._warned = False
        self._remember()

    def schedule(self, lr: float) -> float:
        """Set the learning rate and return it; warn once if it was set by hand."""
        if self._set_by_hand() and not self._warned:
            self._warned = True
            _log.warning(
                "the optimizer's learning rate was set by hand, but lr_schedule goes on: leave that out"
            )
        for group in self._optimizer.param_groups:
            self._set(group, lr)
        self._remember(lr)
        return lr

    def keep(self) -> float:
        """Return the learning rate as it is, set by hand or not."""
        if self._set_by_hand():
            for group in self._optimizer.param_groups:
                self._set(group, float(group["lr"]))
            self._remember()
        return self._known

    def multiply(self, factor: float) -> None:
        """Multiply the learning rate."""
        for group in self._optimizer.param_groups:
            self._set(group, factor * float(group["lr"]))
        self._remember()

    def load(self, state: dict[str, Any], given: dict[str, Any] | None, lr_scale: float) -> None:
        """Load an optimizer's state; an option that was given otherwise here than there stays as it is here.

        Args:
            state: As the optimizer's `state_dict` returned it.
            given: Options as that one was made with them; None if that isn't known.
            lr_scale: What the learning rate was multiplied by since then.

        Raises:
            ValueError: If the state is that of another optimizer.
        """
        before = [dict(group) for group in self._optimizer.param_groups]
        self._optimizer.load_state_dict(state)
        for group, mine in zip(self._optimizer.param_groups, before, strict=True):
            theirs = dict(group)
            for key in mine.keys() - {"params", "lr"}:
                if given is None or given.get(key) != self.given.get(key):
                    group[key] = mine[key]
            group["lr"] = mine["lr"]
            same = given is not None and given["lr"] == self.given["lr"]
            self._set(group, float(theirs["lr"]) if same else self.given["lr"] * lr_scale)
        self._remember()

    def _set(self, group: dict[str, Any], lr: float) -> None:
        # Its place is kept, whatever has been loaded.
        group["lr"] = lr if self.lr is None else self.lr.fill_(lr)

    def _set_by_hand(self) -> bool:
        if self.lr is not None:
            replaced = any(group["lr"] is not self.lr for group in self._optimizer.param_groups)
            return replaced or self.lr._version != self._version
        return any(group["lr"] != self._known for group in self._optimizer.param_groups)

    def _remember(self, lr: float | None = None) -> None:
        """Take note of the learning rate; to ask a GPU for it means to wait."""
        self._known = float(self._optimizer.param_groups[0]["lr"]) if lr is None else lr
        self._version = 0 if self.lr is None else self.lr._version


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Tensor) else value
