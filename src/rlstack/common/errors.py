"""Every error that rlstack raises on purpose, and what is said of others'."""


class RlstackError(Exception):
    """The base of all of them; each is one of Python's, too, a ValueError for example."""


class NonFiniteError(RlstackError, ArithmeticError):
    """Data, a loss or a gradient is NaN or infinite; the policy was not updated with it."""


class HparamsError(RlstackError, ValueError):
    """A hyperparameter is unknown, of the wrong type, out of range, or at odds with another one."""


class EnvError(RlstackError, ValueError):
    """An environment broke its contract or raised an error; says where, and what to change."""


class StatisticError(RlstackError, ValueError):
    """There is no such statistic, or one that was added to those of an update is no number."""


class ConfigError(HparamsError):
    """A configuration is wrong; says where, what was expected, and what was probably meant."""


class CheckpointError(RlstackError, ValueError):
    """A checkpoint is damaged, is none, or is that of another run; says which file and why."""


class PolicyFileError(RlstackError, ValueError):
    """A file is no policy, is damaged, or needs a class that wasn't handed over."""


class CaptureError(RlstackError, RuntimeError):
    """Something can't be recorded and replayed; says what, and what to change."""


class ExportError(RlstackError, ValueError):
    """A policy can't be written for other programs; says why, and what to change."""


class TrialError(RlstackError, ValueError):
    """A trial of a sweep can't be: its values don't go together, or training with them failed."""


class StoppedError(RlstackError, RuntimeError):
    """Training was asked to stop: the trial of the sweep will be gone on with."""


class TrackingError(RlstackError, RuntimeError):
    """A run's metrics can't be sent to MLflow; says why, and what to do."""


class RankError(RlstackError, RuntimeError):
    """A process of several that train together is gone, failed, or does something else; says which one."""


class RunDirError(RlstackError, ValueError):
    """A run directory is none, holds another run, or is in use."""


def told(error: BaseException) -> str:
    """Return an error with its kind, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def begin_of(error: BaseException) -> str:
    """Return an error's kind and the first line of its message, where more would be a dump of everything."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}".rstrip()
