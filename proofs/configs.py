"""R4: a wrong configuration gets at most three lines that say where and what, and exit code 2."""

import contextlib
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from rlstack.cli.app import main

GOOD: dict[str, Any] = {
    "env": "cartpole",
    "algorithm": "feedforward",
    "algorithm_config": {"num_envs": 8, "horizon": 8, "sgd_minibatch_size": None, "device": "cpu"},
    "stop_conditions": [{"HitsUpperBound": {"key": "returns/mean", "bound": 3}}],
    "trainer": {"checkpoint_config": {"keep": 2}, "steps_per_eval": 3},
}
COUNTS = ["horizon", "num_envs", "num_sgd_iters", "sgd_minibatch_size", "grad_block_size"]
POSITIVE = ["adaptive_lr", "clip_param", "max_grad_norm", "target_kl_div", "vf_clip_param"]
FRACTIONS = ["gae_lambda", "gamma"]
SWITCHES = ["accumulate_grads", "enable_amp", "normalize_rewards", "shuffle_minibatches"]
CLASSES = ["model_cls", "optimizer_cls", "distribution_cls"]
SCHEDULES = ["lr_schedule", "entropy_coeff_schedule", "clip_param_schedule"]
OPTIONS = ["env_config", "model_config", "optimizer_config"]
CHOICES = ["engine", "matmul_precision", "lr_schedule_kind"]

# What is wrong, and a part of what is to be said of it.
HAND_WRITTEN = [
    ("", "holds a NoneType"),
    ("[]", "holds a list"),
    ("3", "holds a int"),
    ("cartpole", "holds a str"),
    ("env: [", "is not YAML"),
    ("env: cartpole\n\tx: 1", "is not YAML"),
    ("env: !!python/object/apply:os.system [true]", "is not YAML"),
    ("env: !!python/name:os.system ''", "is not YAML"),
    ("env: &a cartpole\nalgorithm: *a", "an alias in line 2"),
    ("env: cartpole\nenv: pendulum", "line 2: env is given twice"),
    ('{"env": "cartpole", "env": "pendulum"}', "env is given twice"),
    ("1: 2", "1 is a int, expected a name"),
    ("enf: cartpole", "enf is not a key: did you mean env?"),
    ("env: 3", "env is 3, expected a text"),
    ("env: on\nalgorithm: true", "algorithm is True, expected a text"),
    ("env: cartpol", "did you mean cartpole?"),
    ("env: os:system", "expected a class derived from rlstack.env.base.Env"),
    ("env: os.system", "expected a class derived from rlstack.env.base.Env"),
    ("env: nowhere:Env", "there is no module nowhere"),
    ("env: rlstack.env:CartPol", "did you mean CartPole?"),
    ("env: ../x:Y", "is not of the form module:Class"),
    ("algorithm: ppo", "algorithm is ppo: expected one of feedforward, recurrent"),
    ("algorithm: recurent", "did you mean recurrent?"),
    ("algorithm_config: 3", "algorithm_config is 3, expected names with values"),
    ("algorithm_config: [horizon, 3]", "expected names with values"),
    (
        "algorithm_config: {horzon: 3}",
        "horzon is not a hyperparameter: did you mean horizon?",
    ),
    ("algorithm_config: {horizon: x}", "algorithm_config.horizon is 'x', expected an integer"),
    ("algorithm_config: {horizon: 1e3}", "algorithm_config.horizon is 1000.0, expected an integer"),
    ("algorithm_config: {horizon: 010}", "algorithm_config.horizon is '010', expected an integer"),
    ("algorithm_config: {horizon: 0}", "algorithm_config.horizon is 0, expected a number at least 1"),
    ("algorithm_config: {horizon: true}", "algorithm_config.horizon is True, expected an integer"),
    ("algorithm_config: {gamma: 1.5}", "algorithm_config.gamma is 1.5, expected a number at most 1"),
    ("algorithm_config: {gamma: -1}", "algorithm_config.gamma is -1, expected a number at least 0"),
    ("algorithm_config: {gamma: .nan}", "algorithm_config.gamma is nan, expected a finite number"),
    ("algorithm_config: {gamma: 1e400}", "algorithm_config.gamma is inf"),
    ("algorithm_config: {enable_amp: on}", "algorithm_config.enable_amp is 'on', expected True or False"),
    ("algorithm_config: {enable_amp: 1}", "algorithm_config.enable_amp is 1, expected True or False"),
    ("algorithm_config: {seed: -1}", "algorithm_config.seed is -1"),
    ("algorithm_config: {engine: fast}", "algorithm_config.engine is 'fast'"),
    ("env: cartpole\nalgorithm_config: {device: gpu}", "device is 'gpu'"),
    ("algorithm_config: {seq_len: 4}", "algorithm_config.seq_len is not a hyperparameter"),
    ("algorithm: recurrent\nalgorithm_config: {seq_len: 0}", "algorithm_config.seq_len is 0"),
    ("algorithm_config: {optimizer_cls: Adam}", "optimizer_cls is 'Adam', expected the name of a class"),
    ("algorithm_config: {optimizer_cls: torch.optim.Adamm}", "did you mean Adam?"),
    ("algorithm_config: {optimizer_cls: os.system}", "expected a class derived from torch.optim"),
    ("algorithm_config: {model_cls: torch.optim.Adam}", "expected a class derived from torch.nn"),
    ("algorithm_config: {distribution_cls: 3}", "distribution_cls is 3, expected the name of a class"),
    ("algorithm_config: {lr_schedule: 3}", "algorithm_config.lr_schedule is 3"),
    ("algorithm_config: {lr_schedule: [[0, 1], [0, 2]]}", "algorithm_config.lr_schedule"),
    ("algorithm_config: {env_config: 3}", "algorithm_config.env_config is 3"),
    ("env: cartpole\nalgorithm_config: {sgd_minibatch_size: 7}", "expected a divisor"),
    ("env: cartpole\nalgorithm_config: {model_config: {hidens: [3]}}", "did you mean hiddens?"),
    ("env: cartpole\nalgorithm_config: {optimizer_config: {lrr: 3}}", "did you mean lr?"),
    ("stop_conditions: {TimesOut: {seconds: 3}}", "stop_conditions is"),
    ("stop_conditions: [3]", "stop_conditions[0] is 3, expected one name"),
    ("stop_conditions: [{TimeOut: {seconds: 3}}]", "did you mean TimesOut?"),
    ("stop_conditions: [{TimesOut: {}}]", "stop_conditions[0].TimesOut lacks seconds"),
    ("stop_conditions: [{TimesOut: {seconds: x}}]", "TimesOut.seconds is 'x', expected a number"),
    ("stop_conditions: [{TimesOut: {second: 3}}]", "did you mean seconds?"),
    ("stop_conditions: [{And: {a: 1}}]", "expected a list of conditions"),
    ("stop_conditions: [{Or: [{TimesOut: 3}]}]", "stop_conditions[0].Or[0].TimesOut is 3"),
    ("stop_conditions: [{Plateaus: {key: returns/mean, patience: 0}}]", "patience is 0, expected at least 1"),
    ("trainer: 3", "trainer is 3, expected names with values"),
    ("trainer: {steps_per_evall: 3}", "did you mean steps_per_eval?"),
    ("trainer: {steps_per_eval: 0}", "trainer.steps_per_eval is 0"),
    ("trainer: {checkpoint_config: {kep: 3}}", "trainer.checkpoint_config.kep is not an option"),
    ("trainer: {checkpoint_config: {keep: 0}}", "trainer.checkpoint_config.keep is 0"),
    ("trainer: {checkpoint_config: {best_is: good}}", "trainer.checkpoint_config.best_is is 'good'"),
]


def prove(directory: Path, count: int = 2000) -> dict[str, Any]:
    """Try configurations that are wrong in many ways; return those that got another end than they should."""
    with ThreadPoolExecutor(2) as pool:
        parts = pool.map(lambda case: by_hand(directory, *case), enumerate(HAND_WRITTEN))
        faults = [fault for fault in parts if fault]
    faults += generated(directory, count, random.Random(0))
    return {"held": not faults, "generated": count, "by_hand": len(HAND_WRITTEN), "faults": faults}


def by_hand(directory: Path, number: int, case: tuple[str, str]) -> str:
    """Return what is wrong with how a real process ends; nothing if all is well."""
    text, part = case
    file = directory / f"{number}.yaml"
    file.write_text(text)
    command = [sys.executable, "-m", "rlstack", "train", "-f", str(file), "--run-dir", str(directory / "no")]
    done = subprocess.run(
        [*command, "--tracking", "off"], capture_output=True, text=True, cwd=directory, check=False
    )
    return _fault(text, done.returncode, done.stdout + done.stderr, part)


def generated(directory: Path, count: int, chance: random.Random) -> list[str]:
    """Return how configurations with a random mistake ended, if not as they should."""
    runner, faults = CliRunner(), []
    file = directory / "generated.yaml"
    with _working_in(directory):
        for _ in range(count):
            file.write_text(wrong(chance))
            result = runner.invoke(main, ["train", "-f", str(file), "--tracking", "off"])
            faults.append(_fault(file.read_text(), result.exit_code, result.output, ""))
    return [fault for fault in faults if fault]


def wrong(chance: random.Random) -> str:
    """Return a good configuration with one mistake."""
    config = json.loads(json.dumps(GOOD))
    algorithm, trainer = config["algorithm_config"], config["trainer"]
    texts: list[Any] = ["x", [1], {"a": 1}, "1e", "", [[]]]
    match chance.randrange(12):
        case 0:
            place = chance.choice([config, algorithm, trainer, trainer["checkpoint_config"]])
            name = chance.choice(["horizon", "keep", "env", "track", "seed", "stop_conditions"])
            cut = chance.randrange(1, len(name))
            place[name[:cut] + chance.choice("_qxyz9") + name[cut:]] = 1
        case 1:
            algorithm[chance.choice(COUNTS)] = chance.choice([*texts, 0, -chance.randrange(1, 99), 1.5, True])
        case 2:
            algorithm[chance.choice(POSITIVE)] = chance.choice([*texts, 0, -chance.random(), True])
        case 3:
            algorithm[chance.choice(FRACTIONS)] = chance.choice([*texts, -0.1, 1 + chance.random(), True])
        case 4:
            algorithm[chance.choice(SWITCHES)] = chance.choice([*texts, 0, 1, 0.5, "on", "yes"])
        case 5:
            names = [
                "os.system",
                "torch.nn.Nothing",
                "nowhere.Nobody",
                "x",
                3,
                [1],
                "torch.Tensor",
                "..",
                "a:b:c",
            ]
            algorithm[chance.choice(CLASSES)] = chance.choice(names)
        case 6:
            schedules = ["x", 3, [1], [[1]], [[0, 1], [0, 2]], [[5, 1], [1, 1]], [], [["a", "b"]], {"a": 1}]
            algorithm[chance.choice(SCHEDULES)] = chance.choice(schedules)
        case 7:
            algorithm[chance.choice(OPTIONS)] = chance.choice(["x", 3, [1], True, 0.5])
        case 8:
            algorithm[chance.choice(CHOICES)] = chance.choice([*texts, "fastest", 3])
        case 9:
            name = chance.choice(list(config))
            config[name] = chance.choice(
                [3, True, 0.5, "nothing"] + ([[1]] if name != "stop_conditions" else [])
            )
        case 10:
            stop: list[Any] = ["x", 3, {}, {"Nothing": {}}, {"TimesOut": {}}, {"TimesOut": {"seconds": "x"}}]
            stop += [{"And": 3}, {"Plateaus": {"key": 3}}, {"TimesOut": {"seconds": 1}, "Or": []}, None, []]
            config["stop_conditions"].append(chance.choice(stop))
        case _:
            text = yaml.safe_dump(config)
            place = chance.randrange(len(text))
            harm = chance.choice(["\t- {", "\n: : :", "!!python/tuple ", " *x ", "[}", "\x00"])
            return f"{text[:place]}{harm}\n&x\n{text[place:]}"
    return yaml.safe_dump(config)


def _fault(text: str, code: int, said: str, part: str) -> str:
    lines = said.strip().splitlines()
    if code == 2 and 1 <= len(lines) <= 3 and "Traceback" not in said and part in said:
        return ""
    return f"{text!r:.300}: exit {code}: {said:.400}"


@contextlib.contextmanager
def _working_in(directory: Path) -> Any:
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
