"""What to do when training meets NaN or infinity, which never reaches the policy either way."""

import logging
from typing import Final, final

from ..algorithm import Algorithm, RecurrentAlgorithm
from ..common import random_state
from ..common.errors import CheckpointError, NonFiniteError
from ..common.types import Config, Stats
from ..runs.options import OnNonFinite
from ..runs.restore import state_for
from ..runs.run_dir import RunDir
from .keeper import Keeper

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
        keeper: Counts the updates.
        run_dir: Has the checkpoints; `restore` needs it.
    """

    def __init__(
        self,
        algorithm: Algorithm | RecurrentAlgorithm,
        way: OnNonFinite,
        keeper: Keeper,
        run_dir: RunDir | None,
    ) -> None:
        self._way, self._algorithm, self._keeper, self._run_dir = way, algorithm, keeper, run_dir

    def update(self, env_config: Config | None) -> Stats:
        """Collect a horizon, update the policy once, and count both; return the statistics.

        Args:
            env_config: As `Algorithm.collect` takes it.

        Raises:
            NonFiniteError, CheckpointError: As `handle`.
        """
        self._keeper.begin()
        if self._way == "restore" and self._run_dir is not None and self._run_dir.saved < 0:
            self._keeper.try_to_save()
        horizons = faults = 0
        while True:
            try:
                stats = self._algorithm.collect(env_config=env_config)
                horizons += 1
                return self._keeper.count(stats | self._algorithm.step(), horizons)
            except NonFiniteError as error:
                faults += 1
                self.handle(error, faults)

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
        if lr_scale < _LOWEST_LR_SCALE or self._run_dir is None:
            raise NonFiniteError(f"{error} (with the learning rate at {learner.lr_scale:g} of what it was)")
        try:
            said = self._run_dir.read_latest()
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
