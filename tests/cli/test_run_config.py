"""Configuration files: everything wrong is said at once, and Windows' encodings are read."""

import re

import pytest
from click.testing import CliRunner

from rlstack.cli.app import main
from rlstack.cli.run_config import RunConfig
from rlstack.common.errors import ConfigError
from rlstack.runs.yaml_format import decode

WRONG = """
env: cartpol
algorithm_confg: {}
algorithm_config:
  horzon: 3
  gamma: 1.5
  lr_schedule: [[a, b], [c, d]]
  model_cls: nowhere.py:MM
  optimizer_cls: torch.optim.Adamm
stop_conditions:
  - HitsUpperBound: {key: 3, bnd: 4}
  - Or: [{TimesOut: {}}, 3]
  - Nothing: {}
trainer:
  steps_per_evall: 3
  on_nonfinite: never
  checkpoint_config: {kep: 1, keep: 0}
"""
SAID = [
    "algorithm_confg is not a key: did you mean algorithm_config?",
    "cartpol is not a built-in environment: did you mean cartpole?, or module:Class",
    "trainer.steps_per_evall is not a key: did you mean steps_per_eval?",
    "trainer.on_nonfinite is 'never', expected 'raise', 'skip' or 'restore'",
    "trainer.checkpoint_config.kep is not an option of checkpoint_config: did you mean keep?",
    "trainer.checkpoint_config.keep is 0, expected a number at least 1",
    "algorithm_config.model_cls is nowhere.py:MM: there is no file {here}/nowhere.py",
    "algorithm_config.optimizer_cls is torch.optim.Adamm: torch.optim has no Adamm: did you mean Adam?",
    "algorithm_config.horzon is not a hyperparameter: did you mean horizon?",
    "algorithm_config.lr_schedule is 'a', expected ",
    "algorithm_config.gamma is 1.5, expected a number at most 1.0",
    "stop_conditions[0].HitsUpperBound.bnd is not an option of HitsUpperBound: did you mean bound?",
    "stop_conditions[0].HitsUpperBound.key is 3, expected a text",
    "stop_conditions[0].HitsUpperBound lacks bound",
    "stop_conditions[1].Or[0].TimesOut lacks seconds",
    "stop_conditions[1].Or[1] is 3, expected one name with arguments, like TimesOut: {{seconds: 60}}",
    "stop_conditions[2] is Nothing: expected one of ",
]


def test_all_mistakes_are_said_at_once(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(WRONG)
    result = CliRunner().invoke(main, ["train", "-f", str(file)])
    assert result.exit_code == 2
    lines = result.stderr.removeprefix("rlstack: ").splitlines()
    assert len(lines) == len(SAID), result.stderr
    for line, said in zip(lines, SAID, strict=True):
        assert line.startswith(f"{file}: {said.format(here=tmp_path)}")


def test_an_environment_that_isnt_used_may_be_missing(tmp_path):
    (tmp_path / "x.yaml").write_text("env: nowhere:Env")
    assert RunConfig.read(tmp_path / "x.yaml").env == "nowhere:Env"
    with pytest.raises(ConfigError, match="there is no module nowhere"):
        RunConfig.read(tmp_path / "x.yaml", own_env=True)


def test_very_many_mistakes_are_counted(tmp_path):
    (tmp_path / "x.yaml").write_text("\n".join(f"key{n}: 1" for n in range(40)))
    result = CliRunner().invoke(main, ["train", "-f", str(tmp_path / "x.yaml")])
    lines = result.stderr.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "and 20 more"


def test_the_same_holds_for_the_command_line():
    result = CliRunner().invoke(main, ["train", "cartpole", "horzon=3", "gamma=x"])
    assert result.stderr.splitlines() == [
        "rlstack: horzon is not a hyperparameter: did you mean horizon?",
        "gamma is 'x', expected a number",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(encoding, tmp_path):
    text = "env: größe/thermo.py:Thermo\r\nalgorithm_config: {horizon: 3}\r\n"
    (tmp_path / "x.yaml").write_bytes(text.encode(encoding))
    asked = RunConfig.read(tmp_path / "x.yaml")
    assert asked.env == f"{tmp_path}/größe/thermo.py:Thermo"
    assert asked.algorithm_config == {"horizon": 3}


def test_a_config_of_a_run_in_another_encoding(tmp_path, tracked):
    tiny = ["num_envs=8", "horizon=8", "sgd_minibatch_size=None", "--tracking", "off"]
    command = ["train", "cartpole", *tiny, "--max-updates", "1", "--run-dir", "out"]
    assert CliRunner().invoke(main, command).exit_code == 0
    file = tmp_path / "out" / "config.yaml"
    file.write_bytes(file.read_text().encode("utf-16"))
    command = ["train", "--resume", "out", "--max-updates", "2", "--tracking", "off"]
    assert CliRunner().invoke(main, command).exit_code == 0
    file.write_bytes("größe: 1".encode("latin-1"))
    for command in (["train", "--resume", "out"], ["train", "-f", "out/config.yaml"]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 2
        assert "config.yaml: byte 2 (line 1) is 0xf6, expected UTF-8: save it as UTF-8\n" in result.output


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("a: 1\nb: größe".encode("latin-1"), "byte 10 (line 2) is 0xf6, expected UTF-8"),
        (
            "a: 1".encode("utf-16-le"),
            "byte 1 (line 1) is 0x00, as in UTF-16 without a byte order mark, expected",
        ),
        ("\na: 1".encode("utf-16-be"), "byte 0 (line 1) is 0x00, as in UTF-16 without"),
        (
            "a: 1".encode("utf-16")[:-1],
            "byte 8 (line 1) is 0x31, expected UTF-16, as its byte order mark says",
        ),
    ],
)
def test_which_encoding_is_expected(data, said):
    with pytest.raises(ConfigError, match=re.escape(f"x.yaml: {said}")):
        decode(data, "x.yaml")
