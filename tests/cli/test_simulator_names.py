"""Environments of other packages by name: on the command line, in config.yaml, and after a resume."""

import json
import re
import sys

import pytest
import yaml
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from rlstack import Algorithm, HparamsError, Trainer
from rlstack.cli.app import main
from rlstack.cli.resolve_env import resolve
from rlstack.env.gymnasium import from_vector, make
from rlstack.env.simulators import MAKERS
from rlstack.runs.class_files import name_class
from rlstack.runs.run_names import make_run_dir, runs_of

from ..gym_standins import TensorWalks
from ..killed_worker import check_killed_worker

WALK = "gym:tests.gym_envs:Rlstack/Walk-v0"
TINY = ["num_envs=4", "horizon=4", "sgd_minibatch_size=None", "model_config.hiddens=[4]", "device=cpu"]


class Derived(make("CartPole-v1")):
    """One with a name of its own."""


class Walks(from_vector(TensorWalks)):
    """Walks of another package."""


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_a_run_from_its_beginning_to_its_evaluation(directory):
    begun = run("train", WALK, "env_config.limit=5", *TINY, "--max-updates", 2, "--tracking", "off")
    assert begun.exit_code == 0, begun.output
    [where] = directory.glob("runs/Walk-v0-*-1")
    said = yaml.safe_load((where / "config.yaml").read_text())
    assert said["env"] == WALK
    assert said["algorithm_config"]["env_config"] == {"limit": 5}
    resumed = run("train", "--resume", where, "--max-updates", 3, "--tracking", "off")
    assert resumed.exit_code == 0, resumed.output
    assert "Going on with" in resumed.output
    again = run("train", WALK, *TINY, "--resume", "auto", "--max-updates", 4, "--tracking", "off")
    assert again.exit_code == 0, again.output
    assert "Going on with" in again.output
    judged = run("eval", where, "--num-envs", 3, "--steps", 10, "limit=2", "--json")
    assert judged.exit_code == 0, judged.output
    assert json.loads(judged.output)["episodes/lengths/mean"] <= 2


def test_check_bench_and_config(directory):
    checked = run("check", WALK, "limit=3", "--num-envs", 2, "--steps", 4, "--json")
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.output)["env"] == "Rlstack/Walk-v0"
    measured = run("bench", WALK, *TINY, "--time", "0.01", "--json")
    assert measured.exit_code == 0, measured.output
    assert json.loads(measured.output)["transitions_per_second"] > 0
    printed = run("config", WALK).output
    assert yaml.safe_load(printed)["env"] == WALK
    file = directory / "config.yaml"
    file.write_text(f"env: {WALK}\nalgorithm_config: {{num_envs: 2, horizon: 2, sgd_minibatch_size: null}}\n")
    trained = run("train", "-f", file, "--max-updates", 1, "--tracking", "off")
    assert trained.exit_code == 0, trained.output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "gym:CartPol-v1",
            "gym:CartPol-v1 is not an environment of Gymnasium: did you mean gym:CartPole-v1?",
        ),
        ("gymm:X", "env is gymm:X: there is no module gymm: did you mean gym:X?"),
        ("gymm:CartPole-v1", "like my_package.my_module:MyEnv: did you mean gym:CartPole-v1?"),
        ("gymnasium:CartPole-v1", "like my_package.my_module:MyEnv: did you mean gym:CartPole-v1?"),
        ("dm_kontrol:cheetah-run", "like my_package.my_module:MyEnv: did you mean dm:cheetah-run?"),
        ("tests.gym_envs:Nobody", "env is tests.gym_envs:Nobody: tests.gym_envs has no Nobody: "),
        ("gym:nowhere:X-v0", "gym:nowhere:X-v0: there is no module nowhere that could register X-v0"),
    ],
)
def test_names_that_nobody_has(name, said, directory):
    with pytest.raises(HparamsError) as error:
        resolve(name, {})
    assert said in str(error.value)
    failed = run("check", name)
    assert (failed.exit_code, failed.output.count("\n")) == (2, 1)
    assert said in failed.output


def test_a_missing_package_is_a_mistake_of_whoever_asks_for_it(monkeypatch, directory):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    failed = run("train", "gym:CartPole-v1")
    assert failed.exit_code == 2
    assert failed.output == "rlstack: gym:CartPole-v1 needs gymnasium: pip install 'rlstack[gymnasium]'\n"


def test_an_option_that_an_environment_lacks_is_its_own_fault(directory):
    failed = run("train", WALK, "env_config.limits=5", *TINY)
    assert failed.exit_code == 3
    assert "env_config.limits is not an option of Rlstack/Walk-v0: did you mean limit?" in failed.output
    assert not (directory / "runs").exists()


def test_a_killed_worker_ends_a_run_that_its_checkpoint_resumes(tmp_path):
    said = check_killed_worker(tmp_path, WALK, "env_config.vectorization_mode=async", "env_config.limit=5")
    assert re.fullmatch(
        r"rlstack: Rlstack/Walk-v0: worker process 1 of 2 was killed by SIGKILL \(has memory run out\?\): "
        r"its simulation is lost, go on from the last checkpoint\n",
        said,
    )


def test_names_of_classes():
    assert name_class(make("CartPole-v1")) == "gym:CartPole-v1"
    # One that is derived from it is another one.
    assert name_class(Derived).endswith(".Derived")
    assert name_class(Walks).endswith(".Walks")
    algorithm = Algorithm(make("CartPole-v1"), num_envs=2, horizon=2, sgd_minibatch_size=None)
    assert algorithm.params["env"] == "gym:CartPole-v1"


@pytest.mark.parametrize("cls", [Derived, Walks, make("CartPole-v1", max_episode_steps=3)])
def test_classes_are_found_again(cls, tmp_path):
    config = {"num_envs": 2, "horizon": 4, "sgd_minibatch_size": None}
    trainer = Trainer(cls, algorithm_config=config, run_dir=tmp_path, track=False)
    before = trainer.step()["episodes/count"]
    trainer.save()
    trainer.close()
    resumed = Trainer.resume(tmp_path, track=False)
    assert resumed.algorithm.params == trainer.algorithm.params
    assert type(resumed.algorithm.env).__name__ == cls.__name__
    if cls not in (Derived, Walks):
        assert before >= 2
        assert resumed.algorithm.hparams.env_config == {"max_episode_steps": 3}


def test_directories_of_runs(directory):
    for name, stem in (("gym:ALE/Pong-v5", "Pong-v5"), (WALK, "Walk-v0"), ("dm:cheetah-run", "cheetah-run")):
        made = make_run_dir(name)
        assert made.name.startswith(f"{stem}-2")
        assert runs_of(name) == [made]


def test_tab_completes_prefixes():
    complete = ShellComplete(main, {}, "rlstack", "_RLSTACK_COMPLETE")
    offered = {item.value for item in complete.get_completions(["train"], "")}
    assert {f"{prefix}:" for prefix in MAKERS} < offered
    assert [item.value for item in complete.get_completions(["check"], "gy")] == ["gym:"]
