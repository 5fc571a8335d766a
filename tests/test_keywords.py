"""What editors, `help` and `inspect.signature` know of hyperparameters, and what others call them."""

import inspect
import json
import pydoc
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
from click.testing import CliRunner

import rlstack
from rlstack import Algorithm, HparamsError, RecurrentAlgorithm, Trainer
from rlstack.cli.app import main
from rlstack.cli.run_config import RunConfig
from rlstack.common.fields import meanings
from rlstack.common.other_names import ELSEWHERE, LIBRARIES, TABLE
from rlstack.env import DiscreteDummyEnv

ROOT = Path(__file__).parent.parent
KINDS = [
    (Algorithm, rlstack.Hparams, rlstack.HparamsDict),
    (RecurrentAlgorithm, rlstack.RecurrentHparams, rlstack.RecurrentHparamsDict),
]


@pytest.mark.parametrize(("cls", "hparams_cls", "keywords"), KINDS)
def test_keywords_are_the_hyperparameters(cls, hparams_cls, keywords):
    assert get_type_hints(keywords) == get_type_hints(hparams_cls)
    assert not keywords.__required_keys__
    assert not re.search("Annotated|FieldInfo", f"{inspect.signature(cls)} {inspect.signature(hparams_cls)}")
    env_cls, *others = inspect.signature(cls).parameters.values()
    assert (env_cls.name, env_cls.kind) == ("env_cls", env_cls.POSITIONAL_ONLY)
    assert {entry.name: entry.default for entry in others} == {
        field.name: field.default for field in fields(hparams_cls)
    }
    assert {entry.name: entry.annotation for entry in others} == get_type_hints(hparams_cls)
    assert [*inspect.signature(hparams_cls).parameters.values()] == others
    inspect.signature(cls).bind(DiscreteDummyEnv, num_envs=3)
    with pytest.raises(TypeError, match="horzon"):
        inspect.signature(cls).bind(DiscreteDummyEnv, horzon=3)


@pytest.mark.parametrize(("cls", "hparams_cls", "keywords"), KINDS)
def test_help_says_what_each_means(cls, hparams_cls, keywords):
    said = meanings(hparams_cls)
    assert list(said) == [field.name for field in fields(hparams_cls)]
    for described in (cls, hparams_cls):
        text = pydoc.plain(pydoc.render_doc(described))
        flat = " ".join(text.replace("|", " ").split())
        for name, meaning in said.items():
            assert f"{name}: {meaning}" in flat
        assert max(map(len, described.__doc__.splitlines())) <= 110
    assert cls.__doc__.index("Examples:") < cls.__doc__.index("Hyperparameters:")


SAMPLE = """
import json
from collections.abc import Mapping
from typing import Any
import torch
from rlstack import Algorithm, HparamsDict, RecurrentAlgorithm, Trainer
from rlstack.env import DiscreteDummyEnv

Algorithm(DiscreteDummyEnv, num_envs=8, gamma=1, sgd_minibatch_size=None, optimizer_cls=torch.optim.SGD)
RecurrentAlgorithm(DiscreteDummyEnv, seq_len=2, lr_schedule=[(0, 1e-3), (100, 0)], engine="eager")
config: HparamsDict = {"horizon": 8, "optimizer_config": {"lr": 1e-3}}
Algorithm(DiscreteDummyEnv, **config)
Trainer(DiscreteDummyEnv, algorithm_config=config)
Trainer(DiscreteDummyEnv, algorithm_config={"seq_len": 4})
plain: dict[str, Any] = {"num_envs": 8}
Trainer(DiscreteDummyEnv, algorithm_config=plain)
Trainer(DiscreteDummyEnv, algorithm_config={})
Trainer(DiscreteDummyEnv, algorithm_config=None)
Trainer(DiscreteDummyEnv, algorithm_config={**config, "gamma": 0.9})
Trainer(DiscreteDummyEnv, algorithm_config=json.loads('{"num_envs": 8}'))
Trainer.resume("run", algorithm_config=plain)
Algorithm(DiscreteDummyEnv, **plain)
Algorithm(DiscreteDummyEnv, **{**plain, "num_envs": 4})
def read(values: Mapping[str, Any]) -> None:
    Algorithm(DiscreteDummyEnv, **values)
    Trainer(DiscreteDummyEnv, algorithm_config=values)
Trainer(DiscreteDummyEnv, algorithm_config={"horzon": 8})  # wrong
Trainer(DiscreteDummyEnv, algorithm_config={"num_envs": 8, "horzon": 8, "engine": "eager"})  # wrong
Trainer(DiscreteDummyEnv, algorithm_config={"num_envs": "8"})  # wrong
Trainer(DiscreteDummyEnv, algorithm_config=dict(horzon=8))  # wrong
Trainer.resume("run", algorithm_config={"learning_rate": 1e-3})  # wrong
Algorithm(DiscreteDummyEnv, horzon=8)  # wrong
Algorithm(DiscreteDummyEnv, seq_len=2)  # wrong
Algorithm(DiscreteDummyEnv, num_envs="8")  # wrong
RecurrentAlgorithm(DiscreteDummyEnv, engine="fast")  # wrong
other: HparamsDict = {"learning_rate": 1e-3}  # wrong
"""


def test_a_static_checker_knows_them(tmp_path):
    every = "".join(f"{name}=d[{name!r}], " for name in rlstack.RecurrentHparamsDict.__annotations__)
    all_of_them = f"def f(d: RecurrentHparamsDict) -> None: RecurrentAlgorithm(DiscreteDummyEnv, {every})\n"
    code = SAMPLE + "from rlstack import RecurrentHparamsDict\n" + all_of_them
    (tmp_path / "sample.py").write_text(code)
    # To read all of torch takes half a minute; the types of its own count for nothing here.
    config = f"[mypy]\nmypy_path = {ROOT / 'src'}\nfollow_imports = skip\n"
    (tmp_path / "mypy.ini").write_text(f"{config}[mypy-rlstack.*]\nfollow_imports = silent\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", "cache", "--config-file", "mypy.ini", "sample.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    found = {int(line) for line in re.findall(r"sample.py:(\d+): error", done.stdout)}
    lines = enumerate(code.splitlines(), 1)
    assert found == {number for number, line in lines if line.endswith("# wrong")}, done.stdout + done.stderr


def test_the_documented_table_is_the_one_that_errors_use():
    text = (ROOT / "docs/ppo.md").read_text().partition("## Other libraries' names")[2]
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\|.*\|$", text, re.MULTILINE)
    ]
    assert rows[0] == ["rlstack", *LIBRARIES]
    assert rows[2:] == [[f"`{ours}`", *cells] for ours, cells in TABLE.items()]
    own = {field.name for field in fields(rlstack.RecurrentHparams)}
    assert {ours.partition(".")[0] for ours in TABLE} <= own
    theirs = {name for cells in TABLE.values() for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert theirs - own <= ELSEWHERE.keys()
    assert not ELSEWHERE.keys() & {field.name for field in fields(rlstack.Hparams)}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_offered_instead_is_there(name):
    own = {field.name for field in fields(rlstack.Hparams)}
    options = inspect.signature(Trainer).parameters
    said = ELSEWHERE[name]
    if said.startswith("here it is"):
        assert re.match(r"\w+", said.removeprefix("here it is "))[0] in own
    elif "Trainer" in said:
        assert name in options or "Trainer's stop_conditions" in said
    else:
        assert name in {field.name for field in fields(rlstack.RecurrentHparams)} - own


SAID = {
    "learning_rate": 'here it is optimizer_config={"lr": …}, on the command line optimizer_config.lr=…',
    "lr": 'here it is optimizer_config={"lr": …}',
    "n_steps": "here it is horizon",
    "n_epochs": "here it is num_sgd_iters",
    "batch_size": "here it is sgd_minibatch_size",
    "ent_coef": "here it is entropy_coeff",
    "num_mini_batches": "here it is sgd_minibatch_size, num_envs · horizon divided by their number",
    "lambda": "here it is gae_lambda",
    "total_timesteps": "Trainer's stop_conditions",
    "run_dir": "it is an option of Trainer",
    "seq_len": "it is one of RecurrentAlgorithm",
    "seqs_per_state_reset": "it is one of RecurrentAlgorithm",
}


@pytest.mark.parametrize("name", SAID)
def test_other_names_are_told_from_everywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = re.escape(f"{name} is not a hyperparameter: ") + ".*" + re.escape(SAID[name])
    with pytest.raises(HparamsError, match=words):
        Algorithm(DiscreteDummyEnv, **{name: 1})
    with pytest.raises(HparamsError, match=words):
        Trainer(DiscreteDummyEnv, algorithm_config={name: 1})
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"env": "cartpole", "algorithm_config": {name: 1}}))
    with pytest.raises(HparamsError, match=re.escape("config.yaml: algorithm_config.") + words):
        RunConfig.read(file)
    done = CliRunner().invoke(main, ["train", "cartpole", f"{name}=1", "--tracking", "off"])
    assert done.exit_code == 2
    assert re.search(words, done.output)


def test_a_slip_of_the_pen_is_still_told():
    with pytest.raises(HparamsError, match="horzon is not a hyperparameter: did you mean horizon"):
        Algorithm(DiscreteDummyEnv, horzon=1)
    with pytest.raises(HparamsError, match="seq_length is not a hyperparameter: did you mean seq_len"):
        RecurrentAlgorithm(DiscreteDummyEnv, seq_length=1)
