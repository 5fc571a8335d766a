"""Options of an optimizer, its learning rates above all: scheduled, adapted, set by hand, in checkpoints."""

import logging
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from ..hparams import Hparams
from .optimizers import HIGHEST_LR, LOWEST_LR, lay_out, options_of_parts
from .parameter_groups import PART

_log = logging.getLogger(__name__)

_LR_STEP = 1.5


def adapted_lr(lr: Tensor, kl_div: Tensor, desired_kl_div: float) -> Tensor:
    """Return the learning rate of a step, given the KL estimate of its minibatch before it, [].

    lr / 1.5, at least 1e-5,   where KL > 2 desired
    1.5 lr, at most 1e-2,      where KL < ½ desired

    A rate beyond these bounds never moves further away. So do rsl_rl, skrl, rl_games and Brax; the first
    computes the divergence of two normal distributions where ours is the estimate of `kl_divergence`.

    Args:
        lr: The learning rate of the step before.
        kl_div: Where it is NaN, the rate stays.
        desired_kl_div: What the estimate is to be.
    """
    lower = torch.minimum(lr, (lr / _LR_STEP).clamp_min(LOWEST_LR))
    higher = torch.maximum(lr, (lr * _LR_STEP).clamp_max(HIGHEST_LR))
    lr = torch.where(kl_div < desired_kl_div / 2, higher, lr)
    return torch.where(kl_div > 2 * desired_kl_div, lower, lr)


@final
class OptimizerOptions:
    """Options of an optimizer's parameter groups.

    What is scheduled or adapted is the rate of the first group; the others keep the proportion to it that
    they were given.

    Args:
        optimizer: Whose.
        hparams: What it was made with.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, hparams: Hparams) -> None:
        self._optimizer, self._adapts = optimizer, hparams.adaptive_lr is not None
        rates = [group["lr"] for group in optimizer.param_groups]
        self.places: list[Tensor | None] = [rate if isinstance(rate, Tensor) else None for rate in rates]
        """By group its learning rate, where that is a tensor: a recording reads it there."""
        self.given = {key: _plain(value) for key, value in optimizer.defaults.items()}
        """As the optimizer was made with them, defaults too; what parts have of their own, by their names."""
        for part, own in options_of_parts(hparams).items():
            self.given[part] = {key: _plain(value) for key, value in own.items()}
        self._warned = False
        self._remember()

    @property
    def lr(self) -> Tensor | float:
        """The learning rate; a tensor if only the device knows it."""
        place = self.places[0]
        return place if self._adapts and place is not None else self.rates[0]

    def changed(self) -> list[Tensor]:
        """Return all learning rates that an optimizer step changes."""
        return [place for place in self.places if place is not None and self._adapts]

    def schedule(self, lr: float) -> None:
        """Set the learning rate; warn once if it was set by hand."""
        if self._set_by_hand() and not self._warned:
            self._warned = True
            _log.warning(
                "the optimizer's learning rate was set by hand, but lr_schedule goes on: leave that out"
            )
        self._remember(self._spread(lr))

    def keep(self) -> None:
        """Leave the learning rate as it is, set by hand or not."""
        if self._set_by_hand():
            for number, group in enumerate(self._groups()):
                self._set(number, float(group["lr"]))
            self._remember()

    @torch.no_grad()
    def adapt(self, kl_div: Tensor, counts: Tensor, desired_kl_div: float) -> None:
        """Let the learning rate of the next step follow its KL estimate, as `adapted_lr`.

        Args:
            kl_div: []. Of the minibatch at hand, before the step.
            counts: [], bool. Whether to do it.
            desired_kl_div: What the estimate is to be.
        """
        place = self.places[0]
        rate = kl_div.new_tensor(self._groups()[0]["lr"], dtype=torch.float64) if place is None else place
        rate = torch.where(counts, adapted_lr(rate, kl_div, desired_kl_div), rate)
        if place is None:
            self._remember(self._spread(rate.item()))
            return
        for other, share in zip(self.places, self._shares(), strict=True):
            if other is not None:
                other.copy_(rate * share)

    def multiply(self, factor: float) -> None:
        """Multiply the learning rate."""
        for number, group in enumerate(self._groups()):
            self._set(number, factor * float(group["lr"]))
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
        before = [dict(group) for group in self._groups()]
        self._optimizer.load_state_dict(state)
        lay_out(self._optimizer)
        for number, (group, mine) in enumerate(zip(self._groups(), before, strict=True)):
            lr, here = float(group["lr"]), _of_part(self.given, mine.get(PART))
            there = None if given is None else _of_part(given, mine.get(PART))
            for key in mine.keys() - {"params", "lr"}:
                if there is None or there.get(key) != here.get(key):
                    group[key] = mine[key]
            group["lr"] = mine["lr"]
            same = there is not None and there["lr"] == here["lr"]
            self._set(number, lr if same else here["lr"] * lr_scale)
        if self._adapts:
            self._spread(float(self._groups()[0]["lr"]))
        self._remember()

    def _groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups; those that were added by hand get places, too."""
        groups, first = self._optimizer.param_groups, self.places[0]
        for group in groups[len(self.places) :]:
            self.places.append(None if first is None else first.clone())
            self.rates.append(float(group["lr"]))
            self._versions.append(0)
        return groups

    def _shares(self) -> list[float]:
        """Return by group what its learning rate is, in units of the first one's."""
        rates = [_of_part(self.given, group.get(PART))["lr"] for group in self._groups()]
        return [1.0 if rate == rates[0] else rate / rates[0] for rate in rates]

    def _spread(self, lr: float) -> list[float]:
        """Set the learning rates of all groups by that of the first; return them."""
        rates = [lr * share for share in self._shares()]
        for number, rate in enumerate(rates):
            self._set(number, rate)
        return rates

    def _set(self, number: int, lr: float) -> None:
        # Its place is kept, whatever has been loaded.
        place = self.places[number]
        self._groups()[number]["lr"] = lr if place is None else place.fill_(lr)

    def _set_by_hand(self) -> bool:
        for group, place, rate, version in zip(
            self._groups(), self.places, self.rates, self._versions, strict=True
        ):
            if place is None and group["lr"] != rate:
                return True
            if place is not None and (group["lr"] is not place or self._version(place) != version):
                return True
        return False

    def _version(self, place: Tensor | None) -> int:
        """Return what tells whether a tensor was filled by hand; where it is adapted, nobody asks."""
        return 0 if place is None or self._adapts else place._version

    def _remember(self, rates: list[float] | None = None) -> None:
        """Take note of the learning rates; to ask a GPU for them means to wait."""
        self.rates = [float(group["lr"]) for group in self._groups()] if rates is None else rates
        self._versions = [self._version(place) for place in self.places]


def _of_part(given: Mapping[str, Any], part: str | None) -> dict[str, Any]:
    """Return the options of a part; None is the rest of the model."""
    common = {key: value for key, value in given.items() if not isinstance(value, Mapping)}
    return {**common, **given.get(part or "", {})}


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Tensor) else value
