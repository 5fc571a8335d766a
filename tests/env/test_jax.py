"""Brax and MuJoCo Playground where they are missing. With them: tests/sims."""

import sys

import pytest

from rlstack.common.errors import EnvError
from rlstack.env.simulators import find_simulator


@pytest.mark.parametrize(
    ("name", "package"), [("brax:ant", "brax"), ("playground:CheetahRun", "mujoco_playground")]
)
def test_a_missing_package_is_named(name, package, monkeypatch):
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvError) as caught:
        find_simulator(name)
    assert str(caught.value).startswith(f"{name} needs {package}")
    assert str(caught.value).endswith(": pip install 'rlstack[jax]'")
