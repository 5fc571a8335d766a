"""What a run shows: nothing of it ever ends the run."""

import io
import os
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner
from rich.console import Console

from rlstack import Policy
from rlstack.cli import train
from rlstack.cli.app import main
from rlstack.cli.goals import Limits
from rlstack.training.display import Display, Screen
from rlstack.training.interrupts import Interrupt

TINY = ["num_envs=8", "horizon=8", "sgd_minibatch_size=None", "model_config.hiddens=[8]", "device=cpu"]
TRAIN = ["train", "cartpole", *TINY, "--max-updates", "2", "--run-dir", "out"]
STATS = {
    "algorithm/steps": 1234.0,
    "env/total_steps": 12345678.0,
    "env/steps": 512.0,
    "returns/mean": -123.45,
}
STATS |= {"returns/std": 12.3456, "losses/policy": -0.00123456, "losses/vf": 0.123456}
NAMES = ["cartpole", "path/to/some/deep/folder/my_environment.py:MyEnvironment", "模拟环境:机器人"]
ENCODINGS = ["ascii", "latin-1", "cp1252", "utf-16", "koi8-r", "utf-8"]


def console(encoding="utf-8", **options):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    return Console(file=file, **options)


def written(on):
    on.file.flush()
    return on.file.buffer.getvalue().decode(on.file.encoding)


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_run_in_any_encoding(encoding, work):
    result = CliRunner(charset=encoding).invoke(main, [*TRAIN[:-1], "größe", "--tracking", "off"])
    assert result.exit_code == 0, result.output
    assert "To go on:" in result.output
    assert Policy.load(work / "größe" / "policy.safetensors")
    sign = re.search(r"returns [-\d.]+ (\S+) ", result.output)[1]
    assert sign == ("±" if "±".encode(encoding, "replace") != b"?" else "+/-")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_live_line_in_any_encoding(encoding, caplog):
    on = console(encoding, force_terminal=True, width=80)
    with Display(Screen(on), "cartpole") as display:
        display.show(STATS, None)
        display.show(STATS, 0.5)
    assert "update 1234" in written(on)
    assert caplog.records == []


@pytest.mark.parametrize("command", [["list"], ["config", "cartpole"], ["check", "--help"]])
@pytest.mark.parametrize("encoding", ["ascii", "utf-16"])
def test_other_commands_in_any_encoding(encoding, command, work):
    result = CliRunner(charset=encoding).invoke(main, command)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("name", NAMES)
def test_the_live_line_fits(name, width):
    on = console(force_terminal=True, width=width)
    with Display(Screen(on), name) as display:
        display.show(STATS, 0.5)
    line = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written(on)).replace("\r", "\n").split("\n")
    last = [each for each in line if "update 1234" in each][-1]
    assert name[-3:] in last
    assert "━━━━━━━━━━" in last
    assert "returns -123.5 ± 12.3" in last
    assert re.search(r"\d:\d\d:\d\d", last)
    assert "update 1234" in last
    assert ("losses" in last) == (width == 200)
    assert "…" not in last


@pytest.mark.parametrize("name", ["[/x]", "[bold]x", ":smile:", "$x"])
@pytest.mark.parametrize("terminal", [True, False])
def test_names_are_shown_as_they_are(name, terminal, caplog):
    on = console(force_terminal=terminal, width=80)
    screen = Screen(on)
    screen.say(f"Training {name}.")
    with Display(screen, name) as display:
        display.show(STATS, None)
    assert f"Training {name}." in written(on)
    assert written(on).count(name) >= 2
    assert caplog.records == []


class Failing(io.StringIO):
    """A stream on which everything fails after a while."""

    def __init__(self, error):
        super().__init__()
        self.error, self.left = error, 1

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().write(text)


FAULTS = [OSError(5, "Input/output error"), UnicodeEncodeError("x", "y", 0, 1, "z"), ValueError("closed")]


@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize("terminal", [True, False])
def test_a_display_that_fails_is_given_up(error, terminal, work, caplog):
    from rlstack.cli.run_config import RunConfig

    config = {"num_envs": 8, "horizon": 8, "sgd_minibatch_size": None, "model_config": {"hiddens": [8]}}
    asked = RunConfig.parse({"env": "cartpole", "algorithm_config": config, "trainer": {"track": False}})
    on = Console(file=Failing(error), force_terminal=terminal)
    limits = Limits(max_updates=3)
    how = {"run_dir": work / "out", "resume": None, "interrupt": Interrupt()}
    assert train.train(asked, limits, console=on, **how) is None
    assert Policy.load(work / "out" / "policy.safetensors")
    [said] = [record.message for record in caplog.records if "display" in record.message]
    assert said.startswith("there is no more display, training goes on: ")


def test_a_run_that_is_gone_on_with_by_a_dot_has_a_name(work, monkeypatch):
    command = [*TRAIN, "--tracking", "off"]
    assert CliRunner().invoke(main, command).exit_code == 0
    monkeypatch.chdir(work / "out")
    more = ["--resume", ".", "--tracking", "off", "--max-updates", "3"]
    done = CliRunner().invoke(main, ["train", *more])
    assert done.exit_code == 0, done.output
    assert "\nout  update 3 " in done.output


def test_a_reader_that_goes_away(work):
    command = [sys.executable, "-m", "rlstack", *TRAIN, "--tracking", "off"]
    # A reader that is gone before the first line is written.
    gone = ["bash", "-c", 'set -o pipefail; "$@" | true', "bash", *command]
    done = subprocess.run(gone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert "there is no more display, training goes on: BrokenPipeError" in done.stderr
    assert Policy.load(work / "out" / "policy.safetensors")
    assert (work / "out" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("place", "label"),
    [
        ("rlstack.training.facts.plot_learning_curve", "Learning curve: not drawn, RuntimeError: so it is"),
        ("rlstack.training.facts.read_rows", "Learning curve: not drawn, RuntimeError: so it is"),
        ("rlstack.cli.results.log_policy", "Tracked model:  none, RuntimeError: so it is"),
        ("rlstack.policies.policy.Policy.save", "Policy:         not saved, RuntimeError: so it is"),
    ],
)
def test_what_is_lost_is_said_in_a_line(place, label, tracked, monkeypatch):
    save = Policy.save

    def fail(*args, **options):
        if "checkpoints" in str(args[-1]):
            return save(*args)
        raise RuntimeError("so\nit is")

    monkeypatch.setattr(place, fail)
    result = CliRunner().invoke(main, TRAIN)
    assert result.exit_code == 0, result.output
    assert label in result.output
    assert "To go on:" in result.output


def test_a_backend_of_matplotlib_that_isnt_there(work):
    """Even a setting of which matplotlib itself fails to load."""
    command = [sys.executable, "-m", "rlstack", *TRAIN, "--tracking", "off"]

    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "MPLBACKEND": "no.such"}
    )
    assert done.returncode == 0, done.stderr
    assert "To go on:" in done.stdout
    assert re.search("Learning curve: (not drawn, ValueError|out/learning_curve.png)", done.stdout)


def shown(*history, width=200):
    """Return the live line after each update."""
    on = console(force_terminal=True, width=width)
    lines = []
    with Display(Screen(on), "cartpole") as display:
        for stats in history:
            display.show(stats, 0.5)
            display._display._progress.refresh()
            text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written(on)).replace("\r", "\n").rstrip()
            lines.append(text.split("\n")[-1])
    return lines


def test_returns_are_those_of_episodes_where_they_end():
    none = STATS | {"episodes/count": 0.0}
    some = none | {"episodes/count": 2.0, "episodes/returns/mean": 21.5, "episodes/returns/std": 0.5}
    first, second, third = shown(none, some, none)
    assert "no episode has ended" in first
    assert "episodes/returns 21.5 ± 0.5" in second
    # Of the last ones, until others end.
    assert "episodes/returns 21.5 ± 0.5" in third
    assert "-123" not in first + second + third


def test_an_environments_own_metrics_are_shown():
    [line] = shown(STATS | {"env/success": 0.75, "env/resets": 512.0, "env/height": float("nan")})
    assert "returns -123.5 ± 12.3" in line
    assert "success 0.75" in line
    assert "resets" not in line
    assert "height" not in line


def test_they_go_before_losses_where_there_is_little_room():
    [line] = shown(STATS | {"env/success": 0.75}, width=110)
    assert "success 0.75" in line
    assert "losses" not in line
