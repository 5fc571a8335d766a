"""Classes in files, named by them on the command line, in configurations and in run directories."""

import os
import sys

import pytest
import yaml
from click.testing import CliRunner

from rlstack import Algorithm, Trainer
from rlstack.cli.app import main
from rlstack.cli.run_config import RunConfig
from rlstack.common.errors import ConfigError
from rlstack.env import CartPole
from rlstack.runs.class_files import import_file
from rlstack.runs.class_paths import find_class
from rlstack.runs.yaml_format import dump

ENV = "from rlstack.env import DiscreteDummyEnv\nclass Thermo(DiscreteDummyEnv.__base__):\n"
ENV += "    action_spec = DiscreteDummyEnv(1).action_spec\n"
ENV += "    def _displacement(self, action):\n        return 2 * action - 1\n"
MODEL = "from tests.helpers import SMALL\nfrom rlstack.models import DiscreteMLP\n"
MODEL += "class MM(DiscreteMLP.__base__):\n    head_cls = DiscreteMLP.head_cls\n"
TINY = ["num_envs=8", "horizon=4", "device=cpu", "--tracking", "off", "--max-updates", "1"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Work in a project whose path needs quotes; what is imported from it is forgotten."""
    modules, path = {*sys.modules}, [*sys.path]
    project = tmp_path / "wörk place"
    (project / "envs").mkdir(parents=True)
    monkeypatch.chdir(project)
    yield project
    for name in {*sys.modules} - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    sys.path[:] = path


def rlstack(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    return result.output


def forget(stem):
    """Leave a module as a new process would find it."""
    del sys.modules[stem]


@pytest.mark.parametrize("stem", ["thermo", "random", "my-env", "two words", "class", "größe"])
def test_any_file_name_will_do(stem, project):
    file = project / "envs" / f"{stem}.py"
    file.write_text(ENV)
    found = find_class(f"envs/{stem}.py:Thermo", "env")
    assert find_class(str(file) + ":Thermo", "env") is found
    assert import_file(file).Thermo is found
    import random

    # The modules of everyone else stay what they are.
    assert random.Random
    config = dump({"env": found}, project / "elsewhere")
    assert yaml.safe_load(config) == {"env": f"../envs/{stem}.py:Thermo"}
    Algorithm(found, num_envs=2, horizon=2, device="cpu").collect()


def test_files_of_one_name_are_told_apart(project):
    for folder in ("one", "two"):
        (project / folder).mkdir()
        (project / folder / "same.py").write_text(f"{ENV}    home = {folder!r}\n")
    found = [find_class(f"{folder}/same.py:Thermo", "env") for folder in ("one", "two", "one")]
    assert [cls.home for cls in found] == ["one", "two", "one"]


def test_neighbors_are_found(project):
    (project / "envs" / "beside_it.py").write_text("BOUND = 3.0")
    (project / "envs" / "queue.py").write_text(f"from beside_it import BOUND\n{ENV}")
    assert import_file(project / "envs" / "queue.py").BOUND == 3


def test_a_file_that_fails_is_tried_again(project):
    file = project / "half.py"
    for text in ("1 / 0", "import sys\nsys.exit('no')", "import nothing_of_the_kind"):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"env is half\.py:Thermo: importing it raised "):
            find_class("half.py:Thermo", "env")
    file.write_text(ENV)
    os.utime(file, (0, 0))
    assert find_class("half.py:Thermo", "env").__name__ == "Thermo"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:Thermo", "there is no file .*nowhere.py"),
        ("thermo.py:Thermoo", "thermo.py has no Thermoo: did you mean Thermo"),
        ("thermo.py:DiscreteDummyEnv.x", "has no DiscreteDummyEnv.x"),
        ("thermo.py:", "expected the name of a class, like package.module.Class or path/to/file.py:Class"),
        ("nowhere.Thermo", "if it is in a file, name it by that: path/to/nowhere.py:Thermo"),
        ("__main__.Thermo", r"hand it over, Trainer.resume\(run_dir, env_cls=…\)"),
        ("x.f.<locals>.Thermo", "that has a file, rlstack train file.py:Class --resume DIR"),
    ],
)
def test_what_is_wrong_with_a_name(name, message, project):
    (project / "thermo.py").write_text(ENV)
    with pytest.raises(ConfigError, match=message):
        find_class(name, "env")


def test_a_run_goes_on_from_any_directory_and_after_a_move(project, monkeypatch, caplog):
    (project / "envs" / "thermo.py").write_text(ENV)
    (project / "jobs.py").write_text(MODEL)
    command = ("train", "envs/thermo.py:Thermo", "model_cls=jobs.py:MM", "model_config.hiddens=[8]")
    rlstack(*command, *TINY, "--run-dir", "runs/one")
    said = yaml.safe_load((project / "runs" / "one" / "config.yaml").read_text())
    assert said["env"] == "../../envs/thermo.py:Thermo"
    assert said["algorithm_config"]["model_cls"] == "../../jobs.py:MM"
    moved = project.parent / "moved"
    for place, updates in ((project, 2), (moved, 3)):
        for stem in ("thermo", "jobs"):
            forget(stem)
        monkeypatch.chdir(project.parent)
        if place is moved:
            project.rename(moved)
        run = place / "runs" / "one"
        said = rlstack("train", "--resume", run, "--max-updates", updates, "--tracking", "off")
        assert f"after {updates} updates" in said
    assert caplog.text == ""
    rlstack("eval", moved / "runs" / "one", "--steps", 2)
    # What was used is a configuration, too.
    monkeypatch.chdir(project.parent)
    rlstack("train", "-f", "moved/runs/one/config.yaml", *TINY[3:], "--run-dir", "two")
    assert "../moved/envs/thermo.py:Thermo" in (project.parent / "two" / "config.yaml").read_text()


def test_an_edited_file_name_is_told_from_any_directory(project, monkeypatch, caplog):
    (project / "thermo.py").write_text(ENV)
    for stem in ("jobs", "other"):
        (project / f"{stem}.py").write_text(MODEL)
    command = ("train", "thermo.py:Thermo", "model_cls=jobs.py:MM", "model_config.hiddens=[8]")
    rlstack(*command, *TINY, "--run-dir", "runs/one")
    file = project / "runs" / "one" / "config.yaml"
    file.write_text(file.read_text().replace("jobs.py:MM", "other.py:MM"))
    monkeypatch.chdir(project / "envs")
    CliRunner().invoke(main, ["train", "--resume", "../runs/one", *TINY[3:]])
    assert "model_cls is ../../other.py:MM and was ../../jobs.py:MM" in caplog.text


def test_configurations_name_files_from_their_own_directory(project, monkeypatch):
    (project / "envs" / "quad.py").write_text(ENV)
    text = rlstack("config", "envs/quad.py:Thermo")
    assert "Files are seen from the directory of this one" in text
    (project / "quad.yaml").write_text(text + "\n")
    monkeypatch.chdir(project / "envs")
    assert RunConfig.read(project / "quad.yaml").env == f"{project}/envs/quad.py:Thermo"
    rlstack("train", "-f", "../quad.yaml", *TINY, "--run-dir", "out")
    (project / "x.json").write_text('{"algorithm_config": {"model_cls": "envs/nowhere.py:MM"}}')
    said = refused("train", "cartpole", "-f", "../x.json")
    assert (
        f"algorithm_config.model_cls is envs/nowhere.py:MM: there is no file {project}/envs/nowhere.py"
        in said
    )


@pytest.mark.parametrize("option", ["model_cls", "distribution_cls", "optimizer_cls"])
def test_every_class_may_be_in_a_file(option, project):
    bases = {
        "model_cls": "rlstack.models.DiscreteMLP",
        "distribution_cls": "rlstack.Categorical",
        "optimizer_cls": "torch.optim.Adam",
    }
    home, _, base = bases[option].rpartition(".")
    (project / "mine-of-it.py").write_text(f"from {home} import {base} as Mine\n")
    rlstack(
        "train",
        "cartpole",
        f"{option}=mine-of-it.py:Mine",
        *TINY,
        "sgd_minibatch_size=None",
        "--run-dir",
        "o",
    )
    asked = RunConfig.read(project / "o" / "config.yaml")
    assert f"{asked.algorithm_config[option].__module__}.{base}".startswith(home)


def test_a_script_can_be_resumed(project):
    (project / "script.py").write_text(
        f"{ENV}{MODEL}"
        "if __name__ == '__main__':\n"
        "    from rlstack import Trainer\n"
        "    config = {'num_envs': 8, 'horizon': 4, 'device': 'cpu', 'model_cls': MM}\n"
        "    trainer = Trainer(Thermo, algorithm_config=config, run_dir='out', track=False)\n"
        "    trainer.step()\n    trainer.save()\n    trainer.close()\n"
        "    again = Trainer.resume('out', track=False)\n"
        "    assert again.algorithm.env_cls is Thermo\n    again.close()\n"
    )
    before = sys.modules["__main__"]
    try:
        # As `python script.py`, whose module is __main__ for all that looks.
        spec = type(sys)("__main__")
        spec.__file__ = str(project / "script.py")
        sys.modules["__main__"] = spec
        exec(compile((project / "script.py").read_text(), "script.py", "exec"), vars(spec))
    finally:
        sys.modules["__main__"] = before
    assert "env: ../script.py:Thermo" in (project / "out" / "config.yaml").read_text()
    resumed = Trainer.resume("out", track=False)
    assert (resumed.steps, resumed.algorithm.env_cls.__module__) == (1, "script")
    resumed.close()


def test_classes_within_classes_and_packages(project):
    (project / "packed").mkdir()
    (project / "packed" / "__init__.py").write_text(
        "class Outer:\n    from rlstack.env import CartPole as Inner\n"
    )
    (project / "packed" / "inner.py").write_text(f"{ENV}class Outer:\n    class Inner(Thermo): pass\n")
    sys.path.append(str(project))
    found = find_class("packed.inner:Outer.Inner", "env")
    assert dump({"env": found}) == "env: packed.inner:Outer.Inner\n"
    assert dump({"env": CartPole}) == "env: rlstack.env.CartPole\n"


def test_runs_of_earlier_releases_are_read(project):
    """They name the module alone, which is found in the working directory."""
    (project / "thermo_of_old.py").write_text(ENV)
    rlstack("train", "thermo_of_old.py:Thermo", *TINY, "--run-dir", "out")
    file = project / "out" / "config.yaml"
    file.write_text(file.read_text().replace("../thermo_of_old.py:Thermo", "thermo_of_old.Thermo"))
    assert "after 2 updates" in rlstack("train", "--resume", "out", "--max-updates", "2", "--tracking", "off")


def test_a_run_brings_no_code_along(project):
    (project / "thermo.py").write_text(ENV)
    rlstack("train", "thermo.py:Thermo", *TINY, "--run-dir", "out")
    (project / "out" / "evil.py").write_text(f"open('canary', 'w')\n{ENV}")
    file = project / "out" / "config.yaml"
    file.write_text(file.read_text().replace("../thermo.py", "evil.py"))
    limit = ["--max-updates", "2"]
    for command in (
        ["train", "--resume", "out", *limit],
        ["eval", "out"],
        ["train", "-f", "out/config.yaml", *limit],
    ):
        assert "code that a run brings along isn't run" in refused(*command)
    assert not (project / "canary").exists()


def test_a_model_of_ones_own_takes_none_of_the_recipes_options(project):
    (project / "jobs.py").write_text(
        "from rlstack.models import DiscreteMLP\n"
        "class MM(DiscreteMLP.__base__):\n    head_cls = DiscreteMLP.head_cls\n"
        "    def __init__(self, observation_spec, action_spec, /):\n"
        "        super().__init__(observation_spec, action_spec, hiddens=[4])\n        self.config = {}\n"
    )
    rlstack("train", "cartpole", "model_cls=jobs.py:MM", *TINY, "sgd_minibatch_size=None", "--run-dir", "out")
    made_with = yaml.safe_load((project / "out" / "config.yaml").read_text())["algorithm_config"]
    assert made_with["model_cls"] == "../jobs.py:MM"
    assert not made_with.get("model_config")
