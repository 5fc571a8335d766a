"""Training goes on after NaN or infinity, if that is asked for, and a bounded number of times."""

import logging

import pytest
import torch

from rlstack import Trainer
from rlstack.common.errors import NonFiniteError
from rlstack.conditions import HitsUpperBound
from rlstack.env import DiscreteDummyEnv

from ..helpers import SMALL

CONFIG = {"num_envs": 4, "horizon": 4, "device": "cpu", "seed": 0, "model_config": SMALL}


class Sometimes(DiscreteDummyEnv):
    """Returns NaN in the horizons that its config names."""

    bad = ()
    resets = 0

    def reset(self, *, config=None):
        type(self).resets += 1
        return super().reset(config=config)

    def step(self, action):
        out = super().step(action)
        if self.resets in self.bad:
            out["rewards"] = torch.full_like(out["rewards"], torch.nan)
        return out


def faulty(*bad):
    return type("Faulty", (Sometimes,), {"bad": bad})


def make(env_cls, **options):
    return Trainer(env_cls, algorithm_config=CONFIG, track=False, **options)


def after(updates):
    return [HitsUpperBound("algorithm/steps", updates)]


def test_raised_by_default():
    trainer = make(faulty(3))
    with pytest.raises(NonFiniteError, match="rewards of environment 0 from Faulty"):
        trainer.run(stop_conditions=after(5))
    assert trainer.steps == 2


def test_skipped(caplog):
    trainer = make(faulty(3, 4), on_nonfinite="skip")
    with caplog.at_level(logging.WARNING, logger="rlstack.training.nonfinite"):
        stats = trainer.run(stop_conditions=after(5))
    assert caplog.text.count("skipped: rewards of environment 0") == 2
    assert (trainer.steps, trainer.collects, stats["env/total_steps"]) == (5, 5, 80)


def test_skipping_has_an_end():
    trainer = make(faulty(*range(2, 100)), on_nonfinite="skip")
    with pytest.raises(NonFiniteError, match="after 10 others in a row"):
        trainer.run(stop_conditions=after(5))
    assert trainer.steps == 1


def test_a_step_can_be_skipped_too(caplog):
    # Eager: steps one by one.
    config = {**CONFIG, "engine": "eager"}
    trainer = Trainer(DiscreteDummyEnv, algorithm_config=config, track=False, on_nonfinite="skip")
    trainer.step()
    gradient, calls = trainer.algorithm.learner.gradient, iter([False, True])

    def once(sequences, index):
        losses = gradient(sequences, index)
        return losses * torch.nan if next(calls, False) else losses

    trainer.algorithm.learner.gradient = once
    trainer.step()
    assert (trainer.steps, trainer.collects) == (2, 3)
    assert "skipped: the loss is NaN or infinite" in caplog.text


class TestRestore:
    def run_dir(self, tmp_path, env_cls, every=2):
        checkpoints = {"every_updates": every, "every_seconds": None}
        return make(env_cls, run_dir=tmp_path / "run", checkpoint_config=checkpoints, on_nonfinite="restore")

    def test_goes_back_with_a_lower_learning_rate(self, tmp_path, caplog):
        trainer = self.run_dir(tmp_path, faulty(4))
        stats = [trainer.step() for _ in range(5)]
        assert "went back to" in caplog.text
        assert "ckpt-000000002" in caplog.text
        assert [s["coefficients/lr"] for s in stats] == [1e-3, 1e-3, 1e-3, 5e-4, 5e-4]
        assert [s["env/total_steps"] for s in stats] == [16, 32, 48, 64, 80]
        # A later run knows.
        trainer.save()
        trainer.close()
        again = Trainer.resume(tmp_path / "run", env_cls=DiscreteDummyEnv, track=False)
        assert again.step()["coefficients/lr"] == 5e-4
        again.close()

    def test_the_policy_is_that_of_the_checkpoint(self, tmp_path):
        trainer = self.run_dir(tmp_path, faulty(4))
        trainer.step()
        trainer.step()
        before = {key: value.clone() for key, value in trainer.algorithm.policy.state_dict().items()}
        trainer.step()
        seen = {}

        def collect(**options):
            seen.update({key: value.clone() for key, value in trainer.algorithm.policy.state_dict().items()})
            return original(**options)

        original, trainer.algorithm.collect = trainer.algorithm.collect, collect
        trainer.step()
        assert all(torch.equal(value, seen[key]) for key, value in before.items())

    def test_there_is_always_something_to_go_back_to(self, tmp_path):
        trainer = self.run_dir(tmp_path, faulty(1), every=100)
        assert trainer.step()["coefficients/lr"] == 5e-4

    def test_has_an_end(self, tmp_path):
        trainer = self.run_dir(tmp_path, faulty(*range(2, 100)))
        trainer.step()
        with pytest.raises(NonFiniteError, match=r"learning rate at 0\.125"):
            trainer.step()
        trainer.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on_nonfinite": "restore"}, "needs a run_dir"),
        ({"on_nonfinite": "ignore"}, "expected raise, skip or restore"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(ValueError, match=said):
        make(DiscreteDummyEnv, **options)
