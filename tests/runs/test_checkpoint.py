"""Checkpoints: whole or not at all, verified, and none of them runs code."""

import json
import os
import shutil

import pytest
import torch

from rlstack import Algorithm, Policy
from rlstack.common.errors import CheckpointError
from rlstack.env import CartPole
from rlstack.runs import checkpoint, kept

from ..helpers import update

INFO = {"collects": 2, "updates": 2, "env_steps": 64, "stats": {"returns/mean": 1.0}}


@pytest.fixture(scope="module")
def algorithm():
    made = Algorithm(CartPole, num_envs=4, horizon=4, model_config={"hiddens": [4]}, device="cpu")
    update(made)
    return made


@pytest.fixture
def write(algorithm, tmp_path):
    def write(number=2):
        return checkpoint.write(
            tmp_path, number, algorithm.policy, algorithm.state_dict(), {**INFO, "updates": number}
        )

    return write


def test_what_is_written_is_read(write, algorithm):
    path = write()
    assert path.name == "ckpt-000000002"
    said = checkpoint.read(path)
    assert said.info == INFO
    assert said.policy == json.loads(json.dumps(algorithm.policy.description))
    expected = algorithm.state_dict()
    assert said.state.keys() == expected.keys()
    for key, value in expected["policy"].items():
        assert torch.equal(said.state["policy"][key], value)
    assert (
        said.state["optimizer"]["optimizer"]["param_groups"]
        == expected["optimizer"]["optimizer"]["param_groups"]
    )
    # The model by itself is a policy like any other.
    assert torch.equal(
        Policy.load(path / "model.safetensors").model.value[0].weight, algorithm.policy.model.value[0].weight
    )


def test_a_sound_one_of_the_same_number_stays_and_a_damaged_one_goes(write):
    path = write()
    before = (path / "manifest.json").read_bytes()
    write()
    assert (path / "manifest.json").read_bytes() == before
    (path / "state.safetensors").write_bytes(b"x")
    write()
    checkpoint.read(path)


def test_the_last_sound_one_is_taken(write, tmp_path, caplog):
    first, second = write(1), write(2)
    assert checkpoint.read_latest(tmp_path).path == second
    (second / "optimizer.safetensors").unlink()
    assert checkpoint.read_latest(tmp_path).path == first
    [said] = caplog.messages
    assert said.startswith(f"{second} can't be read: ")
    assert said.endswith("; ckpt-000000001 is taken")
    shutil.rmtree(first)
    with pytest.raises(CheckpointError, match=r"no sound checkpoint.*ckpt-000000002.*optimizer\.safetensors"):
        checkpoint.read_latest(tmp_path)


def test_no_checkpoint_is_said_to_be_taken_where_there_is_none(write, tmp_path, caplog):
    path = write(1)
    (path / "state.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no sound checkpoint; .*another size"):
        checkpoint.read_latest(path.parent)
    assert caplog.text == ""


def test_pointers_name_checkpoints_of_the_directory_alone(write, tmp_path):
    path = write()
    kept.point(tmp_path, "latest", path)
    assert kept.pointed(tmp_path, "latest") == path
    assert kept.pointed(tmp_path, "best") is None
    for hostile in ("../../etc", "/etc", "ckpt-000000009", "", "\0", "ckpt-000000002/../.."):
        (tmp_path / "latest").write_text(hostile)
        assert kept.pointed(tmp_path, "latest") is None


def test_pruning_keeps_the_last_and_the_best(write, tmp_path):
    paths = [write(number) for number in range(1, 6)]
    kept.point(tmp_path, "best", paths[1])
    (tmp_path / ".ckpt-000000009.123").mkdir()
    kept.prune(tmp_path, 2, paths[4])
    assert checkpoint.numbered(tmp_path) == [paths[4], paths[3], paths[1]]
    assert not list(tmp_path.glob(".*"))


def test_pruning_keeps_what_is_written_after_going_back(write, tmp_path):
    paths = [write(number) for number in (1, 2, 9)]
    (paths[2] / "state.safetensors").write_bytes(b"x")
    last = write(3)
    kept.prune(tmp_path, 1, last)
    assert checkpoint.numbered(tmp_path) == [paths[2], last]
    assert checkpoint.read_latest(tmp_path).path == last


def test_a_renamed_checkpoint_is_damaged(write, tmp_path, caplog):
    first, second = write(1), write(2)
    second.rename(tmp_path / "ckpt-000000120")
    with pytest.raises(CheckpointError, match="ckpt-000000120 is damaged or was renamed: it is of update 2"):
        checkpoint.read(tmp_path / "ckpt-000000120")
    assert checkpoint.read_latest(tmp_path).path == first
    assert "ckpt-000000120" in caplog.text
    # Under a name that says no number it is whatever its owner calls it.
    (tmp_path / "ckpt-000000120").rename(tmp_path / "mine")
    assert checkpoint.read(tmp_path / "mine").info["updates"] == 2


def test_a_checkpoint_of_another_run_is_refused(algorithm, tmp_path):
    def write(number, **info):
        state = algorithm.state_dict()
        return checkpoint.write(
            tmp_path, number, algorithm.policy, state, {**INFO, "updates": number, **info}
        )

    unnamed, mine, other = write(1), write(2, run="mine"), write(3, run="other")
    with pytest.raises(
        CheckpointError, match="ckpt-000000003 is of another run: its id is other, here it is"
    ):
        checkpoint.read(other, "mine")
    assert checkpoint.read_latest(tmp_path, "mine").path == mine
    assert checkpoint.read_latest(tmp_path, "").path == unnamed
    assert checkpoint.read_latest(tmp_path).path == other
    assert checkpoint.read(unnamed, "mine").info["updates"] == 1


def test_what_no_file_can_hold_leaves_nothing_behind(algorithm, tmp_path):
    state = {**algorithm.state_dict(), "more": [object()]}
    with pytest.raises(TypeError, match=r"state\.more\.0 is a object"):
        checkpoint.write(tmp_path / "new", 1, algorithm.policy, state, INFO)
    assert not (tmp_path / "new").exists()


def test_a_full_disk_leaves_nothing_behind(write, tmp_path, monkeypatch):
    write(1)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(2)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt-000000001"]


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "model.safetensors/../x"])
def test_a_manifest_reaches_no_other_file(write, name):
    path = write()
    said = json.loads((path / "manifest.json").read_bytes())
    said["files"][name] = said["files"].pop("state.safetensors")
    del said["checksum"]
    (path / "manifest.json").write_bytes(checkpoint.seal(said))
    with pytest.raises(CheckpointError, match="should list"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(state={"tensor": "nowhere"}),
        lambda said: said.update(optimizer=[["x"]] * 3 + [{"call": "os.system"}]),
        lambda said: said.update(state=None),
        lambda said: said.update(info=[]),
        lambda said: said["info"].update(updates="1"),
        lambda said: said.update(files=3),
        lambda said: said["files"].update({"model.safetensors": 3}),
        lambda said: said.update(format="rlstack.checkpoint.99"),
        lambda said: said.pop("format"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(write, change):
    path = write()
    said = json.loads((path / "manifest.json").read_bytes())
    change(said)
    del said["checksum"]
    (path / "manifest.json").write_bytes(checkpoint.seal(said))
    with pytest.raises(CheckpointError, match=r"manifest\.json|model\.safetensors"):
        checkpoint.read(path)


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        checkpoint.read(tmp_path / "none")
    with pytest.raises(CheckpointError, match="can't be read"):
        checkpoint.read(tmp_path)
