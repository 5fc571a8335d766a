"""What to do when training meets NaN or infinity, which never reaches the policy either way."""

import logging
from collections.abc import Callable
from typing import Final, final

from ..algorithm import Algorithm, RecurrentAlgorithm
from ..common import random_state
from ..common.errors import CheckpointError, NonFiniteError
from ..runs.checkpoint import Checkpoint
from ..runs.options import OnNonFinite
from ..runs.restore import state_for

_MOST_IN_A_ROW: Final = 10
"""Horizons and updates that may be skipped one after the other."""

_LR_FACTOR: Final = 0.5
"""What the learning rate is multiplied by each time training is taken back."""

_LOWEST_LR_SCALE: Final = _LR_FACTOR**3

_log = logging.getLogger(__name__)


@final
class NonFiniteHandler:
    """Lets training go on after NaN or infinity, a bounded number of times.

    `raise` lets the error out. `skip` drops the horizon it was in, and what was left of its update. `restore`
    goes back to the last checkpoint, with half the learning rate from then on and other random numbers;
    environment steps and updates go on being counted.

    Args:
        algorithm: What is trained.
        way: What to do.
        last: Returns the last sound checkpoint; `restore` needs it.
    """

    def __init__(
        self,
        algorithm: Algorithm | RecurrentAlgorithm,
        way: OnNonFinite,
        last: Callable[[], Checkpoint] | None,
    ) -> None:
        self.goes_back = way == "restore"
        self._way, self._algorithm, self._last = way, algorithm, last

    def handle(self, error: NonFiniteError, in_a_row: int) -> None:
        """Make ready to collect anew after an error.

        Args:
            error: What happened.
            in_a_row: How often it has since the last update, this time included.

        Raises:
            NonFiniteError: If that is to be raised, or there were too many.
            CheckpointError: If there is no sound checkpoint to go back to.
        """
        if self._way == "raise":
            raise error
        if self._way == "restore":
            self._restore(error)
        elif in_a_row > _MOST_IN_A_ROW:
            raise NonFiniteError(f"{error} (after {_MOST_IN_A_ROW} others in a row)") from error
        else:
            _log.warning("skipped: %s", error)

    def _restore(self, error: NonFiniteError) -> None:
        learner = self._algorithm.learner
        lr_scale = learner.lr_scale * _LR_FACTOR
        if lr_scale < _LOWEST_LR_SCALE or self._last is None:
            raise NonFiniteError(f"{error} (with the learning rate at {learner.lr_scale:g} of what it was)")
        try:
            said = self._last()
        except CheckpointError as fault:
            raise fault from error
        # The same random numbers would lead to the same end.
        random = random_state.random_state(self._algorithm.device)
        now = {"env_steps": self._algorithm.env_steps, "random": random}
        self._algorithm.load_state_dict({**state_for(self._algorithm, said), **now})
        learner.scale_lr(lr_scale)
        _log.warning(
            "went back to %s, with the learning rate at %g of what it was: %s", said.path, lr_scale, error
        )
