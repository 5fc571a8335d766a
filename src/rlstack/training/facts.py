"""What a trainer tells of its training."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..algorithm import Algorithm, RecurrentAlgorithm
from ..common.errors import RunDirError
from ..common.types import Stats
from ..conditions import Condition, Or, any_of
from ..plots.learning_curve import plot_learning_curve
from ..runs.run_dir import RunDir
from ..tracking.journal import JOURNAL, read_rows
from .keeper import Keeper

_LONGEST_CURVE = 4000
"""Updates in a learning curve; of more, every second, or third, and so on, is drawn."""


class Facts:
    """What a trainer tells of its training; `Trainer` derives from it."""

    algorithm: Algorithm | RecurrentAlgorithm
    run_dir: RunDir | None
    stop_condition: Or
    _keeper: Keeper

    @property
    def collects(self) -> int:
        """How many horizons have been collected."""
        return self._keeper.collects

    @property
    def steps(self) -> int:
        """How often the policy has been updated."""
        return self._keeper.steps

    def plot(self, path: str | Path | None = None, *, title: str | None = None) -> Path:
        """Draw returns, losses and monitors of the whole run; return where the picture is.

        Args:
            path: A PNG or SVG by its name; None is `learning_curve.png` in the run directory.
            title: Above it; None says how far training is.

        Raises:
            RunDirError: If there is no run directory, which keeps what is drawn, or no update has been made.
            ImportError: If matplotlib isn't installed; it comes with the extra `viz`.
        """
        if self.run_dir is None:
            raise RunDirError("nothing is kept that could be drawn: give the trainer a run_dir")
        journal = self.run_dir.path / JOURNAL
        history = [row.metrics for row in read_rows(journal, most=_LONGEST_CURVE)] if journal.exists() else []
        if not history:
            raise RunDirError(f"{journal} is empty: there is nothing to draw before the first update")
        where = self.run_dir.path / "learning_curve.png" if path is None else Path(path)
        said = f"{self._env}: {self.algorithm.env_steps:,} steps, {self.steps} updates"
        plot_learning_curve(history, title or said, where)
        return where

    def _shown(self, updates: Iterator[Stats], conditions: Sequence[Condition] | None) -> Iterator[Stats]:
        """Yield the statistics of updates, and show them."""
        # Loads rich, which only those need who look.
        from .display import shown

        stop = self.stop_condition if conditions is None else any_of(conditions)
        return shown(updates, self._env, stop)

    @property
    def _env(self) -> str:
        return self.algorithm.params["env"]

    def __repr__(self) -> str:
        """Return what is trained, how far it is and where it is kept, in a few lines."""
        indented = repr(self.algorithm).replace("\n", "\n  ")
        where = "nothing is kept" if self.run_dir is None else f"in {self.run_dir.path}"
        until = repr(self.stop_condition) if self.stop_condition.conditions else "it is stopped"
        return (
            f"{type(self).__name__}(\n  {indented}\n"
            f"  {self.steps} updates, {self.algorithm.env_steps:,} environment steps; {where}\n"
            f"  until {until}\n)"
        )
