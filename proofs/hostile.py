"""R10: no file that is read can run code, or make reading it take all memory."""

import hashlib
import json
import pickle
import shutil
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rlstack import Algorithm, Policy, Trainer
from rlstack.cli.run_config import RunConfig
from rlstack.common.errors import CheckpointError, HparamsError, PolicyFileError, RunDirError, TrackingError
from rlstack.env import CartPole
from rlstack.runs import checkpoint
from rlstack.runs.inspect import inspect
from rlstack.tracking.journal import JOURNAL, Journal, read_rows
from rlstack.tracking.mlflow_run import read_tracked_run

_LONGEST = 5
"""Seconds that reading any of them may take."""
INFO = {"collects": 1, "updates": 1, "env_steps": 16, "stats": {}}

CONFIG = """
env: rlstack.env.CartPole
algorithm: feedforward
algorithm_config: {num_envs: 4, horizon: 4, model_config: {hiddens: [4]}, device: cpu}
trainer: {checkpoint_config: {}}
"""


class Bomb:
    """What runs code when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (Path.touch, (self.canary,))


def prove(directory: Path) -> dict[str, Any]:
    """Read hostile files in every way there is; return those that ran code or ended with no error of ours."""
    algorithm = Algorithm(CartPole, num_envs=4, horizon=4, model_config={"hiddens": [4]}, device="cpu")
    algorithm.collect()
    algorithm.step()
    canary, faults, number = directory / "canary", [], 0
    attacks = [*_binaries(canary), *_manifests(canary), *_texts(canary), *_records(canary)]
    for number, (name, place) in enumerate(attacks, 1):
        run = directory / str(number)
        path = checkpoint.write(run / "checkpoints", 1, algorithm.policy, algorithm.state_dict(), INFO)
        (run / "config.yaml").write_text(CONFIG)
        place(path)
        spare = directory / "spare"
        shutil.copytree(run, spare)
        for read in (_checkpoint, _policy, _inspect, _resume, _config, _metrics, _tracking):
            # As it came: what reads it may mend it.
            shutil.rmtree(run)
            shutil.copytree(spare, run)
            start = time.monotonic()
            try:
                read(path)
            except (CheckpointError, PolicyFileError, HparamsError, RunDirError, TrackingError):
                continue
            except Exception as error:
                faults.append(f"{name}: {read.__name__} raised {type(error).__name__}: {error}")
            finally:
                if time.monotonic() - start > _LONGEST:
                    faults.append(f"{name}: {read.__name__} took more than {_LONGEST} s")
        shutil.rmtree(spare)
        if canary.exists():
            faults.append(f"{name}: it ran code")
            canary.unlink()
    return {"held": not faults, "files": number, "faults": faults}


def _checkpoint(path: Path) -> None:
    checkpoint.read(path)


def _policy(path: Path) -> None:
    Policy.load(path / "model.safetensors")


def _inspect(path: Path) -> None:
    inspect(path)


def _resume(path: Path) -> None:
    Trainer.resume(path.parent.parent, track=False)


def _config(path: Path) -> None:
    RunConfig.read(path.parent.parent / "config.yaml")


def _metrics(path: Path) -> None:
    journal = path.parent.parent / JOURNAL
    if journal.exists():
        list(read_rows(journal))
        Journal(journal).skip(100)


def _tracking(path: Path) -> None:
    read_tracked_run(path.parent.parent)


Place = Callable[[Path], Any]


def _binaries(canary: Path) -> list[tuple[str, Place]]:
    """Return what is put in place of a file of tensors."""
    bomb = pickle.dumps(Bomb(canary))
    torch_file = canary.with_name("bomb.pt")
    torch.save({"weight": Bomb(canary)}, torch_file)
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    contents = {
        "a pickle": bomb,
        "a torch file": torch_file.read_bytes(),
        "an endless header": struct.pack("<Q", 2**63) + b"{}",
        "a large header": struct.pack("<Q", 100_000_001) + b"{}",
        "a huge tensor": struct.pack("<Q", len(header)) + header,
        "a deep header": struct.pack("<Q", len(deep)) + deep,
        "nothing": b"",
    }
    names = ("model.safetensors", "optimizer.safetensors", "state.safetensors")
    places = {title: names if title in ("a pickle", "a torch file") else names[:1] for title in contents}
    return [
        (f"{title} as {name}", partial(_seal_with, name=name, data=data))
        for title, data in contents.items()
        for name in places[title]
    ]


def _seal_with(path: Path, name: str, data: bytes) -> None:
    """Replace a file and have the manifest agree: the checksum is no protection."""
    (path / name).write_bytes(data)
    entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    _edit(path, lambda said: said["files"].update({name: entry}))


def _edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = path / "manifest.json"
    said = json.loads(file.read_bytes())
    del said["checksum"]
    change(said)
    file.write_bytes(checkpoint.seal(said))


def _manifests(canary: Path) -> list[tuple[str, Place]]:
    """Return what is done to a manifest, its checksum put right."""
    call = {"dict": [["__reduce__", {"tuple": ["os.system", f"touch {canary}"]}]]}
    outside = f"../../{canary.name}"

    def moved(said: dict[str, Any]) -> None:
        said["files"][outside] = said["files"].pop("state.safetensors")

    changes: dict[str, Callable[[dict[str, Any]], Any]] = {
        "a path out of the directory": moved,
        "a call in the state": lambda said: said.update(state=call),
        "a call in the optimizer": lambda said: said.update(optimizer=call),
        "a tag in the state": lambda said: said.update(state={"py/object": "os.system"}),
        "another tensor's name": lambda said: said.update(state={"tensor": "../../etc/passwd"}),
        "a state of another kind": lambda said: said.update(state=[1, 2]),
        "counters of another kind": lambda said: said["info"].update(updates={"dict": []}),
        "a huge number": lambda said: said["info"].update(updates=10**4000),
        "no files": lambda said: said.update(files={}),
        "a format to come": lambda said: said.update(format="rlstack.checkpoint.99"),
    }
    found: list[tuple[str, Place]] = [
        (title, partial(_edit, change=change)) for title, change in changes.items()
    ]
    deep = b'{"checksum": "' + b"0" * 64 + b'", "a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    found += [
        ("a deep manifest", lambda path: (path / "manifest.json").write_bytes(checkpoint.stamp(deep))),
        (
            "a pickle as the manifest",
            lambda path: (path / "manifest.json").write_bytes(pickle.dumps(Bomb(canary))),
        ),
        ("a pointer outside", lambda path: (path.parent / "best").write_text("../../..")),
    ]
    return found


def _texts(canary: Path) -> list[tuple[str, Place]]:
    """Return configurations."""
    touch = f"touch {canary}"
    bomb = "\n".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(9))
    texts = {
        "a tag that calls": f"env: !!python/object/apply:os.system ['{touch}']",
        "a tag that makes": "env: !!python/object/new:subprocess.Popen [[touch, x]]",
        "a tag that names": "env: !!python/name:os.system ''",
        "a tag that imports": "env: !!python/module:antigravity ''",
        "os.system as the environment": "env: os.system",
        "os:system as the environment": "env: os:system",
        "a process as the environment": "env: subprocess.Popen",
        "eval as the environment": "env: builtins.eval",
        "os.system as the optimizer": "env: cartpole\nalgorithm_config: {optimizer_cls: os.system}",
        "a process as the model": "env: cartpole\nalgorithm_config: {model_cls: subprocess.Popen}",
        "pickle as the distribution": "env: cartpole\nalgorithm_config: {distribution_cls: pickle.loads}",
        "aliases of aliases": f"a0: &a0 [x]\n{bomb}",
        "a deep list": "env: " + "[" * 100_000,
        "a file of another place": f"env: ../../{canary.name}:Env",
    }
    found: list[tuple[str, Place]] = [
        (title, partial(_configure, text=text)) for title, text in texts.items()
    ]
    return [*found, ("a file of its own", partial(_bring_along, code=f"open({str(canary)!r}, 'w')"))]


def _bring_along(path: Path, code: str) -> None:
    """Put a module beside the configuration that names it."""
    run = path.parent.parent
    (run / "brought_along.py").write_text(code)
    _configure(path, f"env: {run}/brought_along.py:Env\n{CONFIG.partition('CartPole')[2]}")


def _records(canary: Path) -> list[tuple[str, Place]]:
    """Return what is put in place of the journal and of the tracked run."""
    bomb = pickle.dumps(Bomb(canary))
    head = b'{"time": 1, "step": 1, "metrics": {'
    sound: dict[str, Any] = {
        "format": "rlstack.tracking.1",
        "params": {},
        "tags": {},
        "run_id": None,
        "uri": None,
    }
    sound |= {"owned": True, "status": "RUNNING"}
    files: dict[str, tuple[str, bytes]] = {
        "a pickle as the journal": (JOURNAL, bomb + b"\n"),
        "a deep row": (JOURNAL, head + b'"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}}\n"),
        "a row of other things": (JOURNAL, head + b'"a": {"py/object": "os.system"}}}\n'),
        "an endless row": (JOURNAL, head + b'"a": 1, ' * 2_000_000 + b"\n"),
        "a huge step": (JOURNAL, head.replace(b'"step": 1', b'"step": ' + b"9" * 5000) + b"}}\n"),
        "a pickle as the tracked run": ("tracking.json", bomb),
        "a deep tracked run": ("tracking.json", b"[" * 200_000 + b"]" * 200_000),
        "a run of another place": (
            "tracking.json",
            json.dumps({**sound, "run_id": "../../../etc/passwd"}).encode(),
        ),
        "parameters of another kind": ("tracking.json", json.dumps({**sound, "params": [1]}).encode()),
    }
    return [(title, partial(_replace, name=name, data=data)) for title, (name, data) in files.items()]


def _replace(path: Path, name: str, data: bytes) -> None:
    (path.parent.parent / name).write_bytes(data)


def _configure(path: Path, text: str) -> None:
    (path.parent.parent / "config.yaml").write_text(text)
