"""What is said of errors that others raise."""

import pytest

from rlstack.common.errors import begin_of, told


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
