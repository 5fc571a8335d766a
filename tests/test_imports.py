"""What is loaded when: imports and help must be quick."""

import subprocess
import sys

import pytest

import rlstack
from rlstack import distributions, env, models
from rlstack.common.public_names import public_name

NAMED = {
    distributions: ["Categorical", "Normal", "SquashedNormal"],
    env: ["CartPole", "MountainCar", "Pendulum", "DiscreteDummyEnv", "ContinuousDummyEnv"],
    models: ["DiscreteMLP", "ContinuousMLP", "DiscreteLSTM", "ContinuousLSTM"],
}
"""What stands in policies and configurations."""


def loaded_after(code):
    """Return which heavy packages a fresh interpreter has loaded after the code."""
    heavy = ["torch", "tensordict", "torchrl", "mlflow", "rich", "matplotlib", "pandas", "numba"]
    script = f"{code}\nimport sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return ast_list(done.stdout.splitlines()[-1])


def ast_list(text):
    return [part.strip("' ") for part in text.strip("[]").split(",") if part]


HELP = "import contextlib, rlstack.cli.app\nwith contextlib.suppress(SystemExit): rlstack.cli.app.main({})"


@pytest.mark.parametrize(
    "code",
    [
        "import rlstack; rlstack.__version__; dir(rlstack)",
        "import rlstack.cli.app, rlstack.cli.recipes",
        HELP.format(["--help"]),
        HELP.format(["train", "--help"]),
    ],
)
def test_help_loads_nothing_heavy(code):
    assert loaded_after(code) == []


def test_nothing_loads_mlflow_before_the_first_step():
    code = """
from rlstack import Algorithm, Trainer
from rlstack.env import DiscreteDummyEnv
Trainer(DiscreteDummyEnv, algorithm_config={"num_envs": 2, "horizon": 2}).eval()
"""
    assert {*loaded_after(code)} - {"numba"} == {"torch", "tensordict", "torchrl"}


@pytest.mark.parametrize("name", rlstack.__all__)
def test_every_public_name_is_there(name):
    assert getattr(rlstack, name) is not None
    assert name in dir(rlstack)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'NoSuchName'"):
        rlstack.NoSuchName  # noqa: B018


def test_help_is_answered_within_half_a_second():
    import time

    def seconds():
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "rlstack", "--help"], capture_output=True, check=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.5


@pytest.mark.parametrize("home", [distributions, env, models])
def test_names_in_files_are_where_they_say(home):
    """Also after a class has moved to another module of its package: files outlive versions."""
    for name in NAMED[home]:
        assert public_name(getattr(home, name)) == f"{home.__name__}.{name}"
