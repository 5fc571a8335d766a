"""Every example in a docstring runs."""

import doctest
from importlib import import_module

import pytest

from .test_packages import MODULES

EXAMPLES = {"schedulers": 2, "algorithm": 7, "env_check.report": 2}


@pytest.mark.parametrize("module", [name for name in sorted(MODULES) if name != "__main__"])
def test_examples_in_docstrings(module):
    results = doctest.testmod(import_module(f"rlstack.{module}"))
    assert results.failed == 0
    assert results.attempted == EXAMPLES.get(module, 0)
