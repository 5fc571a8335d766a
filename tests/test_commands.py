"""Every command that rlstack prints works, from a directory whose path needs quotes."""

import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from rlstack.cli.app import main

from .helpers import OWN_RECIPES

TINY = ["num_envs=8", "horizon=8", "sgd_minibatch_size=None", "device=cpu"]
TINY_CONFIG = {"num_envs": 8, "horizon": 8, "sgd_minibatch_size": None, "device": "cpu"}
SMALL = [*TINY, "model_config.hiddens=[8]", "--max-updates", "1"]
PROJECT = Path(__file__).parent.parent / "pyproject.toml"


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Work in a directory with a space and an umlaut, tracked in a database of its own."""
    work = tmp_path / "wörk place"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return work


@pytest.fixture
def tracked_work(work, mlflow_uri, monkeypatch):
    """The same, with the database there already."""
    shutil.copy(mlflow_uri.removeprefix("sqlite:///"), work / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work}/mlflow.db")
    return work


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [*arguments])
    assert result.exit_code == code, result.output
    return result.output


def run_printed(command, *more):
    """Do what a shell does with a printed command, with more arguments."""
    name, *arguments = shlex.split(command)
    assert name == "rlstack"
    return run(*arguments, *more)


def printed(pattern, text):
    return re.search(pattern, text, re.MULTILINE)[1]


@pytest.mark.parametrize("tracking", [None, "off", "sqlite:///a store.db"])
def test_to_go_on(tracking, tracked_work, monkeypatch):
    monkeypatch.setattr("rlstack.cli.results.log_policy", lambda *_: "none")
    shutil.copy("mlflow.db", "a store.db")
    Path("my envs").mkdir()
    Path("my envs/my-env.py").write_text("from rlstack.env import DiscreteDummyEnv as Mine\n")
    more = [] if tracking is None else ["--tracking", tracking]
    said = run("train", "my envs/my-env.py:Mine", *SMALL, *more, "--run-dir", "a run")
    command = printed("^To go on: +(.*)$", said)
    assert shlex.split(command) == ["rlstack", "train", "--resume", "a run", *more]
    again = run_printed(command, "--max-updates", "2")
    assert "after 2 updates" in again
    # In the same run of the same store.
    assert printed("^Tracked run: +(.*)$", again) == printed("^Tracked run: +(.*)$", said)


def test_what_sends_the_rest(tracked_work, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("rlstack.tracking.mlflow_sender.MlflowSender._send", lambda self, *, everything: 1 / 0)
        said = run("train", "cartpole", *SMALL, "--run-dir", "a run")
    command = printed("to send them: (.*)$", said)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    # What the error advises works, too.
    advice = printed("give (--tracking .*)$", run("sync", "a run", code=1))
    assert "FINISHED" in run_printed(command)
    assert "FINISHED" in run("sync", "a run", *shlex.split(advice))


@pytest.mark.slow
def test_to_look_at_the_tracked_run(tracked_work):
    said = run("train", "cartpole", *SMALL, "--run-dir", "a run")
    command = shlex.split(printed("(mlflow ui .*)  \\(needs", said))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", *command, "--port", str(port)])
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.5)
        assert page == b"OK"
    finally:
        server.terminate()
        server.wait(30)


def test_what_is_to_be_installed():
    extras = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    files = [path for path in (PROJECT.parent / "src").rglob("*.py") if "env" not in path.parts]
    # Simulators' packages are named by what uses them.
    source = "".join(path.read_text() for path in files)
    commands = re.findall(r"pip install[^\"\n)]*", source)
    assert len(commands) >= 3
    for command in commands:
        # In quotes: to some shells, brackets are a pattern.
        assert re.fullmatch(r"pip install '[^']*'", command)
        [(name, extra)] = re.findall(r"(\w+)\[(\w+)\]", shlex.split(command)[-1])
        assert name == "rlstack"
        assert extra in extras


@pytest.mark.parametrize("name", OWN_RECIPES)
@pytest.mark.parametrize("algorithm", ["feedforward", "recurrent"])
def test_printed_configurations_are_read(name, algorithm, work):
    text = run("config", name, "--algorithm", algorithm)
    (work / "a file.yaml").write_text(text)
    command = printed("^# (.*); ", text).replace("THIS_FILE", "'a file.yaml'")
    said = run_printed(command, *TINY, "--max-updates", "1", "--tracking", "off", "--run-dir", "out")
    assert re.search("(Solved|Done, not solved): .*, after 1 updates", said)


def examples():
    """Return the example commands of all help."""
    texts = [CliRunner().invoke(main, [name, "--help"]).output for name in main.commands]
    lines = [line.strip() for text in texts for line in text.partition("Example")[2].splitlines()]
    return [line for line in lines if line.startswith("rlstack ")]


QUICK = {
    "train": [*TINY, "--max-updates", "1", "--tracking", "off"],
    "bench": [*TINY, "--time", "0.1s"],
    "sweep": ["--jobs", "1", "--tracking", "off"],
}
"""What makes an example quick; of options given twice, the last one counts."""


RUN = "runs/cartpole-20260101-1"
"""The run of the examples."""


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    """Return the directory of a run of 50 updates."""
    directory = tmp_path_factory.mktemp("runs") / "cartpole"
    limits = ["--max-updates", "50", "--checkpoint-every", "50", "--tracking", "off"]
    run("train", "cartpole", *SMALL[:-2], "--run-dir", str(directory), *limits)
    return directory


@pytest.mark.parametrize("line", examples())
def test_examples_of_the_help(line, a_run, tracked_work, monkeypatch):
    monkeypatch.setattr("rlstack.cli.results.log_policy", lambda *_: "none")
    mine = "from rlstack.env import CartPole\nclass MyEnv(CartPole.__base__):\n"
    mine += "    defaults, starts = {**CartPole.defaults, 'mass': 1.0}, CartPole.starts\n"
    mine += "    num_observations, num_choices, _advance = 4, 2, CartPole._advance\n"
    for file in ("my_package/my_module.py", "path/to/file.py"):
        Path(file).parent.mkdir(parents=True)
        Path(file).write_text(mine)
    Path("config.yaml").write_text("env: my_package.my_module:MyEnv")
    sweep = {"search": {"gamma": [0.9, 0.99]}, "trials": 1, "max_updates": 1}
    Path("sweep.yaml").write_text(
        yaml.safe_dump({"env": "cartpole", "algorithm_config": TINY_CONFIG, "sweep": sweep})
    )
    if "--report" in line:
        run("sweep", "-f", "sweep.yaml", "--tracking", "off")
    elif line.startswith("rlstack sync"):
        run("train", "cartpole", *SMALL, "--run-dir", RUN)
    elif RUN in line:
        for path in {RUN, *re.findall(r"runs/cartpole-\d+-\d+", line)}:
            shutil.copytree(a_run, path)
    for part in line.split(" && "):
        command, _, target = part.partition(" > ")
        _, name, *arguments = shlex.split(command)
        more = QUICK.get(name, [])
        if "--resume" in arguments:
            more = ["--max-updates", "51", "--tracking", "off"]
        keys = {argument.partition("=")[0] for argument in arguments if "=" in argument}
        said = run(name, *arguments, *(each for each in more if each.partition("=")[0] not in keys))
        assert said.strip()
        if target:
            Path(target).write_text(said)


def test_every_command_but_one_has_examples():
    assert {line.split()[1] for line in examples()} == main.commands.keys() - {"list"}
