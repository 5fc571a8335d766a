"""R3: a damaged checkpoint is refused by name, and the good one before it is taken."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

from rlstack import Algorithm
from rlstack.common.errors import CheckpointError
from rlstack.env import CartPole
from rlstack.runs import checkpoint

INFO = {"collects": 1, "env_steps": 16, "stats": {"returns/mean": 1.0}}


def prove(directory: Path, count: int = 5000) -> dict[str, Any]:
    """Damage a checkpoint in many ways; return how many were noticed, and which weren't."""
    algorithm = Algorithm(CartPole, num_envs=4, horizon=4, model_config={"hiddens": [4]}, device="cpu")
    algorithm.collect()
    algorithm.step()
    first, second = (
        checkpoint.write(
            directory, number, algorithm.policy, algorithm.state_dict(), {**INFO, "updates": number}
        )
        for number in (1, 2)
    )
    unnoticed = mutations(second, count, random.Random(0), good=first)
    return {"held": not unnoticed, "mutations": count, "unnoticed": unnoticed}


def mutations(path: Path, count: int, chance: random.Random, good: Path) -> list[str]:
    """Damage a checkpoint again and again; return what was done where that had another end than it should."""
    spare = path.with_name("spare")
    shutil.copytree(path, spare)
    unnoticed = []
    for _ in range(count):
        done = mutate(path, chance)
        try:
            checkpoint.read(path)
            unnoticed.append(done)
        except CheckpointError as error:
            if str(path) not in str(error):
                unnoticed.append(f"{done}: {error} names no file")
        if checkpoint.read_latest(path.parent).path != good:
            unnoticed.append(f"{done}: it was taken")
        shutil.rmtree(path)
        shutil.copytree(spare, path)
    shutil.rmtree(spare)
    return unnoticed


def mutate(path: Path, chance: random.Random) -> str:
    """Damage a checkpoint somehow; return what was done."""
    file, other = chance.sample(sorted(path.iterdir()), 2)
    kind = chance.choice(["flip", "flip", "flip", "cut", "grow", "zero", "edit", "remove", "swap"])
    data = bytearray(file.read_bytes())
    if kind == "flip":
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del data[chance.randrange(len(data)) :]
    elif kind == "grow":
        data += bytes([chance.randrange(256)])
    elif kind == "zero":
        start = chance.randrange(len(data))
        part = data[start : start + 64]
        data[start : start + 64] = bytes(len(part)) if any(part) else b"x" * len(part)
    elif kind == "edit":
        file = path / "manifest.json"
        said = json.loads(file.read_bytes())
        said["info"][chance.choice(["updates", "env_steps", "collects"])] += chance.choice([1, -1, 1000])
        data = bytearray(json.dumps(said).encode())
    elif kind == "swap":
        data = bytearray(other.read_bytes())
    if kind == "remove":
        file.unlink()
    else:
        file.write_bytes(data)
    return f"{kind} of {file.name}"
