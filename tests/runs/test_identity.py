"""Whose checkpoints a run takes, and what becomes of a config.yaml that isn't what it was."""

import json
import logging
import shutil
from enum import Enum, IntEnum
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from rlstack import RecurrentAlgorithm, Trainer
from rlstack.cli.app import main
from rlstack.cli.run_config import RunConfig
from rlstack.common.errors import CheckpointError, ConfigError, NonFiniteError
from rlstack.conditions import HitsUpperBound
from rlstack.env import DiscreteDummyEnv
from rlstack.runs import checkpoint, kept
from rlstack.runs.evaluate import evaluate
from rlstack.runs.inspect import inspect

from ..helpers import SMALL

JUDGED = {"env_config": {}, "num_envs": 2, "steps": 2, "seed": 0, "device": "cpu"}
CONFIG = {"num_envs": 2, "horizon": 2, "device": "cpu", "gamma": 0.5, "model_config": SMALL}


@pytest.fixture(autouse=True)
def _heard(caplog):
    caplog.set_level(logging.WARNING, logger="rlstack")


def train(directory, updates=2, trainer=None, **changes):
    """Write a checkpoint after each update of a new run, or one that goes on."""
    if trainer is None:
        every = {"every_updates": 1, "every_seconds": None}
        config = {**CONFIG, **changes}
        trainer = Trainer(
            DiscreteDummyEnv,
            algorithm_config=config,
            run_dir=directory,
            checkpoint_config=every,
            track=False,
        )
    trainer.run(stop_conditions=[HitsUpperBound("algorithm/steps", updates)])
    trainer.close()
    return trainer


def resume(directory, **changes):
    trainer = Trainer.resume(directory, track=False, **changes)
    trainer.close()
    return trainer


def edit(directory, change):
    """Change what a run's config.yaml says."""
    file = directory / "config.yaml"
    said = yaml.safe_load(file.read_text())
    change(said)
    file.write_text(yaml.safe_dump(said))


def put(path, target, number):
    """Copy a checkpoint into a run under another number."""
    copy = target / "checkpoints" / f"ckpt-{number:09d}"
    shutil.copytree(path, copy)
    return copy


class TestIdentity:
    def test_every_run_has_one_of_its_own(self, tmp_path):
        runs = [train(tmp_path / name) for name in ("one", "two")]
        ids = [yaml.safe_load((run.run_dir.path / "config.yaml").read_text())["id"] for run in runs]
        assert ids == [run.run_dir.id for run in runs]
        assert ids[0] != ids[1]
        said = inspect(tmp_path / "one")
        assert said["run"] == ids[0]
        # The configuration of a run begins another one.
        assert RunConfig.read(tmp_path / "one" / "config.yaml").algorithm_config["gamma"] == 0.5

    def test_another_runs_checkpoint_is_not_taken(self, tmp_path, caplog):
        train(tmp_path / "one", 2)
        other = train(tmp_path / "two", 5)
        foreign = put(tmp_path / "two" / "checkpoints" / "ckpt-000000005", tmp_path / "one", 5)
        again = resume(tmp_path / "one")
        assert again.steps == 2
        assert f"{foreign} is of another run: its id is {other.run_dir.id}" in caplog.text
        for path in (tmp_path / "one" / "checkpoints").glob("ckpt-*"):
            if path != foreign:
                shutil.rmtree(path)
        with pytest.raises(CheckpointError, match=f"no sound checkpoint.*of another run.*{again.run_dir.id}"):
            resume(tmp_path / "one")

    def test_it_is_neither_judged_nor_looked_at_without_a_word(self, tmp_path, caplog):
        own, other = train(tmp_path / "one", 2), train(tmp_path / "two", 5)
        foreign = put(tmp_path / "two" / "checkpoints" / "ckpt-000000005", tmp_path / "one", 5)
        kept.point(foreign.parent, "best", foreign)
        for path in (tmp_path / "one", foreign):
            with pytest.raises(CheckpointError, match=f"of another run: its id is {other.run_dir.id}, here"):
                evaluate(path, **JUDGED)
            caplog.clear()
            assert inspect(path)["updates"] == 5
            [said] = caplog.messages
            assert said == f"{foreign} is of another run than {tmp_path}/one: its id is {other.run_dir.id}"
        caplog.clear()
        for path in (tmp_path / "two", own.run_dir.checkpoints / "ckpt-000000002"):
            assert evaluate(path, **JUDGED)["updates"] == inspect(path)["updates"]
        # By itself it is nobody else's.
        inspect(shutil.copytree(foreign, tmp_path / "alone" / foreign.name))
        assert caplog.text == ""

    def test_a_renamed_one_is_not_taken(self, tmp_path, caplog):
        train(tmp_path / "one", 2)
        put(tmp_path / "one" / "checkpoints" / "ckpt-000000001", tmp_path / "one", 120)
        assert resume(tmp_path / "one").steps == 2
        assert "ckpt-000000120 is damaged or was renamed: it is of update 1" in caplog.text

    def test_restoring_takes_no_other_runs(self, tmp_path, monkeypatch, caplog):
        trainer = train(tmp_path / "one", 2)
        train(tmp_path / "two", 5)
        put(tmp_path / "two" / "checkpoints" / "ckpt-000000005", tmp_path / "one", 5)
        again = Trainer.resume(tmp_path / "one", options={"on_nonfinite": "restore"}, track=False)
        caplog.clear()
        faults, step = [NonFiniteError("NaN")], again.algorithm.step

        def fail_once():
            if faults:
                raise faults.pop()
            return step()

        monkeypatch.setattr(again.algorithm, "step", fail_once)
        again.step()
        again.close()
        assert "ckpt-000000005 is of another run" in caplog.text
        assert "went back to" in caplog.text
        assert "ckpt-000000002, with" in caplog.text
        assert trainer.run_dir.id == again.run_dir.id

    def test_load_takes_it_and_says_so(self, tmp_path, caplog):
        train(tmp_path / "one", 2)
        trainer = Trainer(DiscreteDummyEnv, algorithm_config=CONFIG, run_dir=tmp_path / "two", track=False)
        trainer.load(tmp_path / "one" / "checkpoints")
        assert caplog.text.count("is of another run than") == 1
        train(None, 4, trainer)
        caplog.clear()
        assert resume(tmp_path / "two").steps == 4
        assert caplog.text == ""
        # Without a directory a trainer is no run.
        alone = Trainer(DiscreteDummyEnv, algorithm_config=CONFIG, track=False)
        alone.load(tmp_path / "one" / "checkpoints")
        assert caplog.text == ""

    def test_a_copied_run_goes_on(self, tmp_path, caplog):
        train(tmp_path / "one", 2)
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        train(None, 4, Trainer.resume(tmp_path / "two", track=False))
        assert resume(tmp_path / "two").steps == 4
        assert caplog.text == ""

    def test_runs_without_one_go_on(self, tmp_path, caplog):
        train(tmp_path / "run", 2)
        edit(tmp_path / "run", lambda said: said.pop("id"))
        with pytest.raises(
            CheckpointError, match=r"of another run: its id is .*, here it is none: .*write `id: "
        ):
            resume(tmp_path / "run")
        for path in (tmp_path / "run" / "checkpoints").glob("ckpt-*"):
            said = json.loads((path / "manifest.json").read_bytes())
            # As rlstack 0.1.0 wrote them.
            for key in ("checksum", "info.run", "info.config", "info.params"):
                (said["info"] if "." in key else said).pop(key.rpartition(".")[2])
            (path / "manifest.json").write_bytes(checkpoint.seal(said))
        caplog.clear()
        train(None, 4, Trainer.resume(tmp_path / "run", track=False))
        assert resume(tmp_path / "run").steps == 4
        assert caplog.text == ""

    @pytest.mark.parametrize("wrong", [3, None, ["x"]])
    def test_an_identity_that_is_none_is_refused(self, tmp_path, wrong):
        train(tmp_path / "run", 1)
        edit(tmp_path / "run", lambda said: said.update(id=wrong))
        with pytest.raises(ConfigError, match="id is"):
            resume(tmp_path / "run")


class TestEditedConfig:
    def test_a_lost_line_is_refused_by_name(self, tmp_path):
        train(tmp_path / "run", 1, env_config={"bounds": 50.0}, optimizer_config={"lr": 0.01})
        whole = (tmp_path / "run" / "config.yaml").read_text()
        for line, said in {
            "  gamma: 0.5\n": "no gamma, which was 0.5",
            "  horizon: 2\n": "no horizon, which was 2",
            "    bounds: 50.0\n": r"no env_config\.bounds, which was 50\.0",
            "    lr: 0.01\n": r"no optimizer_config\.lr, which was 0\.01",
        }.items():
            assert line in whole
            (tmp_path / "run" / "config.yaml").write_text(whole.replace(line, ""))
            with pytest.raises(ConfigError, match=said):
                resume(tmp_path / "run")
        lines = whole.replace("  gamma: 0.5\n", "")
        (tmp_path / "run" / "config.yaml").write_text(lines)
        assert resume(tmp_path / "run", algorithm_config={"gamma": 0.9}).algorithm.hparams.gamma == 0.9

    @pytest.mark.parametrize("key", ["env", "algorithm", "algorithm_config", "trainer"])
    def test_a_lost_key_of_the_first_level_is_named(self, key, tmp_path):
        train(tmp_path / "run", 1)
        edit(tmp_path / "run", lambda said: said.pop(key))
        with pytest.raises(ConfigError, match=f"config.yaml lacks `{key}:`: put back"):
            resume(tmp_path / "run")

    def test_how_it_was_trained_does_not_become_a_default(self, tmp_path, caplog):
        train(tmp_path / "run", 1)
        whole = (tmp_path / "run" / "config.yaml").read_text()
        for line, said in {
            "  on_nonfinite: raise\n": r"no trainer\.on_nonfinite, which was raise: put it back",
            "    keep: 3\n": r"no trainer\.checkpoint_config\.keep, which was 3: put it back",
        }.items():
            assert line in whole
            (tmp_path / "run" / "config.yaml").write_text(whole.replace(line, ""))
            with pytest.raises(ConfigError, match=said):
                resume(tmp_path / "run")
        (tmp_path / "run" / "config.yaml").write_text(whole.replace("    keep: 3\n", "    keep: 5\n"))
        caplog.clear()
        again = resume(tmp_path / "run")
        assert again.run_dir.options.keep == 5
        assert caplog.messages[0].endswith("ckpt-000000001: trainer.checkpoint_config.keep is 5 and was 3")

    def test_what_the_command_line_said_does_not_either(self, tmp_path):
        stop = "- HitsUpperBound: {key: algorithm/steps, bound: 1}\n"
        (tmp_path / "a.yaml").write_text(f"trainer: {{steps_per_eval: 1}}\nstop_conditions:\n{stop}")
        tiny = ["num_envs=2", "horizon=2", "sgd_minibatch_size=2", "device=cpu", "--tracking", "off"]
        command = ["train", "cartpole", "-f", f"{tmp_path}/a.yaml", *tiny, "--run-dir", f"{tmp_path}/run"]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        for key, said in {
            "trainer": r"no trainer\.steps_per_eval, which was 1",
            "stop_conditions": r"no stop_conditions, which was \[.*bound",
        }.items():
            run = shutil.copytree(tmp_path / "run", tmp_path / key)
            edit(
                run,
                lambda whole, key=key: (
                    whole[key].pop("steps_per_eval") if key == "trainer" else whole.pop(key)
                ),
            )
            with pytest.raises(ConfigError, match=said):
                resume(run)
        resume(tmp_path / "run")

    def test_what_the_model_is_made_with_is_named_too(self, tmp_path):
        train(tmp_path / "run", 1)
        edit(tmp_path / "run", lambda said: said["algorithm_config"].pop("model_config"))
        with pytest.raises(ConfigError, match=r"no model_config\.hiddens, which was \[16\]"):
            resume(tmp_path / "run")

    def test_a_lost_line_that_says_a_default_costs_nothing(self, tmp_path, caplog):
        train(tmp_path / "run", 1)
        edit(tmp_path / "run", lambda said: said["algorithm_config"].pop("gae_lambda"))
        resume(tmp_path / "run")
        assert caplog.text == ""

    def test_what_was_edited_is_used_and_said_until_a_checkpoint_has_it(self, tmp_path, caplog):
        train(tmp_path / "run", 1, env_config={"bounds": 50.0})

        def change(said):
            said["algorithm_config"].update(gamma=0.9, env_config={"bounds": 60}, entropy_coeff=0)

        edit(tmp_path / "run", change)
        again = Trainer.resume(tmp_path / "run", track=False)
        assert again.algorithm.hparams.gamma == 0.9
        said = [record.message for record in caplog.records if "was edited" in record.message]
        assert len(said) == 1
        assert "gamma is 0.9 and was 0.5" in said[0]
        assert "env_config.bounds is 60 and was 50.0" in said[0]
        assert "entropy" not in said[0]
        train(None, 2, again)
        caplog.clear()
        resume(tmp_path / "run")
        assert caplog.text == ""

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"model_config": None, "device": "auto", "seed": 3},
            {"lr_schedule": ((0, 1e-3), (100, 1)), "max_grad_norm": None, "horizon": 7},
            {"optimizer_cls": torch.optim.SGD, "optimizer_config": {"momentum": 1e-1}},
            {"algorithm_cls": RecurrentAlgorithm, "model_config": {"hidden_size": 4}, "seq_len": 1},
            {"env_config": {"bounds": 1000.0}, "horizons_per_env_reset": -1, "grad_block_size": None},
        ],
    )
    def test_sound_runs_go_on_without_a_word(self, tmp_path, caplog, changes):
        options = {**CONFIG, **changes}
        trainer = Trainer(
            DiscreteDummyEnv,
            algorithm_cls=options.pop("algorithm_cls", Trainer.__init__.__kwdefaults__["algorithm_cls"]),
            algorithm_config=options,
            run_dir=tmp_path / "run",
            track=False,
        )
        train(None, 1, trainer)
        train(None, 2, Trainer.resume(tmp_path / "run", track=False))
        assert resume(tmp_path / "run").steps == 2
        assert caplog.text == ""


class TakesAnything(DiscreteDummyEnv):
    """It takes any option and keeps none."""

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, device=device)


class Color(Enum):
    RED = 1


class Level(IntEnum):
    LOW = 1


class TestWhatNoFileCanHold:
    def start(self, run, options):
        trainer = Trainer(
            TakesAnything, algorithm_config={**CONFIG, "env_config": options}, run_dir=run, track=False
        )
        return train(None, 1, trainer)

    def test_values_with_a_plain_form_are_that(self, tmp_path, caplog):
        held = {"file": Path("a/b"), "size": (1, 2.0), "count": np.int64(3), "level": Level.LOW, "none": None}
        self.start(tmp_path / "run", held)
        again = resume(tmp_path / "run")
        plain = {"file": "a/b", "size": [1, 2.0], "count": 3, "level": 1, "none": None}
        assert again.algorithm.hparams.env_config == plain
        assert caplog.text == ""

    @pytest.mark.parametrize(
        "value",
        [torch.float32, Color.RED, {1, 2}, torch.zeros(2), np.zeros(2), torch.nn.ReLU, len, {1: 2}, b"x"],
        ids=str,
    )
    def test_others_are_named_before_training_and_have_to_be_handed_over(self, value, tmp_path, caplog):
        run, options = tmp_path / "run", {"deep": {"x": [value]}, "y": 1}
        self.start(run, options)
        [said] = caplog.messages
        assert said.startswith(
            f"{run}/config.yaml can't hold env_config.deep.x: to go on, hand it over in Python,"
        )
        for go_on in (
            resume,
            lambda run: evaluate(run, **JUDGED),
            lambda run: RunConfig.read(run / "config.yaml"),
        ):
            with pytest.raises(ConfigError, match=r"can't hold env_config\.deep\.x: .*'env_config': …"):
                go_on(run)
        caplog.clear()
        again = resume(run, algorithm_config={"env_config": options})
        assert again.algorithm.hparams.env_config["deep"]["x"][0] is value
        assert caplog.text == ""
