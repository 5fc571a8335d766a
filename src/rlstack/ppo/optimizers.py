"""Optimizers: made and tried, and their options as given, set by hand and found in checkpoints."""

import inspect
import logging
import math
from typing import Any, final

import torch
from torch import Tensor, nn

from ..common.device import can_record
from ..common.errors import HparamsError
from ..common.random_state import keep_random_state
from ..common.validation import check_options, is_number
from ..hparams import Hparams

_log = logging.getLogger(__name__)

_CHOSEN = ("foreach", "fused", "capturable", "differentiable")
"""How an optimizer computes: rlstack knows what is fastest."""


def make_optimizer(
    hparams: Hparams, parameters: list[nn.Parameter], device: torch.device
) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
    """Return the optimizer, and the state of one like it after a step.

    It is fused where its class can be: that is faster, and lets the device gate it. On a GPU its steps can be
    recorded too where its class can: its learning rate is a tensor then.

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
    options = {"lr": 1e-3, **(hparams.optimizer_config or {})}
    check_options(
        options, cls, "optimizer_config", by_position=1, elsewhere={"learning_rate": "lr"}, unsaid=_CHOSEN
    )
    for name, value in options.items():
        default = 0.0 if name == "lr" else known[name].default if name in known else None
        expected = _expectation(value, default)
        if expected is None and name in known and known[name].annotation == bool | None:
            expected = None if isinstance(value, bool | None) else "True, False or None"
        if expected:
            raise HparamsError(f"optimizer_config.{name} is {value!r}, expected {expected}")
    lr = options["lr"]
    if "fused" in known and not options.keys() & {*_CHOSEN}:
        options["fused"] = True
        if can_record(device) and "capturable" in known:
            options["lr"] = torch.tensor(float(options["lr"]), dtype=torch.float32, device=device)
            # Tests record on a CPU too, where Adam needs no such option and refuses it.
            options["capturable"] = device.type == "cuda"
    try:
        optimizer = _make(cls, parameters, options)
    except Exception as error:
        # Whatever a class raises, it is named as its own.
        raise HparamsError(f"optimizer_config: {error} (optimizer_cls is {cls.__name__})") from error
    example = _try(cls, parameters, options, device)
    # As it was given: a float32 tensor has another value.
    optimizer.defaults["lr"] = lr
    return optimizer, example


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
    cls: type[torch.optim.Optimizer], parameters: list[nn.Parameter], options: dict[str, Any]
) -> torch.optim.Optimizer:
    optimizer = cls(parameters, **options)
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
            optimizer = _make(cls, small, options)
            optimizer.step()
            return optimizer.state_dict()
    except Exception as error:
        said = str(error).strip().splitlines() or [""]
        raise HparamsError(
            f"optimizer_cls is {cls.__name__}, which can't make a step on these parameters with this "
            f"optimizer_config ({type(error).__name__}: {said[0]}): use another"
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
        lay_out(self._optimizer)
        for group, mine in zip(self._optimizer.param_groups, before, strict=True):
            lr = float(group["lr"])
            for key in mine.keys() - {"params", "lr"}:
                if given is None or given.get(key) != self.given.get(key):
                    group[key] = mine[key]
            group["lr"] = mine["lr"]
            same = given is not None and given["lr"] == self.given["lr"]
            self._set(group, lr if same else self.given["lr"] * lr_scale)
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
