"""The command line, mostly as real processes."""

import errno
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields

import mlflow
import pytest
import torch
from click.testing import CliRunner

from rlstack import Algorithm, Policy, Trainer
from rlstack.cli.app import main
from rlstack.cli.arguments import parse_assignments
from rlstack.cli.goals import Limits
from rlstack.cli.recipes import RECIPES
from rlstack.cli.run_config import RunConfig
from rlstack.common.nested import merge
from rlstack.common.serialization import pack
from rlstack.conditions import HitsUpperBound, Plateaus, any_of
from rlstack.env import CartPole, DiscreteDummyEnv
from rlstack.hparams import Hparams, RecurrentHparams
from rlstack.runs import checkpoint
from rlstack.specs import Categorical
from rlstack.tracking.journal import JOURNAL, read_rows

from ..helpers import OWN_RECIPES

TINY = ["num_envs=8", "horizon=8", "sgd_minibatch_size=None", "model_config.hiddens=[8]", "device=cpu"]


def rlstack(*arguments, cwd, **options):
    command = [sys.executable, "-m", "rlstack", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, **options)


class TestAssignments:
    def test_values(self):
        texts = (
            "a=1",
            "b=1e-3",
            "c=[64,64]",
            "d=None",
            "e=null",
            "f=True",
            "g=false",
            "h=relu",
            "i.j=0.7",
            "i.k.l='x=y'",
            "m=(1,2)",
        )
        assert parse_assignments(texts) == {
            "a": 1, "b": 1e-3, "c": [64, 64], "d": None, "e": None, "f": True, "g": False, "h": "relu",
            "i": {"j": 0.7, "k": {"l": "x=y"}}, "m": (1, 2),
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            (["horizon"], "'horizon' is not of the form key=value"),
            (["=3"], "not of the form"),
            (["a..b=3"], "not of the form"),
            (["a=1", "a=2"], "a is given twice"),
            (["a=1", "a.b=2"], "both as a value and as options"),
        ],
    )
    def test_errors(self, texts, message):
        result = CliRunner().invoke(main, ["train", "cartpole", *texts])
        assert result.exit_code == 2
        assert message in result.output

    def test_go_before_the_recipes(self):
        assert merge({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}, "e": {"f": 5}}) == {
            "a": 1, "b": {"c": 4, "d": 3}, "e": {"f": 5},
        }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cartpol"], "cartpol is not a built-in environment: did you mean cartpole?"),
        (["nowhere:Env"], "nowhere:Env: there is no module nowhere"),
        (["rlstack.env:CartPol"], "did you mean CartPole?"),
        ([":Env"], ":Env is not of the form module:Class"),
        (["rlstack.env:"], "is not of the form module:Class"),
        (["rlstack.env:__all_"], "rlstack.env:__all_: rlstack.env has no __all_"),
        (["broken:Env"], "broken:Env: importing it raised ZeroDivisionError"),
        (["cartpole", "--run-dir", "broken.py/out"], "/broken.py/out can't be used: Not a directory"),
        (["cartpole", "horizon={[1]:2}"], "horizon is '{[1]:2}', expected an integer"),
        (["cartpole", "horzon=3"], "horzon is not a hyperparameter: did you mean horizon?"),
        (["cartpole", "horizon=x"], "horizon is 'x', expected an integer"),
        (["cartpole", "horizon=64", "sgd_minibatch_size=7"], "expected a divisor"),
        (["cartpole", "model_config.hidens=[3]"], "did you mean hiddens?"),
        (["cartpole", "model_config.activation_fn=rely"], "did you mean relu?"),
        (["cartpole", "--max-time", "soon"], "'soon' is not a time"),
        (["cartpole", "--max-updates", "0"], "0 is not in the range"),
    ],
)
def test_usage_errors_are_short_and_exit_with_2(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("1 / 0")
    result = CliRunner().invoke(main, ["train", *arguments])
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert len(result.stderr.splitlines()) <= 4
    assert {path.name for path in tmp_path.iterdir()} <= {"broken.py", "__pycache__"}


def test_a_full_disk_is_named_with_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    result = CliRunner().invoke(main, ["train", "cartpole", *TINY, "--run-dir", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert result.output == f"rlstack: {tmp_path}/run/config.yaml can't be used: No space left on device\n"


@pytest.mark.parametrize(("option", "code"), [("env_config.lenth_=1", 3), ("env_config.length=0.0", 4)])
def test_faults_of_environments_have_exit_codes(option, code, tracked, tmp_path):
    result = CliRunner().invoke(main, ["train", "cartpole", *TINY, option])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("text", ["90", "90s", "1.5m", "0.025h"])
def test_durations(text, monkeypatch):
    limits = []
    monkeypatch.setattr("rlstack.cli.train.train", lambda *args, **kwargs: limits.append(args[1]))
    assert CliRunner().invoke(main, ["train", "cartpole", "--max-time", text]).exit_code == 0
    assert limits[0].max_time == 90


def test_limits_tell_the_share_that_is_done():
    stats = {"algorithm/steps": 5.0, "env/total_steps": 30.0}
    assert any_of(Limits().conditions()).share(stats) is None
    assert any_of(Limits(max_updates=10).conditions()).share(stats) == 0.5
    limits = Limits(max_updates=10, max_env_steps=40, max_time=1e9)
    assert any_of([*limits.conditions(), HitsUpperBound("returns/mean", 1.0)]).share(stats) == 0.75
    assert any_of(Limits(max_env_steps=20).conditions()).share(stats) == 1
    assert any_of(Limits(max_time=1e-9).conditions()).share(stats) == 1
    assert any_of([Plateaus("returns/mean")]).share(stats) is None


class TestTrain:
    def test_solves_cartpole_and_leaves_its_results(self, tracked, tmp_path, mlflow_uri):
        done = rlstack("train", "cartpole", "--seed", "0", "--max-time", "3m", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Solved: all of 64 poles stay within Gymnasium's limits for 500 steps" in done.stdout
        [directory] = (tmp_path / "runs").iterdir()
        assert re.fullmatch(r"cartpole-\d{8}-1", directory.name)
        for line in (f"Policy:         runs/{directory.name}/policy.safetensors", "Learning curve: runs/"):
            assert line in done.stdout
        assert (directory / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
        policy = Policy.load(directory / "policy.safetensors")
        assert RECIPES["cartpole"].score(policy) == 1
        run_id = re.search(r"Tracked run: +(\w{32})", done.stdout)[1]
        run = mlflow.MlflowClient(mlflow_uri).get_run(run_id)
        assert run.data.params["seed"] == "0"
        assert run.data.metrics["algorithm/steps"] == float(re.search(r"after (\d+) updates", done.stdout)[1])

    def test_environments_of_ones_own(self, tracked, tmp_path):
        (tmp_path / "mine.py").write_text(
            "from rlstack.env import CartPole\nclass Mine(CartPole.__mro__[1]): pass\nEnv = CartPole\n"
        )
        done = rlstack(
            "train",
            "mine:Env",
            *TINY,
            "env_config.length=0.7",
            "--max-env-steps",
            "192",
            "--run-dir",
            "out",
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert "Done, after 3 updates" in done.stdout
        assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == [
            "checkpoints",
            "config.yaml",
            "learning_curve.png",
            "metrics.jsonl",
            "policy.safetensors",
            "tracking.json",
        ]
        assert Policy.load(tmp_path / "out" / "policy.safetensors").model.config["hiddens"] == [8]

    def test_run_directories_are_numbered(self, tracked, tmp_path):
        for _ in range(2):
            assert CliRunner().invoke(main, ["train", "cartpole", *TINY, "--max-updates", "1"]).exit_code == 0
        assert sorted(path.name[-2:] for path in (tmp_path / "runs").iterdir()) == ["-1", "-2"]

    def test_ctrl_c_exits_with_130_and_keeps_the_policy(self, tracked, tmp_path):
        command = [
            sys.executable,
            "-m",
            "rlstack",
            "train",
            "discrete-dummy",
            *TINY,
            "env_config.bounds=1e5",
            "--run-dir",
            "out",
        ]
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while "update" not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=120)
        assert process.returncode == 130, errors
        assert "Interrupted, not solved" in rest
        assert (tmp_path / "out" / "policy.safetensors").exists()
        assert "Traceback" not in errors

    def test_a_terminal_gets_a_live_line(self, tracked, tmp_path):
        leader, follower = pty.openpty()
        command = [sys.executable, "-m", "rlstack", "train", "cartpole", *TINY, "--max-updates", "40"]
        command += ["--tracking", "off"]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=follower,
            stderr=follower,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "160"},
        )
        os.close(follower)
        output, deadline = b"", time.monotonic() + 120
        while process.poll() is None or select.select([leader], [], [], 0.2)[0]:
            assert time.monotonic() < deadline
            try:
                output += os.read(leader, 65536) if select.select([leader], [], [], 0.2)[0] else b""
            except OSError:
                break
        assert process.wait() == 0
        text = output.decode()
        assert "\x1b[" in text
        assert "steps/s" in text
        assert "\r" in text

    def test_without_matplotlib_it_says_so(self, tracked, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        result = CliRunner().invoke(main, ["train", "cartpole", *TINY, "--max-updates", "1"])
        assert result.exit_code == 0
        assert "Learning curve: not drawn, it needs matplotlib: pip install 'rlstack[viz]'" in result.output


@pytest.mark.parametrize("name", OWN_RECIPES)
def test_recipes_are_judged(name):
    recipe = RECIPES[name]
    cls = recipe.env_cls()
    env = cls(1)

    algorithm = Algorithm(
        cls, **{**recipe.hyperparameters, "num_envs": 8, "horizon": 8, "sgd_minibatch_size": None}
    )
    before = torch.get_rng_state()
    score = recipe.score(algorithm.policy)
    assert torch.equal(torch.get_rng_state(), before)
    # Nobody solves it untrained.
    assert score < recipe.target
    assert set(recipe.eval_config) <= set(env.config)


def test_recipes_are_judged_on_the_environment_that_was_trained():
    recipe, made = RECIPES["discrete-dummy"], []
    policy = Algorithm(recipe.env_cls(), num_envs=2, horizon=2).policy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(recipe),
            "env_cls",
            lambda self: lambda n, **kwargs: made.append(kwargs["config"]) or DiscreteDummyEnv(n, **kwargs),
        )
        recipe.score(policy, {"bounds": 100.0})
    assert made == [{"bounds": 100.0}]


def test_the_judge_of_cartpole_sees_limits():
    obs, rewards, ended = torch.zeros(5, 4, 4), torch.zeros(5, 4, 1), torch.zeros(5, 4, 1, dtype=torch.bool)
    judge = RECIPES["cartpole"].judge
    assert judge(obs, rewards, ended) == 1
    obs[2, 0, 0], obs[3, 1, 2] = 2.5, -0.22
    assert judge(obs, rewards, ended) == 0.5
    assert CartPole(1).config["x_threshold"] == 2.4


def test_the_judge_of_episodes_takes_the_first_ones():
    ended = torch.zeros(6, 2, 1, dtype=torch.bool)
    ended[1, 0] = ended[3, 0] = ended[4, 1] = True
    rewards = torch.arange(12.0).view(6, 2, 1)
    # 0 + 2 and 1 + 3 + 5 + 7 + 9
    assert RECIPES["cartpole-v1"].judge(torch.zeros(6, 2, 4), rewards, ended) == (2 + 25) / 2


class TestResume:
    COMMAND = ("train", "cartpole", *TINY, "--seed", "5")

    def train(self, directory, *more):
        result = CliRunner().invoke(main, ["train", *more, "--run-dir", str(directory)])
        assert result.exit_code == 0, result.output
        return result.output

    def test_the_same_comes_out_as_without_a_stop(self, tracked, tmp_path):
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        command = [*self.COMMAND[1:], "--resume", "auto", "--max-updates"]
        self.train(whole, *command, "6")
        self.train(parts, *command, "3")
        said = self.train(parts, *command, "6")
        assert f"Going on with {parts} after 3 updates" in said
        one, two = ((path / "policy.safetensors").read_bytes() for path in (whole, parts))
        assert one == two
        states = [checkpoint.read_latest(path / "checkpoints").state for path in (whole, parts)]
        packed = [pack({**state, "random": None}, "state") for state in states]
        assert packed[0][0] == packed[1][0]
        assert all(torch.equal(value, packed[1][1][name]) for name, value in packed[0][1].items())

    def test_a_directory_is_enough(self, tracked, tmp_path):
        out = tmp_path / "out"
        self.train(out, *self.COMMAND[1:], "--max-updates", "2")
        result = CliRunner().invoke(main, ["train", "--resume", str(out), "--max-updates", "3"])
        assert result.exit_code == 0, result.output
        assert "after 3 updates" in result.output
        assert "Training out until all of 64 poles" in result.output

    def test_auto_finds_the_last_run_of_an_environment(self, tracked, tmp_path):
        for updates in ("2", "2"):
            command = [*self.COMMAND, "--max-updates", updates]
            assert CliRunner().invoke(main, command).exit_code == 0
        result = CliRunner().invoke(main, [*self.COMMAND, "--max-updates", "3", "--resume", "auto"])
        assert result.exit_code == 0, result.output
        [last] = (tmp_path / "runs").glob("cartpole-*-2")
        assert f"Going on with runs/{last.name} after 2 updates" in result.output

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["--resume", "nowhere"], 2, "nowhere is not a run directory"),
            (["--resume", "auto"], 2, "there is no environment"),
            (["horizon=3"], 2, "name the environment first"),
            ([], 2, "there is no environment: give module:Class, or one of cartpole"),
        ],
    )
    def test_mistakes(self, arguments, code, message, tracked, tmp_path):
        result = CliRunner().invoke(main, ["train", *arguments])
        assert result.exit_code == code
        assert message in result.output
        assert list(tmp_path.iterdir()) == []

    def test_a_run_without_a_sound_checkpoint_exits_with_5(self, tracked, tmp_path):
        out = tmp_path / "out"
        self.train(out, *self.COMMAND[1:], "--max-updates", "1")
        (out / "checkpoints" / "ckpt-000000001" / "manifest.json").write_text("{}")
        result = CliRunner().invoke(main, ["train", "--resume", str(out)])
        assert result.exit_code == 5
        assert "has no sound checkpoint" in result.output
        assert CliRunner().invoke(main, ["inspect", str(out)]).exit_code == 5

    def test_a_used_directory_is_no_place_for_a_new_run(self, tracked, tmp_path):
        out = tmp_path / "out"
        self.train(out, *self.COMMAND[1:], "--max-updates", "1")
        result = CliRunner().invoke(main, [*self.COMMAND, "--run-dir", str(out)])
        assert result.exit_code == 2
        assert "holds checkpoints of a run: use Trainer.resume, on the command line --resume" in result.output

    def test_eval_and_inspect(self, tracked, tmp_path):
        out = tmp_path / "out"
        self.train(out, *self.COMMAND[1:], "--max-updates", "2")
        said = json.loads(CliRunner().invoke(main, ["inspect", str(out), "--json"]).output)
        assert said["updates"] in (1, 2)
        assert said["params"]["num_envs"] == "8"
        assert said["policy"]["policy"] == "Policy"
        runs = [
            CliRunner().invoke(main, ["eval", str(out), "--json", "--num-envs", "4", *more])
            for more in ([], [], ["--seed", "1"], ["length=0.9"], ["--steps", "3"])
        ]
        assert all(run.exit_code == 0 for run in runs), runs
        first, again, other, longer, short = (json.loads(run.output) for run in runs)
        assert first == again
        assert first["returns/mean"] != other["returns/mean"]
        assert first["returns/mean"] != longer["returns/mean"]
        assert (first["steps"], short["steps"], first["num_envs"]) == (80, 3, 4)
        shown = CliRunner().invoke(main, ["eval", str(out)]).output
        assert re.search(r"^returns/mean +[\d.]+$", shown, re.MULTILINE)
        faults = CliRunner().invoke(main, ["eval", str(out), "mas_pole=0.9"])
        assert faults.exit_code == 3
        assert "did you mean masspole" in faults.output

    def test_eval_takes_no_more_steps_than_an_environment_allows(self, tmp_path):
        Trainer(Brief, algorithm_config=BRIEF, run_dir=tmp_path / "out", track=False).save()
        result = CliRunner().invoke(main, ["eval", str(tmp_path / "out"), "--json"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.output)["steps"] == 20


class Brief(CartPole):
    """Can't go on for longer than it says."""

    max_horizon = 20

    def reset(self, *, config=None):
        self.taken = 0
        return super().reset(config=config)

    def step(self, action):
        self.taken += 1
        assert self.taken <= self.max_horizon
        return super().step(action)


BRIEF = {"num_envs": 8, "horizon": 8, "model_config": {"hiddens": [8]}, "device": "cpu"}


class TestConfig:
    @pytest.mark.parametrize("algorithm", ["feedforward", "recurrent"])
    def test_prints_what_train_reads(self, algorithm, tmp_path):
        result = CliRunner().invoke(main, ["config", "discrete-dummy", "--algorithm", algorithm])
        assert result.exit_code == 0, result.output
        (tmp_path / "x.yaml").write_text(result.output)
        asked = RunConfig.read(tmp_path / "x.yaml")
        assert asked.algorithm == algorithm
        hparams_cls = {"feedforward": Hparams, "recurrent": RecurrentHparams}[algorithm]
        names = {field.name for field in fields(hparams_cls)} - {"model"}
        assert asked.algorithm_config.keys() == names
        assert asked.algorithm_config["num_envs"] == 1024
        assert asked.algorithm_config["gamma"] == hparams_cls().gamma
        assert asked.algorithm_config["optimizer_cls"] is torch.optim.Adam
        assert "  # Discount factor γ per environment step.\n  gamma: 0.95\n" in result.output

    def test_a_name_that_isnt_one(self):
        result = CliRunner().invoke(main, ["config", "cartpol"])
        assert result.exit_code == 2
        assert "did you mean cartpole?" in result.output


def test_list(tracked, tmp_path):
    assert CliRunner().invoke(main, ["train", "cartpole", *TINY, "--max-updates", "2"]).exit_code == 0
    said = json.loads(CliRunner().invoke(main, ["list", "--json"]).output)
    assert [entry["name"] for entry in said["environments"]] == list(RECIPES)
    [run] = said["runs"]
    assert (run["updates"], run["env_steps"]) == (2, 128)
    said = CliRunner().invoke(main, ["list"]).output.splitlines()[-1]
    assert said == f"runs/{run['name']}  2 updates, returns/mean {run['returns/mean']:.6g}"
    [path] = (tmp_path / "runs" / run["name"] / "checkpoints").glob("ckpt-*")
    (path / "manifest.json").write_text("{}")
    shown = CliRunner().invoke(main, ["list"]).output
    assert f"runs/{run['name']}" in shown
    assert "its checksum is another one" in shown


class TestBench:
    def test_says_what_holds_back(self, tmp_path):
        done = rlstack("bench", "cartpole", *TINY, "--time", "0.2s", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert re.match(r"[\d,]+ transitions/s, a policy update every [\d.,]+ ms\n", done.stdout)
        shares = [int(share) for share in re.findall(r"ms +(\d+)%", done.stdout)]
        assert len(shares) == 3
        assert sum(shares) == pytest.approx(100, abs=2)
        assert "holds training back" in done.stdout.splitlines()[-1]
        assert list(tmp_path.iterdir()) == []

    def test_json(self):
        command = ["bench", "tests.cli.test_cli:Slow", *TINY, "--time", "0.1", "--json"]
        speed = json.loads(CliRunner().invoke(main, command).stdout)
        # Two milliseconds a step, and eight steps, are far more than the rest takes.
        assert speed["environment"] > 0.016
        assert "environment" in speed["bottleneck"]
        assert speed["engine"] == "kernels"

    def test_recurrent_policies(self):
        command = ["bench", "cartpole", *TINY[:3], "device=cpu", "--algorithm", "recurrent", "seq_len=8"]
        done = CliRunner().invoke(main, [*command, "--time", "0.1", "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["num_envs"] == 8

    def test_faults(self):
        done = CliRunner().invoke(main, ["bench", "cartpol"])
        assert done.exit_code == 2
        assert (
            done.stderr
            == "rlstack: cartpol is not a built-in environment: did you mean cartpole?, or module:Class\n"
        )


class Slow(DiscreteDummyEnv.__base__):
    """Takes its time."""

    def __init__(self, num_envs, /, **kwargs):
        super().__init__(num_envs, **kwargs)
        self.action_spec = Categorical(2, shape=(1,))

    def _displacement(self, action):
        time.sleep(0.002)
        return 2 * action - 1


class TestSync:
    def test_sends_the_rest(self, tracked, tmp_path, mlflow_uri, monkeypatch):
        monkeypatch.setattr(
            "rlstack.tracking.mlflow_sender.MlflowSender._send", lambda self, *, everything: 1 / 0
        )
        out = str(tmp_path / "out")
        command = ["train", "cartpole", *TINY, "--max-updates", "3", "--run-dir", out]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        assert f"incomplete; to send them: rlstack sync {out} --tracking {mlflow_uri}" in result.output
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        result = CliRunner().invoke(main, ["sync", out, "--tracking", mlflow_uri, "--json"])
        assert result.exit_code == 0, result.output
        said = json.loads(result.output)
        assert said["status"] == "FINISHED"
        assert len(tracked.get_metric_history(said["run_id"], "returns/mean")) == 3

    @pytest.mark.parametrize(
        ("prepare", "code", "said"),
        [
            (lambda run: None, 2, "is not a run directory"),
            (lambda run: (run / "config.yaml").touch(), 1, "was never tracked"),
        ],
    )
    def test_mistakes(self, prepare, code, said, tmp_path):
        prepare(tmp_path)
        result = CliRunner().invoke(main, ["sync", str(tmp_path)])
        assert (result.exit_code, said in result.output) == (code, True), result.output

    def test_not_while_training(self, tracked, tmp_path):
        trainer = Trainer(
            DiscreteDummyEnv, algorithm_config={"num_envs": 4, "horizon": 4}, run_dir=tmp_path / "out"
        )
        result = CliRunner().invoke(main, ["sync", str(tmp_path / "out")])
        assert (result.exit_code, "in use by another trainer" in result.output) == (2, True)
        trainer.close()


def test_names_are_completed():
    from click.shell_completion import ShellComplete

    complete = ShellComplete(main, {}, "rlstack", "_RLSTACK_COMPLETE")
    names = ["cartpole", "cartpole-v1", "cartpole-swingup"]
    assert [item.value for item in complete.get_completions(["train"], "cart")] == names
    assert "sync" in [item.value for item in complete.get_completions([], "s")]


def test_nonfinite_training_is_skipped_a_bounded_number_of_times(tracked, tmp_path):
    command = ["train", "cartpole", *TINY, "env_config.length=0.0", "--max-updates", "2"]
    result = CliRunner().invoke(
        main, [*command, "--on-nonfinite", "skip", "--run-dir", str(tmp_path / "out")]
    )
    assert result.exit_code == 4
    assert "others in a row" in result.output


@pytest.mark.slow
def test_an_environment_in_a_file(tracked, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "in_a_file.py").write_text(
        "from rlstack.env import DiscreteDummyEnv\nclass Mine(DiscreteDummyEnv.__mro__[1]):\n"
        "    def __init__(self, *a, **k):\n        super().__init__(*a, **k)\n"
        "        self.action_spec = DiscreteDummyEnv(1).action_spec\n"
        "    def _displacement(self, action):\n        return 2 * action - 1\n"
    )
    name = "folder/in_a_file.py:Mine"

    def run(*arguments):
        return rlstack(*arguments, cwd=tmp_path)

    command = ["num_envs=8", "horizon=4", "--tracking", "off", "--max-updates"]
    done = run("train", name, *command, "2", "--run-dir", "out")
    assert done.returncode == 0, done.stderr
    assert "env: ../folder/in_a_file.py:Mine" in (tmp_path / "out" / "config.yaml").read_text()
    done = run("train", "--resume", "out", "--max-updates", "3", "--tracking", "off")
    assert "after 3 updates" in done.stdout, done.stderr
    # Apart from its files, a run needs them named anew, each time.
    shutil.copytree(tmp_path / "out", tmp_path / "far" / "away" / "out")
    alone = run("train", "--resume", "far/away/out", "--tracking", "off")
    assert (alone.returncode, "there is no file" in alone.stderr) == (2, True)
    for updates in ("4", "5"):
        done = run("train", name, "--resume", "far/away/out", "--max-updates", updates, "--tracking", "off")
        assert f"after {updates} updates" in done.stdout, done.stderr
        again = f"To go on:       rlstack train {name} --resume far/away/out --tracking off"
        assert done.stdout.splitlines()[-1] == again
    for arguments in (["eval", "out"], ["eval", "out", "--env", name]):
        done = CliRunner().invoke(main, [*arguments, "--json"])
        assert json.loads(done.stdout)["updates"] in (2, 3), done.output


def test_a_file_named_as_one_of_pythons_own_modules(tmp_path):
    (tmp_path / "random.py").write_text("from rlstack.env import DiscreteDummyEnv as Mine\n")
    command = [
        "train",
        "random.py:Mine",
        *TINY,
        "--tracking",
        "off",
        "--max-updates",
        "1",
        "--run-dir",
        "out",
    ]
    done = rlstack(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Done, after 1 updates" in done.stdout


FILE = """
env: cartpole
algorithm_config: {num_envs: 8, horizon: 8, sgd_minibatch_size: null, model_config: {hiddens: [8]}}
stop_conditions:
  - HitsUpperBound: {key: algorithm/steps, bound: 5}
trainer: {steps_per_eval: 1, checkpoint_config: {every_updates: 1, every_seconds: null}, track: false}
"""


def test_a_resumed_run_is_trained_as_it_was_asked_for(tracked, tmp_path):
    (tmp_path / "config.yaml").write_text(FILE)
    out = tmp_path / "out"
    command = ["train", "-f", "config.yaml", "--run-dir", "out", "--max-updates", "2"]
    assert CliRunner().invoke(main, command).exit_code == 0
    command = [
        "train",
        "--resume",
        "out",
        "--tracking",
        "off",
        "--on-nonfinite",
        "skip",
        "--checkpoint-every",
        "5",
    ]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "after 5 updates" in result.output
    rows = list(read_rows(out / JOURNAL))
    assert ["eval/returns/mean" in row.metrics for row in rows] == [True] * 5
    # Those after the second are from the end of each run.
    assert sorted(path.name for path in (out / "checkpoints").glob("ckpt-*"))[-1] == "ckpt-000000005"
    assert not (out / "checkpoints" / "ckpt-000000003").exists()


@pytest.mark.parametrize("option", [["--algorithm", "recurrent"], ["--run-dir", "other"]])
def test_a_resumed_run_has_its_own(option, tracked, tmp_path):
    (tmp_path / "out").mkdir()
    result = CliRunner().invoke(main, ["train", "--resume", "out", *option])
    assert (result.exit_code, f"leave out {option[0]}" in result.output) == (2, True)


def test_files_that_cannot_be_written_leave_the_exit_code_alone(tracked, tmp_path):
    out = tmp_path / "out"
    (out / "policy.safetensors").mkdir(parents=True)
    (out / "learning_curve.png").mkdir()
    command = ["train", "cartpole", *TINY, "--max-updates", "1", "--run-dir", "out", "--tracking", "off"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "not saved, " in result.output
    assert "not drawn, " in result.output


def test_runs_are_listed_as_people_count(tmp_path):
    names = ["cartpole-20260101-1", "cartpole-20260101-2", "cartpole-20260101-10", "cartpole-20260101-11"]
    for name in (*names, "b", "10", "9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
    said = json.loads(CliRunner().invoke(main, ["list", "--runs", str(tmp_path), "--json"]).output)
    assert [run["name"] for run in said["runs"]] == ["9", "10", "b", *names]


def test_only_warnings_of_other_packages_are_hushed(monkeypatch):
    import warnings

    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        CliRunner().invoke(main, ["list"])
        for module in ("torch.nn", "torchrl", "tensordict._td", "mlflow", "rlstack.models", "torchy", "mine"):
            warnings.warn_explicit("will change", FutureWarning, f"{module}.py", 1, module=module)
    assert [warning.filename for warning in caught] == ["rlstack.models.py", "torchy.py", "mine.py"]
