"""What rlstack's errors are, and what is said of those that others raise."""

import inspect
from importlib import import_module

import pytest

import rlstack
from rlstack.common.errors import begin_of, told
from rlstack.env import DiscreteDummyEnv

from ..test_packages import MODULES

ERRORS = {
    cls.__name__: cls
    for name in MODULES
    if name != "__main__"
    for cls in vars(import_module(f"rlstack.{name}")).values()
    if inspect.isclass(cls) and issubclass(cls, BaseException) and cls.__module__.startswith("rlstack.")
}

KINDS = {
    "RlstackError": Exception,
    "NonFiniteError": ArithmeticError,
    "HparamsError": ValueError,
    "EnvError": ValueError,
    "StatisticError": ValueError,
    "ConfigError": rlstack.HparamsError,
    "CheckpointError": ValueError,
    "PolicyFileError": ValueError,
    "CaptureError": RuntimeError,
    "TrackingError": RuntimeError,
    "RunDirError": ValueError,
    "ExportError": ValueError,
    "RankError": RuntimeError,
    "TrialError": ValueError,
    "StoppedError": RuntimeError,
}


def test_every_class_of_errors_is_known_here():
    assert ERRORS.keys() == KINDS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_every_error_is_of_rlstack_and_one_of_pythons(name):
    assert issubclass(ERRORS[name], rlstack.RlstackError)
    assert issubclass(ERRORS[name], KINDS[name])


def test_one_clause_catches_them():
    with pytest.raises(rlstack.RlstackError, match="horzon is not a hyperparameter"):
        rlstack.Algorithm(DiscreteDummyEnv, horzon=1)


@pytest.mark.parametrize(
    ("error", "whole", "begin"),
    [
        (ValueError("no\n  such thing"), "ValueError: no such thing", "ValueError: no"),
        (KeyError("a"), "KeyError: 'a'", "KeyError: 'a'"),
        (RuntimeError(), "RuntimeError:", "RuntimeError:"),
    ],
)
def test_errors_in_a_line(error, whole, begin):
    assert (told(error), begin_of(error)) == (whole, begin)
