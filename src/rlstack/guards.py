"""What to do when training meets NaN or infinity, which never reaches the policy either way."""

import logging
from collections.abc import Callable
from typing import Final, final

from . import data
from .algorithm import Algorithm, RecurrentAlgorithm
from .checkpoint import Checkpoint, CheckpointError
from .data import Config, NonFiniteError, Stats
from .restore import state_for
from .run_options import OnNonFinite

_MOST_IN_A_ROW: Final = 10
"""Horizons and updates that may be skipped one after the other."""
_LR_FACTOR: Final = 0.5
"""What the learning rate is multiplied by each time training is taken back."""
_LOWEST_LR_SCALE: Final = _LR_FACTOR**3

_log = logging.getLogger(__name__)


@final
class Guard:
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

    def update(self, env_config: Config | None) -> tuple[Stats, int]:
        """Collect a horizon and update the policy once; return the statistics, and how many horizons it took.

        Args:
            env_config: Options for the environment's next reset and those after it.

        Raises:
            EnvError: If the environment breaks its contract.
            NonFiniteError: If that is to be raised, or there were too many.
            CheckpointError: If there is no sound checkpoint to go back to.
        """
        algorithm, horizons, faults = self._algorithm, 0, 0
        while True:
            try:
                stats = algorithm.collect(env_config=env_config)
                horizons += 1
                return stats | algorithm.step(), horizons
            except NonFiniteError as error:
                faults += 1
                if self._way == "raise":
                    raise
                if self._way == "restore":
                    self._restore(error)
                elif faults > _MOST_IN_A_ROW:
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
        random = data.random_state(self._algorithm.device)
        now = {"env_steps": self._algorithm.env_steps, "random": random}
        self._algorithm.load_state_dict({**state_for(self._algorithm, said), **now})
        learner.scale_lr(lr_scale)
        _log.warning(
            "went back to %s, with the learning rate at %g of what it was: %s", said.path, lr_scale, error
        )
