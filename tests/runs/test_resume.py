"""What is stopped and resumed ends with the same bits as what never stopped."""

import itertools
from pathlib import Path

import pytest
import torch

from rlstack import Algorithm, RecurrentAlgorithm, Trainer
from rlstack.common.errors import CheckpointError, ConfigError, HparamsError, NonFiniteError, RunDirError
from rlstack.common.serialization import pack
from rlstack.env import CartPole, CartPoleV1, ContinuousDummyEnv, DiscreteDummyEnv, Env, MountainCar, Pendulum
from rlstack.runs import checkpoint
from rlstack.runs.kept import pointed
from rlstack.runs.restore import restore
from rlstack.tracking.journal import JOURNAL, read_rows

from ..helpers import SECRET, SEEN, SMALL, Veiled, update

DATA = Path(__file__).parents[1] / "data"
BASE = {"num_envs": 8, "horizon": 8, "seed": 1, "device": "cpu"}
INFO = {"collects": 0, "updates": 0, "env_steps": 0, "stats": {}}


def bits(algorithm):
    """Return all that training goes on from, as comparable values; Python's generator serves MLflow too."""
    state = algorithm.state_dict()
    return pack({**state, "random": {"torch": state["random"]["torch"]}}, "state")


def assert_same(one, other):
    (packed, tensors), (others, other_tensors) = bits(one), bits(other)
    assert packed == others
    assert tensors.keys() == other_tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(value, other_tensors[name]), name


def through_a_file(algorithm, directory):
    path = checkpoint.write(directory, 0, algorithm.policy, algorithm.state_dict(), INFO)
    return checkpoint.read(path)


def assert_goes_on_the_same(cls, env_cls, directory, **changes):
    options = {**BASE, **changes}
    whole = cls(env_cls, **options)
    for _ in range(5):
        update(whole)
    first = cls(env_cls, **options)
    for _ in range(3):
        update(first)
    said = through_a_file(first, directory)
    torch.manual_seed(99)
    second = cls(env_cls, **{**options, "seed": 7, "grad_block_size": first.hparams.grad_block_size})
    update(second)
    restore(second, said)
    assert_same(first, second)
    for _ in range(2):
        update(second)
    assert_same(whole, second)


MODES = list(
    itertools.product(
        (Algorithm, RecurrentAlgorithm),
        (1, 4, -1),
        ({}, {"enable_amp": True}),
        ({}, {"accumulate_grads": True}),
        ({}, {"lr_schedule": [(0, 1e-2), (300, 1e-3)], "lr_schedule_kind": "interp"}),
    )
)


@pytest.mark.parametrize(("cls", "resets", "amp", "accumulate", "schedule"), MODES, ids=str)
def test_every_mode(tmp_path, cls, resets, amp, accumulate, schedule):
    size = {"sgd_minibatch_size": 32 if cls is Algorithm else 8}
    assert_goes_on_the_same(
        cls,
        CartPole,
        tmp_path,
        horizons_per_env_reset=resets,
        normalize_observations=True,
        **amp,
        **accumulate,
        **schedule,
        **size,
    )


# 16 bits are slow on many CPUs, and have nothing to do with endings but where activations pass through both.
FEWER_IN_16_BITS = [mode for mode in MODES if not mode[2] or mode[1:] == (-1, mode[2], {}, {})]


@pytest.mark.parametrize(("cls", "resets", "amp", "accumulate", "schedule"), FEWER_IN_16_BITS, ids=str)
def test_every_mode_with_endings(tmp_path, cls, resets, amp, accumulate, schedule):
    keys = ("terminated", "valid") if schedule else ("terminated", "truncated", "final_obs")
    options = {**BASE, "horizons_per_env_reset": resets, "normalize_observations": True, **amp, **accumulate}
    options |= {"sgd_minibatch_size": 32 if cls is Algorithm else 8, **schedule}
    env_cls = type("Env", (Blinking,), {"keys": keys})
    whole, first = (cls(env_cls, **options) for _ in range(2))
    torch.manual_seed(0)
    for _ in range(4):
        update(whole)
    torch.manual_seed(0)
    update(first, 2)
    said = through_a_file(first, tmp_path)
    second = cls(env_cls, **options)
    restore(second, said)
    assert_same(first, second)
    stats = update(second, 2)
    assert_same(whole, second)
    assert stats["episodes/count"] > 0


class Blinking(CartPoleV1):
    """Episodes of up to 5 steps, and rows that aren't real transitions now and then."""

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config={"time_limit": 5}, device=device)

    def step(self, action):
        out = super().step(action)
        out["terminated"] = out["terminated"] | (out["truncated"] & ("truncated" not in self.keys))
        out["valid"] = self.age != 3
        return out.select("obs", "rewards", *self.keys)


@pytest.mark.parametrize("env_cls", [ContinuousDummyEnv, DiscreteDummyEnv, MountainCar, Pendulum])
@pytest.mark.parametrize("resets", [1, -1])
def test_every_environment(tmp_path, env_cls, resets):
    assert_goes_on_the_same(Algorithm, env_cls, tmp_path, horizons_per_env_reset=resets)


def test_a_second_memory(tmp_path):
    assert_goes_on_the_same(
        RecurrentAlgorithm,
        Veiled,
        tmp_path,
        horizons_per_env_reset=-1,
        seqs_per_state_reset=-1,
        normalize_observations=True,
        model_config={"hidden_size": 8, "policy_keys": SEEN, "value_keys": SECRET},
    )


class Remembers(torch.optim.SGD):
    """An optimizer whose state is nested."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state.setdefault("history", {"norms": [], "last": (0, None)})
                state["history"]["norms"].append(parameter.grad.norm())
                state["history"]["last"] = (len(state["history"]["norms"]), 0.5)
                parameter.grad.mul_(1 + 0.1 * state["history"]["norms"][0])
        return super().step(closure)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer_cls": Remembers, "optimizer_config": {"lr": 0.01, "momentum": 0.9}},
        {"optimizer_cls": torch.optim.AdamW, "optimizer_config": {"amsgrad": True}},
        {"optimizer_cls": torch.optim.RMSprop},
        {"optimizer_cls": torch.optim.Rprop},
        {"engine": "eager"},
        {"adaptive_lr": 1e-3},
        {"adaptive_lr": 1e-3, "optimizer_config": {"value": {"lr": 3e-3, "betas": (0.8, 0.9)}}},
        {"clip_param_schedule": [(0, 0.2), (300, 0.01)], "clip_param_schedule_kind": "interp"},
        {"entropy_coeff_schedule": [(0, 0.1), (200, 0.0)], "env_config": {"length": 0.7}},
    ],
    ids=str,
)
def test_other_optimizers_and_options(tmp_path, changes):
    assert_goes_on_the_same(Algorithm, CartPole, tmp_path, **changes)


def test_a_new_config_of_the_environment_stays(tmp_path):
    whole, first = (Algorithm(CartPole, **BASE) for _ in range(2))
    config = {"length": 0.9}
    torch.manual_seed(0)
    whole.collect(env_config=config)
    whole.step()
    update(whole)
    torch.manual_seed(0)
    first.collect(env_config=config)
    first.step()
    said = through_a_file(first, tmp_path)
    second = Algorithm(CartPole, **BASE)
    restore(second, said)
    update(second)
    assert second.env.config["length"] == 0.9
    assert_same(whole, second)


class Forgetful(Env):
    """Has no state_dict."""

    def __init__(self, num_envs, /, **kwargs):
        super().__init__(num_envs, **kwargs)
        inner = CartPole(num_envs, **kwargs)
        self.observation_spec, self.action_spec = inner.observation_spec, inner.action_spec
        self.reset, self.step = inner.reset, inner.step

    def reset(self, *, config=None): ...

    def step(self, action): ...


def test_an_environment_without_a_state_is_reset(tmp_path, caplog):
    first = Algorithm(Forgetful, **BASE, horizons_per_env_reset=2)
    update(first)
    said = through_a_file(first, tmp_path)
    second = Algorithm(Forgetful, **BASE, horizons_per_env_reset=2)
    restore(second, said)
    assert "Forgetful has no state_dict" in caplog.text
    assert second.collect()["env/resets"] == 8
    caplog.clear()
    assert_goes_on_the_same(Algorithm, Forgetful, tmp_path / "other", horizons_per_env_reset=1)
    assert not caplog.text


def test_evaluations_go_on_as_they_were(tmp_path):
    first = Algorithm(CartPole, **BASE)
    update(first)
    first.eval(env_config={"length": 0.8})
    second = Algorithm(CartPole, **BASE)
    restore(second, through_a_file(first, tmp_path))
    assert first.eval() == second.eval()
    assert second._eval_collector.env.config["length"] == 0.8
    assert_same(first, second)


@pytest.mark.parametrize(
    "other",
    [
        lambda: Algorithm(MountainCar, **BASE),
        lambda: Algorithm(CartPole, **BASE, model_config={"hiddens": [8]}),
        lambda: RecurrentAlgorithm(CartPole, **BASE),
        lambda: Algorithm(CartPole, **BASE, normalize_observations=True),
    ],
)
def test_the_checkpoint_of_another_algorithm_changes_nothing(tmp_path, other):
    first = Algorithm(CartPole, **BASE)
    update(first)
    said = through_a_file(first, tmp_path)
    second = other()
    update(second)
    before = bits(second)
    with pytest.raises(CheckpointError, match="ckpt-000000000"):
        restore(second, said)
    packed, tensors = bits(second)
    assert packed == before[0]
    assert all(torch.equal(value, before[1][name]) for name, value in tensors.items())


def test_half_an_update_is_not_kept():
    algorithm = Algorithm(CartPole, **BASE)
    algorithm.collect()
    with pytest.raises(RuntimeError, match="call step"):
        algorithm.state_dict()


OLD = {
    "feedforward": (
        Algorithm,
        CartPole,
        {
            **BASE,
            "model_config": {"hiddens": [4]},
            "normalize_observations": True,
            "horizons_per_env_reset": 4,
        },
    ),
    "recurrent": (RecurrentAlgorithm, Pendulum, {**BASE, "model_config": {"hidden_size": 4}}),
}


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("release", sorted(DATA.glob("checkpoints-*")), ids=lambda path: path.name)
def test_checkpoints_of_every_release_load(release, name):
    cls, env_cls, options = OLD[name]
    algorithm = cls(env_cls, **options)
    restore(algorithm, checkpoint.read_latest(release / name))
    assert algorithm.env_steps == 128
    assert algorithm.learner.updates == 2
    assert algorithm.advantages.return_moments.count == 128
    assert update(algorithm)["env/resets"] == (0 if options.get("horizons_per_env_reset") else 8)


OPTIONS = {"algorithm_config": {**BASE, "model_config": {"hiddens": [8]}}}


class TestTrainer:
    def make(self, tmp_path, **changes):
        return Trainer(CartPole, **OPTIONS, run_dir=tmp_path / "run", **changes)

    def test_resumes_with_the_same_bits(self, tracked, tmp_path):
        whole = Trainer(CartPole, **OPTIONS)
        for _ in range(5):
            whole.step()
        first = self.make(tmp_path, checkpoint_config={"every_updates": 2})
        for _ in range(5):
            first.step()
        first.close()
        second = Trainer.resume(tmp_path / "run")
        assert second.steps == 4
        stats = second.step()
        assert stats["algorithm/steps"] == stats["algorithm/collects"] == 5
        assert stats["env/total_steps"] == 5 * 64
        assert_same(whole.algorithm, second.algorithm)
        assert [path.name for path in checkpoint.numbered(tmp_path / "run" / "checkpoints")] == [
            "ckpt-000000004",
            "ckpt-000000002",
        ]
        whole.close()
        second.close()

    def test_keeps_the_last_and_the_best(self, tracked, tmp_path):
        trainer = self.make(tmp_path, checkpoint_config={"every_updates": 1, "keep": 2})
        means = [trainer.step()["returns/mean"] for _ in range(6)]
        best = 1 + means.index(max(means))
        directory = trainer.run_dir.checkpoints
        left = {int(path.name[5:]) for path in checkpoint.numbered(directory)}
        assert left == {5, 6, best}
        assert pointed(directory, "best").name == f"ckpt-{best:09d}"
        assert pointed(directory, "latest").name == "ckpt-000000006"
        trainer.close()

    def test_a_run_ends_with_a_checkpoint(self, tracked, tmp_path):
        from rlstack.conditions import HitsUpperBound

        trainer = self.make(tmp_path)
        trainer.run(stop_conditions=[HitsUpperBound("algorithm/steps", 3)])
        trainer.close()
        resumed = Trainer.resume(tmp_path / "run")
        # It was over, and is.
        assert resumed.run(stop_conditions=[HitsUpperBound("algorithm/steps", 3)]) == {}
        assert resumed.steps == 3
        assert resumed.run(stop_conditions=[HitsUpperBound("algorithm/steps", 5)])["algorithm/steps"] == 5

    def test_directories_are_not_mixed_up(self, tracked, tmp_path):
        trainer = self.make(tmp_path)
        trainer.step()
        with pytest.raises(RunDirError, match="in use by another trainer of this process, at update 1"):
            self.make(tmp_path)
        trainer.save()
        trainer.close()
        with pytest.raises(RunDirError, match=r"use Trainer\.resume"):
            self.make(tmp_path)
        with pytest.raises(RunDirError, match="is not a run directory"):
            Trainer.resume(tmp_path)
        with pytest.raises(ValueError, match="needs a run_dir"):
            Trainer(CartPole, **OPTIONS, checkpoint_config={})

    def test_a_full_disk_stops_nothing(self, tracked, tmp_path, monkeypatch, caplog):
        trainer = self.make(tmp_path, checkpoint_config={"every_updates": 1})

        def full(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoint, "write", full)
        trainer.step()
        assert "no checkpoint could be written, training goes on: [Errno 28] No space left" in caplog.text
        monkeypatch.undo()
        trainer.step()
        assert trainer.run_dir.saved == 2
        trainer.close()

    def test_a_custom_class_is_found_or_handed_over(self, tracked, tmp_path):
        trainer = Trainer(lambda *args, **kwargs: CartPole(*args, **kwargs), **OPTIONS, run_dir=tmp_path)
        trainer.step()
        trainer.save()
        trainer.close()
        with pytest.raises(ConfigError, match="env is"):
            Trainer.resume(tmp_path)
        resumed = Trainer.resume(tmp_path, env_cls=CartPole)
        assert resumed.steps == 1
        resumed.close()

    def test_load_takes_a_directory_or_a_checkpoint(self, tracked, tmp_path):
        trainer = Trainer(CartPole, **OPTIONS)
        with pytest.raises(ValueError, match="no run_dir"):
            trainer.save()
        trainer.step()
        path = trainer.save(tmp_path)
        for where in (path, tmp_path):
            other = Trainer(CartPole, **OPTIONS)
            other.load(where)
            assert_same(trainer.algorithm, other.algorithm)
            other.close()
        trainer.close()

    def test_a_diverged_run_is_never_a_checkpoint(self, tracked, tmp_path):
        trainer = self.make(tmp_path, checkpoint_config={"every_updates": 1})
        trainer.step()
        with torch.no_grad():
            trainer.algorithm.policy.model.value[0].weight.fill_(torch.nan)
        with pytest.raises(NonFiniteError):
            trainer.step()
        assert trainer.run_dir.saved == 1
        trainer.close()


class TestLoad:
    def make(self, directory=None, **options):
        config = {"num_envs": 4, "horizon": 4, "model_config": SMALL, "device": "cpu", **options}
        every = {"every_updates": 2, "every_seconds": None, "keep": 9}
        kept = {} if directory is None else {"run_dir": directory, "checkpoint_config": every}
        return Trainer(DiscreteDummyEnv, algorithm_config=config, track=False, **kept)

    def test_a_run_does_not_go_back_behind_its_own_checkpoints(self, tmp_path):
        trainer = self.make(tmp_path / "run")
        for _ in range(4):
            trainer.step()
        with pytest.raises(RunDirError, match="holds later checkpoints, like ckpt-000000004"):
            trainer.load(tmp_path / "run" / "checkpoints" / "ckpt-000000002")
        trainer.step()
        trainer.load(tmp_path / "run" / "checkpoints" / "ckpt-000000004")
        trainer.step()
        trainer.close()
        assert [row.step for row in read_rows(tmp_path / "run" / JOURNAL)] == [16, 32, 48, 64, 80]

    def test_the_checkpoint_is_that_of_the_trainer_that_saved_it(self, tmp_path):
        one, two = self.make(seed=1), self.make(seed=2)
        for trainer in (one, two):
            trainer.step()
            path = trainer.save(tmp_path / "shared")
        saved = checkpoint.read(path).state["policy"]
        assert all(torch.equal(value, saved[key]) for key, value in two.algorithm.policy.state_dict().items())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("on_nonfinite: raise", "on_nonfinite: ignore"),
        ("on_nonfinite: raise", "on_nonfinite: 3"),
        ("system_metrics: false", "system_metrics: often"),
        ("    every_updates: null", "    every_updates: -1"),
    ],
)
def test_a_config_that_was_edited_badly_is_refused(line, said, tmp_path):
    trainer = TestLoad().make(tmp_path / "run")
    trainer.step()
    trainer.save()
    trainer.close()
    file = tmp_path / "run" / "config.yaml"
    text = file.read_text().replace("every_updates: 2", "every_updates: null")
    assert line in text
    file.write_text(text.replace(line, said))
    with pytest.raises(HparamsError):
        Trainer.resume(tmp_path / "run", track=False)
    file.write_text(text)
    Trainer.resume(tmp_path / "run", track=False).close()


def test_a_failing_evaluation_costs_no_update(tmp_path):
    class Faulty(DiscreteDummyEnv.__mro__[1]):
        made = 0

        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.action_spec = DiscreteDummyEnv(1).action_spec
            type(self).made += 1
            self.bad = self.made > 1

        def _displacement(self, action):
            return (2 * action - 1) * (torch.nan if self.bad else 1)

    trainer = Trainer(
        Faulty,
        algorithm_config={"num_envs": 4, "horizon": 4, "model_config": SMALL, "device": "cpu"},
        run_dir=tmp_path / "run",
        track=False,
    )
    with pytest.raises(NonFiniteError):
        trainer.run(steps_per_eval=3)
    trainer.close()
    assert len(list(read_rows(tmp_path / "run" / JOURNAL))) == 3
