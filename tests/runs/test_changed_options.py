"""Hyperparameters that differ when training goes on: used, or refused by name."""

import json
import logging
from contextlib import closing
from dataclasses import fields
from operator import call

import pytest
import torch
from click.testing import CliRunner

from rlstack import Algorithm, HparamsError, RecurrentAlgorithm, Trainer, specs
from rlstack.cli.app import main
from rlstack.common.errors import CheckpointError
from rlstack.distributions import Normal
from rlstack.env import CartPole, Env, Pendulum
from rlstack.hparams import RecurrentHparams
from rlstack.models import ContinuousLSTM, ContinuousMLP
from rlstack.runs import checkpoint
from rlstack.runs.yaml_format import parse, plain_values

from ..helpers import parameters, update
from ..standin import like_on_a_gpu

BASE = {"num_envs": 8, "horizon": 8, "seed": 1, "device": "cpu", "horizons_per_env_reset": 4}
START = {
    Algorithm: {**BASE, "model_config": {"hiddens": [8]}, "sgd_minibatch_size": 32},
    RecurrentAlgorithm: {**BASE, "model_config": {"hidden_size": 8}, "sgd_minibatch_size": 8},
}
USED = {
    "env_config": {"g": 3.0},
    "horizon": 16,
    "horizons_per_env_reset": 1,
    "num_envs": 4,
    "optimizer_config": {"lr": 1e-3, "weight_decay": 0.5},
    "accumulate_grads": True,
    "enable_amp": True,
    "lr_schedule": [(0, 0.1)],
    "adaptive_lr": 1.0,
    "entropy_coeff": 0.5,
    "entropy_coeff_schedule": [(0, 0.7)],
    "gae_lambda": 0.1,
    "gamma": 0.2,
    "sgd_minibatch_size": None,
    "num_sgd_iters": 1,
    "shuffle_minibatches": False,
    "clip_param": 1e-4,
    "clip_param_schedule": [(0, 1e-4)],
    "vf_clip_param": 1e-4,
    "dual_clip_param": 1.0001,
    "vf_coeff": 0.1,
    "target_kl_div": 1e-9,
    "max_grad_norm": 1e-3,
    "normalize_advantages": False,
    "normalize_rewards": False,
    "seed": 2,
    "seq_len": 2,
    "seqs_per_state_reset": 1,
}
"""With them, what is learned is something else."""
ALONGSIDE = {
    "clip_param_schedule_kind": ("interp", {"clip_param_schedule": [(0, 0.2), (300, 1e-4)]}),
    "lr_schedule_kind": ("interp", {"lr_schedule": [(0, 0.1), (10_000, 1e-3)]}),
    "entropy_coeff_schedule_kind": ("interp", {"entropy_coeff_schedule": [(0, 0.7), (10_000, 0.0)]}),
}
"""With other options, which the comparison has too."""
HARMLESS = {"grad_block_size": 16, "matmul_precision": "highest", "engine": "eager", "device": "cpu"}
"""They change how it is computed, and that up to rounding."""
REFUSED = {
    "model_config": {"hiddens": [4], "hidden_size": 4},
    "distribution_cls": Normal,
    "optimizer_cls": torch.optim.SGD,
    "normalize_observations": True,
}


def classes(name):
    own = {field.name for field in fields(RecurrentHparams)} - {
        field.name for field in fields(Algorithm.hparams_cls)
    }
    return [RecurrentAlgorithm] if name in own else [Algorithm, RecurrentAlgorithm]


def cases(table):
    return [(cls, name) for name in table for cls in classes(name)]


def start(tmp_path, cls, **changes):
    trainer = Trainer(
        Pendulum,
        algorithm_cls=cls,
        algorithm_config={**START[cls], **changes},
        run_dir=tmp_path / "run",
        checkpoint_config={"every_updates": 2},
        track=False,
    )
    for _ in range(2):
        trainer.step()
    trainer.close()
    return tmp_path / "run"


def go_on(run, **changes):
    """Return a trainer that went on for two updates."""
    trainer = Trainer.resume(run, algorithm_config=changes, track=False)
    for _ in range(2):
        trainer.step()
    trainer.close()
    return trainer


def close(one, other):
    return torch.allclose(parameters(one.algorithm), parameters(other.algorithm), atol=1e-5)


def test_every_hyperparameter_is_looked_at():
    names = {field.name for field in fields(RecurrentHparams)}
    assert names == {*USED, *ALONGSIDE, *HARMLESS, *REFUSED, "model", "model_cls"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, and how they go on unchanged."""
    made = {}
    for cls in START:
        made[cls] = start(tmp_path_factory.mktemp(cls.__name__), cls)
    return made, {cls: go_on(copy_of(run, tmp_path_factory)) for cls, run in made.items()}


def copy_of(run, tmp_path_factory):
    import shutil

    home = tmp_path_factory.mktemp("copy") / "run"
    shutil.copytree(run, home)
    return home


@pytest.mark.parametrize(("cls", "name"), cases(USED))
def test_what_is_given_is_used(cls, name, runs, tmp_path_factory, half):
    run = copy_of(runs[0][cls], tmp_path_factory)
    if name == "enable_amp" and cls is RecurrentAlgorithm and not half:
        pytest.skip("this CPU has no LSTM in 16 bits")
    other = go_on(run, **{name: USED[name]})
    assert not close(other, runs[1][cls])
    # It says so, and a later resume uses it too.
    said = parse((run / "config.yaml").read_text(), "")["algorithm_config"]
    again = Trainer.resume(run, track=False)
    again.close()
    assert plain_values(getattr(again.algorithm.hparams, name)) == said[name] == plain_values(USED[name])


@pytest.mark.parametrize(("cls", "name"), cases(ALONGSIDE))
def test_kinds_of_schedules_are_used(cls, name, runs, tmp_path_factory):
    value, others = ALONGSIDE[name]
    with_it = go_on(copy_of(runs[0][cls], tmp_path_factory), **others, **{name: value})
    without = go_on(copy_of(runs[0][cls], tmp_path_factory), **others)
    assert not close(with_it, without)


@pytest.mark.parametrize(("cls", "name"), cases(HARMLESS))
def test_how_it_is_computed_may_change(cls, name, runs, tmp_path_factory):
    other = go_on(copy_of(runs[0][cls], tmp_path_factory), **{name: HARMLESS[name]})
    assert close(other, runs[1][cls])
    assert getattr(other.algorithm.hparams, name) == HARMLESS[name]


@pytest.mark.parametrize(("cls", "name"), cases(REFUSED))
def test_what_can_not_change_is_refused_by_name(cls, name, runs, tmp_path_factory):
    value = REFUSED[name]
    if name == "model_config":
        value = {key: each for key, each in value.items() if key in START[cls][name]}
    run = copy_of(runs[0][cls], tmp_path_factory)
    before = (run / "config.yaml").read_text()
    with pytest.raises(CheckpointError, match=rf"{name}[\w.]* is .* there and .* here.*can't be changed"):
        Trainer.resume(run, algorithm_config={name: value}, track=False)
    assert (run / "config.yaml").read_text() == before
    # The same by `load`, and the trainer is as it was.
    trainer = Trainer(Pendulum, algorithm_cls=cls, algorithm_config={**START[cls], name: value}, track=False)
    with pytest.raises(CheckpointError, match=rf"{name}[\w.]* is .* there and .* here"):
        trainer.load(run / "checkpoints")
    trainer.step()


@pytest.mark.parametrize("cls", START)
def test_models_of_another_class_are_refused_by_name(cls, runs, tmp_path_factory):
    base = ContinuousMLP if cls is Algorithm else ContinuousLSTM
    other = type("Mine", (base,), {"__module__": __name__})
    spec = Pendulum(1)
    for given in (
        {"model_cls": other},
        {"model": other(spec.observation_spec, spec.action_spec, **START[cls]["model_config"])},
    ):
        run = copy_of(runs[0][cls], tmp_path_factory)
        with pytest.raises(CheckpointError, match=r"model_cls is .*Continuous\w+ there and .*Mine here"):
            Trainer.resume(run, algorithm_config=given, track=False)


OPTIONS = [
    {"weight_decay": 0.5},
    {"betas": (0.5, 0.6)},
    {"eps": 0.1},
    {"lr": 0.05},
    {"amsgrad": True},
    {"maximize": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
@pytest.mark.parametrize("way", ["resume", "load", "gpu"])
def test_options_of_the_optimizer_are_those_that_are_given(options, way, runs, tmp_path_factory):
    run = copy_of(runs[0][Algorithm], tmp_path_factory)
    config = {**START[Algorithm], "optimizer_config": options}
    if way == "resume":
        trainer = Trainer.resume(run, algorithm_config={"optimizer_config": options}, track=False)
    else:
        make = like_on_a_gpu if way == "gpu" else call
        trainer = make(Trainer, Pendulum, algorithm_config=config, track=False)
        trainer.load(run / "checkpoints")
    [group] = trainer.algorithm.learner.optimizer.param_groups
    [(key, value)] = options.items()
    if "amsgrad" in options:
        # Its state has a part more: the optimizer says so at its first step, or starts it.
        assert group[key] == value
        return
    stats = trainer.step()
    assert float(group[key]) == pytest.approx(value) if key == "lr" else group[key] == value
    said = str(list(value) if isinstance(value, tuple) else value)
    assert trainer.algorithm.params[f"optimizer_config.{key}"] == said
    assert stats["coefficients/lr"] == pytest.approx(options.get("lr", 1e-3))
    trainer.close()


def test_a_rate_set_by_hand_counts_and_survives(tmp_path):
    run = start(tmp_path, Algorithm)
    trainer = Trainer.resume(run, track=False)
    group = trainer.algorithm.learner.optimizer.param_groups[0]
    group["lr"], group["weight_decay"] = 1e-5, 0.25
    assert trainer.step()["coefficients/lr"] == 1e-5
    assert trainer.step()["coefficients/lr"] == 1e-5
    trainer.close()
    again = Trainer.resume(run, track=False)
    assert again.algorithm.learner.optimizer.param_groups[0]["weight_decay"] == 0.25
    assert again.step()["coefficients/lr"] == 1e-5
    again.close()
    # What is given anew goes first.
    third = Trainer.resume(run, algorithm_config={"optimizer_config": {"lr": 0.01}}, track=False)
    assert third.step()["coefficients/lr"] == 0.01
    third.close()


@pytest.mark.parametrize("how", ["replaced", "filled"])
def test_a_rate_set_by_hand_counts_where_it_is_a_tensor(how):
    algorithm = like_on_a_gpu(Algorithm, CartPole, **START[Algorithm])
    assert update(algorithm)["coefficients/lr"] == pytest.approx(1e-3)
    [group] = algorithm.learner.optimizer.param_groups
    place = group["lr"]
    if how == "replaced":
        group["lr"] = 1e-4
    else:
        place.fill_(1e-4)
    assert update(algorithm)["coefficients/lr"] == pytest.approx(1e-4)
    assert group["lr"] is place


def test_a_rate_set_by_hand_is_named_where_a_schedule_goes_on(caplog):
    algorithm = Algorithm(CartPole, **START[Algorithm], lr_schedule=[(0, 1e-2)])
    update(algorithm)
    for _ in range(3):
        algorithm.learner.optimizer.param_groups[0]["lr"] = 1e-5
        with caplog.at_level(logging.WARNING):
            assert update(algorithm)["coefficients/lr"] == 1e-2
    assert len(caplog.records) == 1
    assert "lr_schedule" in caplog.text


def test_fewer_horizons_between_resets_than_have_passed():
    first = Algorithm(CartPole, **{**START[Algorithm], "horizons_per_env_reset": 8})
    for _ in range(5):
        update(first)
    second = Algorithm(CartPole, **{**START[Algorithm], "horizons_per_env_reset": 2})
    second.load_state_dict(first.state_dict())
    assert [update(second)["env/resets"] for _ in range(4)] == [8, 0, 8, 0]


def test_a_shorter_horizon_keeps_the_longest_time_between_resets():
    class Short(CartPole):
        max_horizon = 32

    first = Algorithm(Short, **{**START[Algorithm], "horizon": 16, "horizons_per_env_reset": -1})
    update(first)
    second = Algorithm(Short, **{**START[Algorithm], "horizon": 4, "horizons_per_env_reset": -1})
    second.load_state_dict(first.state_dict())
    assert [update(second)["env/resets"] for _ in range(5)] == [0, 0, 0, 0, 8]


def test_resume_auto_lists_what_it_ignores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [
        "num_envs=8",
        "horizon=8",
        "device=cpu",
        "--tracking",
        "off",
        "--run-dir",
        "run",
        "--resume",
        "auto",
    ]
    runner = CliRunner()
    first = runner.invoke(
        main, ["train", "pendulum", *options, "gamma=0.9", "--max-updates", "1", "sgd_minibatch_size=64"]
    )
    assert first.exit_code == 0, first.output
    assert "Ignored" not in first.output
    changes = ["gamma=0.5", "model_config.hiddens=[4]", "env_config.g=3", "--algorithm", "recurrent"]
    second = runner.invoke(main, ["train", "pendulum", *options, *changes, "--max-updates", "2"])
    assert second.exit_code == 0, second.output
    [line] = [line for line in second.output.splitlines() if line.startswith("Ignored")]
    ignored = "gamma=0.5, model_config.hiddens=[4], env_config.g=3, algorithm=recurrent"
    assert line == f"Ignored, since the run has its own: {ignored}."


class TestOnTheCommandLine:
    def go_on(self, run, *arguments):
        return CliRunner().invoke(main, ["train", "--resume", str(run), "--tracking", "off", *arguments])

    def test_what_is_given_is_used_from_then_on(self, tmp_path):
        run = start(tmp_path, Algorithm, optimizer_config={"lr": 0.01, "weight_decay": 0.5})
        changes = ["num_envs=16", "sgd_minibatch_size=32", "optimizer_config.lr=0.02", "--seed", "1"]
        done = self.go_on(run, *changes, "--max-updates", "3")
        assert done.exit_code == 0, done.output
        but = "num_envs=16, optimizer_config.lr=0.02"
        assert f"after 2 updates, with its hyperparameters but {but}.\n" in done.output
        said = checkpoint.read_latest(run / "checkpoints").info
        # 2 updates of 8 environments, one of 16; 8 steps each.
        assert (said["updates"], said["env_steps"]) == (3, 2 * 8 * 8 + 16 * 8)
        params = said["params"]
        assert (params["optimizer_config.lr"], params["optimizer_config.weight_decay"]) == ("0.02", "0.5")
        again = self.go_on(run, "--max-updates", "4")
        assert "with its hyperparameters.\n" in again.output
        assert checkpoint.read_latest(run / "checkpoints").info["params"]["num_envs"] == "16"

    def test_what_cannot_be_changed_is_refused_by_name(self, tmp_path):
        run = start(tmp_path, Algorithm)
        for change, code, message in (
            ("optimizer_cls=torch.optim.SGD", 5, "optimizer_cls is torch.optim.adam.Adam there"),
            ("model_config.hiddens=[4]", 5, "model_config.hiddens is [8] there and [4] here"),
            ("num_envs=0", 2, "num_envs is 0"),
            ("nun_envs=3", 2, "did you mean num_envs?"),
        ):
            done = self.go_on(run, change)
            assert (done.exit_code, message in done.output) == (code, True), done.output
        assert parse((run / "config.yaml").read_text(), "")["algorithm_config"]["num_envs"] == 8


def test_checkpoints_name_what_they_were_made_with(runs):
    path = checkpoint.numbered(runs[0][Algorithm] / "checkpoints")[0]
    given = dict(json.loads((path / "manifest.json").read_text())["optimizer"]["dict"])["given"]
    assert ["weight_decay", 0] in given["dict"]


class TestAnotherNumberOfEnvironments:
    """Also other horizons, engines and recurrent states are gone on with."""

    def make(self, cls, num_envs, run_dir=None, **changes):
        config = {**START[cls], "normalize_observations": True, "num_envs": num_envs, **changes}
        return Trainer(Pendulum, algorithm_cls=cls, algorithm_config=config, run_dir=run_dir, track=False)

    def trained(self, cls, run_dir, updates=3):
        with self.make(cls, 8, run_dir) as trainer:
            for _ in range(updates):
                trainer.step()
            trainer.eval(env_config={"g": 5.0})
            trainer.save()
        return trainer

    @pytest.mark.parametrize("num_envs", [32, 4])
    @pytest.mark.parametrize("cls", START)
    def test_resume_goes_on_with_all_that_is_learned(self, cls, num_envs, tmp_path, caplog):
        first = self.trained(cls, tmp_path / "run")
        changes = {"num_envs": num_envs}
        with Trainer.resume(tmp_path / "run", algorithm_config=changes, track=False) as second:
            [said] = [record.getMessage() for record in caplog.records]
            assert said.startswith("num_envs is not that of ")
            assert said.endswith("ckpt-000000003: the environments are reset")
            one, two = first.algorithm, second.algorithm
            assert torch.equal(parameters(one), parameters(two))
            for key, value in one.policy.state_dict().items():
                assert torch.equal(value, two.policy.state_dict()[key]), key
            for mine, theirs in zip(
                one.advantages.return_moments.buffers(), two.advantages.return_moments.buffers(), strict=True
            ):
                assert torch.equal(mine, theirs)
            mine, theirs = (each.learner.optimizer.state_dict()["state"] for each in (one, two))
            assert all(torch.equal(mine[0][key], theirs[0][key]) for key in ("exp_avg", "exp_avg_sq", "step"))
            # Evaluations go on with their own options.
            assert two._eval_collector.env_config == {"g": 5.0}
            second.eval()
            # In the middle of four horizons between resets there is one now, and then as ever.
            stats = [second.step() for _ in range(5)]
            assert [each["env/resets"] for each in stats] == [num_envs, 0, 0, 0, num_envs]
            assert second.steps == 8
            assert stats[0]["env/total_steps"] == 3 * 8 * 8 + num_envs * 8
            assert two.policy.normalizer.moments[0].count == 3 * 8 * 8 + 5 * num_envs * 8
        said = parse((tmp_path / "run" / "config.yaml").read_text(), "")["algorithm_config"]
        assert said["num_envs"] == num_envs
        with Trainer.resume(tmp_path / "run", track=False) as third:
            assert third.algorithm.hparams.num_envs == num_envs

    @pytest.mark.parametrize("cls", START)
    def test_so_does_load(self, cls, tmp_path, caplog):
        self.trained(cls, tmp_path / "run")
        trainer = self.make(cls, 16)
        trainer.load(tmp_path / "run" / "checkpoints")
        assert trainer.steps == 3
        assert trainer.step()["env/steps"] == 16 * 8
        assert "num_envs is not that of" in caplog.text

    def test_together_with_other_options_of_the_environment(self, tmp_path, caplog):
        self.trained(Algorithm, tmp_path / "run")
        changes = {"num_envs": 16, "env_config": {"g": 3.0}}
        with Trainer.resume(tmp_path / "run", algorithm_config=changes, track=False) as trainer:
            [said] = [record.getMessage() for record in caplog.records]
            assert said.startswith("env_config and num_envs are not those of ")
            trainer.step()
            assert trainer.algorithm.env.config["g"] == 3.0

    def test_what_does_not_divide_is_refused_as_ever(self, tmp_path):
        self.trained(Algorithm, tmp_path / "run")
        with pytest.raises(HparamsError, match="sgd_minibatch_size is 32, expected a divisor"):
            Trainer.resume(tmp_path / "run", algorithm_config={"num_envs": 7}, track=False)
        Trainer.resume(tmp_path / "run", track=False).close()

    def test_going_back_after_nan_reaches_that_checkpoint_too(self, tmp_path):
        self.trained(Algorithm, tmp_path / "run")
        options = {"on_nonfinite": "restore", "checkpoint_config": {"every_seconds": None}}
        changes = {"num_envs": 16}
        with Trainer.resume(
            tmp_path / "run", algorithm_config=changes, options=options, track=False
        ) as trainer:
            with torch.no_grad():
                trainer.algorithm.policy.model.value[0].weight.fill_(torch.nan)
            assert trainer.step()["env/steps"] == 16 * 8
            assert parameters(trainer.algorithm).isfinite().all()


class World(Env):
    """Returns zeros, as `parts` says."""

    parts = {"pose": specs.Unbounded((2,)), "goal": specs.Categorical(3, shape=(1,))}  # noqa: RUF012
    force = specs.Bounded(-1.0, 1.0, (2,))

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec, self.action_spec = specs.Composite(**self.parts), self.force

    def reset(self, *, config=None):
        return specs.zeros(self.observation_spec, (self.num_envs,), self.device)

    def step(self, action):
        return {"obs": self.reset(), "rewards": torch.zeros(self.num_envs, 1)}


GOAL, POSE = World.parts["goal"], World.parts["pose"]
OTHERS = {
    "shape": (
        {"parts": {"pose": specs.Unbounded((3,)), "goal": GOAL}},
        "observation_spec.pose.shape is [2] there and [3] here",
    ),
    "dtype": (
        {"parts": {"pose": specs.Unbounded((2,), dtype=torch.float64), "goal": GOAL}},
        "observation_spec.pose.dtype is float32 there and float64 here",
    ),
    "kind": (
        {"parts": {"pose": specs.Bounded(0.0, 1.0, (2,)), "goal": GOAL}},
        "observation_spec.pose is Unbounded of shape [2] there and Bounded of shape [2] here",
    ),
    "values": (
        {"parts": {"pose": POSE, "goal": specs.Categorical(4, shape=(1,))}},
        "observation_spec.goal.number of values is 3 there and 4 here",
    ),
    "missing": (
        {"parts": {"pose": POSE}},
        "observation_spec.goal is Categorical of shape [1] there and missing here",
    ),
    "new": (
        {"parts": {"pose": POSE, "goal": GOAL, "wind": POSE}},
        "observation_spec.wind is missing there and Unbounded of shape [2] here",
    ),
    "order": (
        {"parts": {"goal": GOAL, "pose": POSE}},
        "the order of observation_spec is observation_spec.pose, observation_spec.goal there and "
        "observation_spec.goal, observation_spec.pose here",
    ),
    "bound": (
        {"force": specs.Bounded(torch.tensor([-1.0, -1.0]), torch.tensor([1.0, 2.0]), (2,))},
        "action_spec.high[1] is 1 there and 2 here",
    ),
    "bounds": (
        {"force": specs.Bounded(-2.0, 1.0, (2,))},
        "action_spec.low[0] (and 1 more) is -1 there and -2 here",
    ),
    "several": (
        {
            "parts": {"pose": POSE, "goal": specs.Categorical(4, shape=(2,))},
            "force": specs.Bounded(-1.0, 1.0, (3,)),
        },
        "observation_spec.goal.shape is [1] there and [2] here; "
        "observation_spec.goal.number of values is 3 there and 4 here; "
        "action_spec.shape is [2] there and [3] here",
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "run"
    with closing(Trainer(World, algorithm_config=BASE, run_dir=path, track=False)) as trainer:
        trainer.step()
        trainer.save()
    return path


@pytest.mark.parametrize("name", OTHERS)
def test_what_differs_between_specs_is_named(name, world):
    traits, said = OTHERS[name]
    with pytest.raises(CheckpointError) as error:
        Trainer.resume(world, env_cls=type("Other", (World,), traits), track=False)
    words = f" is of another policy or environment than this one: {said}; that can't be changed"
    assert str(error.value).endswith(words)
    if name == "order":
        # To a model it doesn't matter in what order the environment names the parts.
        return
    # A model that was made for the other one is told the same way.
    other = type("Other", (World,), traits)(2)
    model = ContinuousMLP(other.observation_spec, other.action_spec)
    with pytest.raises(HparamsError) as error:
        Algorithm(World, **BASE, model=model)
    what = said.partition(" is ")[0]
    assert f"_spec of the model is not the environment's: {what} is " in str(error.value)


def test_options_of_a_model_are_named_one_by_one(runs, tmp_path_factory):
    run = copy_of(runs[0][Algorithm], tmp_path_factory)
    changes = {"model_config": {"hiddens": [4], "activation_fn": "tanh"}}
    with pytest.raises(CheckpointError) as error:
        Trainer.resume(run, algorithm_config=changes, track=False)
    assert "model_config.hiddens is [8] there and [4] here" in str(error.value)
    assert "model_config.activation_fn is" in str(error.value)
