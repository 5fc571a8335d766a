"""An attempt at a trial: the point of the search space that it tries, and how good that is."""

from typing import TYPE_CHECKING, Any, final

from ..common.nested import unflatten
from .options import Choices, Dimension

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

FAULT, SEED = "fault", "seed "
"""Attributes of a trial: why it can't be, and what the names of its seeds' values begin with."""


@final
class Attempt:
    """An attempt at a trial, by this process.

    Args:
        trial: Optuna's.
        said: What is known of it from attempts before.
        search: What is searched, by name.
    """

    pruned = False
    """Whether the trial isn't worth going on with."""
    lost = False
    """Whether another process may have taken the trial over: this one gave no sign of life for too long."""

    def __init__(self, trial: "Trial", said: "FrozenTrial", search: dict[str, Dimension]) -> None:
        self.number, self._trial = root(said), trial
        self.seeds = {
            key.removeprefix(SEED): value for key, value in said.user_attrs.items() if key.startswith(SEED)
        }
        """Values of the seeds that have been trained to the end."""
        self.values: dict[str, Any] = unflatten({key: _suggest(trial, key, of) for key, of in search.items()})
        """The point of the search space, hyperparameters nested as they are set."""
        self._reported = {*said.intermediate_values}

    def report(self, step: int, value: float) -> bool:
        """Report how good the trial is in a part of it; return whether to stop.

        Args:
            step: Number of the part, from 0 on; one that an attempt before has reported says nothing new.
            value: Of that part.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        if step not in self._reported:
            self._reported.add(step)
            try:
                self._trial.report(value, step)
                self.pruned = self._trial.should_prune()
            except UpdateFinishedTrialError:
                self.lost = True
        return self.pruned or self.lost

    def keep(self, seed: int, value: float) -> None:
        """Keep the value of a seed that has been trained to the end."""
        self.seeds[str(seed)] = value
        self._say(f"{SEED}{seed}", value)

    def give_up(self, why: str) -> None:
        """Keep why the trial can't be."""
        self._say(FAULT, why)

    def _say(self, name: str, value: Any) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._trial.set_user_attr(name, value)
        except UpdateFinishedTrialError:
            self.lost = True


def root(trial: "FrozenTrial") -> int:
    """Return the number of the trial that an attempt is made at: that of the first one."""
    from optuna.storages import RetryHeartbeatStaleTrialCallback as Retry

    first = Retry.retried_trial_number(trial)
    return trial.number if first is None else first


def _suggest(trial: "Trial", name: str, dimension: Dimension) -> Any:
    """Return the value of a hyperparameter that is tried."""
    if isinstance(dimension, Choices):
        labels = dimension.labels
        return labels[trial.suggest_categorical(name, list(labels))]
    low, high, step = dimension.low, dimension.high, dimension.step
    if dimension.is_integer:
        return trial.suggest_int(name, int(low), int(high), step=int(step or 1), log=dimension.log)
    return trial.suggest_float(name, low, high, step=step, log=dimension.log)
