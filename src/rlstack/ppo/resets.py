"""When an environment is reset, and how changed options reach it."""

from typing import Any, final

from ..common.serialization import same
from ..common.types import Config
from ..env.optional import set_env_config, takes_config
from ..hparams import Hparams


@final
class Resets:
    """Counts the horizons of an environment since its last reset.

    Changed options reach it at once if it has `set_config`, else at its next reset; where resets are never
    due, they ask for one.

    Args:
        env: The environment.
        hparams: When to reset it, and the options it was made with.
    """

    since = 0
    """Horizons since the last reset, that at hand included; 0 lets the next one begin with a reset."""
    has_state = False
    """Whether the environment has ever been reset, or handed a state: before, it needn't have any."""
    config: Config | None = None
    """The options that were asked for last; None are those it was made with."""

    def __init__(self, env: Any, hparams: Hparams) -> None:
        self._env, self._hparams = env, hparams

    def is_due(self, since: int) -> bool:
        """Return whether a reset is due so many horizons after the last one."""
        return 0 < self._hparams.horizons_per_env_reset <= since

    def go_on(self, config: Config | None) -> bool:
        """Begin a horizon without a reset; return whether that can be.

        Args:
            config: Options from now on; None are those there are.

        Raises:
            EnvError: If the environment can't take them over; it is reset next.
        """
        is_new = config is not None and not same(config, self._in_force)
        at_once = is_new and takes_config(self._env)
        is_never = self._hparams.horizons_per_env_reset == -1
        if self.since == 0 or (is_new and not at_once if is_never else self.is_due(self.since)):
            return False
        since, self.since = self.since, 0
        if at_once and config is not None:
            set_env_config(self._env, config)
        self.config, self.since = self.asked(config), since + 1
        return True

    def reset(self, config: Config | None) -> None:
        """Note a reset, with these options."""
        self.config, self.since, self.has_state = config, 1, True

    def asked(self, config: Config | None) -> Config | None:
        """Return the options from now on, if these are asked for; None are those there are."""
        return self.config if config is None else dict(config)

    def load(self, config: Config | None) -> None:
        """Take over the options of a checkpoint that is gone on from without a reset.

        Raises:
            EnvError: If the environment can't.
        """
        before, self.config = self._in_force, config
        if takes_config(self._env) and not same(before, self._in_force):
            set_env_config(self._env, self._in_force or {})

    @property
    def _in_force(self) -> Config | None:
        return self._hparams.env_config if self.config is None else self.config
