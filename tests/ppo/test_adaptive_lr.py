"""A learning rate that follows the KL estimate of each optimizer step."""

from functools import partial

import pytest
import torch

from rlstack import Algorithm, HparamsError, RecurrentAlgorithm, Trainer
from rlstack.env import CartPole
from rlstack.ppo.optimizer_options import adapted_lr
from rlstack.ppo.step_record import StepRecord

from ..helpers import parameters, update
from ..runs.test_resume import assert_goes_on_the_same
from ..standin import StandIn, like_on_a_gpu, record

BASE = {"num_envs": 8, "horizon": 8, "seed": 1, "device": "cpu", "num_sgd_iters": 3}
CONFIG = {Algorithm: {"hiddens": [16]}, RecurrentAlgorithm: {"hidden_size": 8}}
DESIRED = 1e-4
WAYS = {
    "eager": lambda make, *args, **options: make(*args, **options, engine="eager"),
    "kernels": lambda make, *args, **options: make(*args, **options),
    "device": partial(like_on_a_gpu, engine="eager"),
    "recorded": partial(record, engine="eager"),
}
OPTIMIZERS = [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop]
EACH_WAY = pytest.mark.parametrize("way", WAYS)


def make(way, cls=Algorithm, **changes):
    return WAYS[way](cls, CartPole, **{**BASE, "model_config": CONFIG[cls], **changes})


def replayed(lr, algorithm, desired=DESIRED):
    """The rule in plain Python, on what is known of an update's steps."""
    for row in algorithm.learner.records().tolist():
        step = StepRecord(*row)
        if step.tried and step.kl_div > 2 * desired:
            lr = max(lr / 1.5, 1e-5)
        elif step.tried and step.kl_div < 0.5 * desired:
            lr = min(lr * 1.5, 1e-2)
    return lr


@EACH_WAY
@pytest.mark.parametrize(
    ("cls", "optimizer_cls"),
    [*((Algorithm, optimizer_cls) for optimizer_cls in OPTIMIZERS), (RecurrentAlgorithm, OPTIMIZERS[0])],
)
def test_every_step_follows_the_rule(cls, optimizer_cls, way):
    size = 16 if cls is Algorithm else 4
    algorithm = make(way, cls, optimizer_cls=optimizer_cls, sgd_minibatch_size=size, adaptive_lr=DESIRED)
    lr, seen = 1e-3, set()
    for _ in range(6):
        before, stats = lr, update(algorithm)
        lr = replayed(lr, algorithm)
        seen.add(lr > before)
        assert stats["coefficients/lr"] == pytest.approx(lr, rel=1e-5)
        assert float(algorithm.learner.optimizer.param_groups[0]["lr"]) == stats["coefficients/lr"]
    if optimizer_cls is torch.optim.Adam:
        assert seen == {True, False}
    assert way != "recorded" or StandIn.replays


@EACH_WAY
def test_a_step_is_made_with_the_rate_of_its_own_estimate(way):
    plain = {"optimizer_cls": torch.optim.SGD, "max_grad_norm": None, "num_sgd_iters": 1}
    algorithm = make(way, **plain, adaptive_lr=1.0)
    for number in range(1, 4):
        before = parameters(algorithm)
        norm = update(algorithm)["monitors/grad_norm"]
        # One step, on policy: its estimate is 0.
        assert (parameters(algorithm) - before).norm().item() == pytest.approx(
            1e-3 * 1.5**number * norm, rel=1e-3
        )


@EACH_WAY
def test_cancelled_steps_leave_the_rate(way):
    algorithm = make(way, adaptive_lr=DESIRED, target_kl_div=DESIRED, num_sgd_iters=8)
    lr, cancelled = 1e-3, 0
    for _ in range(6):
        stats, lr = update(algorithm), replayed(lr, algorithm)
        assert stats["coefficients/lr"] == pytest.approx(lr, rel=1e-5)
        made = [StepRecord(*row).made for row in algorithm.learner.records().tolist()]
        cancelled += made.count(0.0) + (8 - len(made))
    assert cancelled > 0


@pytest.mark.parametrize(
    ("lr", "kl_div", "expected"),
    [
        (1e-3, 0.0201, 1e-3 / 1.5),
        (1e-3, 0.0199, 1e-3),
        (1e-3, 0.0051, 1e-3),
        (1e-3, 0.0049, 1.5e-3),
        (1e-3, 0.0, 1.5e-3),
        (1e-3, float("nan"), 1e-3),
        (1e-3, float("inf"), 1e-3 / 1.5),
        (8e-3, 0.0, 1e-2),
        (1.2e-5, 1.0, 1e-5),
        (1e-2, 0.0, 1e-2),
        (1e-5, 1.0, 1e-5),
        (0.5, 0.0, 0.5),
        (0.5, 1.0, 0.5 / 1.5),
        (1e-6, 1.0, 1e-6),
        (1e-6, 0.0, 1.5e-6),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rule(lr, kl_div, expected, dtype):
    got = adapted_lr(torch.tensor(lr, dtype=dtype), torch.tensor(kl_div), 0.01)
    assert got.item() == pytest.approx(expected, rel=1e-6)


@EACH_WAY
@pytest.mark.parametrize("optimizer_cls", [torch.optim.Adam, torch.optim.RMSprop])
def test_goes_on_to_the_bit(tmp_path, way, optimizer_cls):
    algorithm = partial(WAYS[way], Algorithm)
    changes = {"model_config": CONFIG[Algorithm], "num_sgd_iters": 3, "adaptive_lr": DESIRED}
    assert_goes_on_the_same(algorithm, CartPole, tmp_path, optimizer_cls=optimizer_cls, **changes)


@EACH_WAY
def test_a_rate_set_by_hand_or_taken_back_is_where_it_goes_on_from(way):
    algorithm = make(way, adaptive_lr=DESIRED)
    update(algorithm, 3)
    algorithm.learner.optimizer.param_groups[0]["lr"] = 2e-4
    assert update(algorithm)["coefficients/lr"] == pytest.approx(replayed(2e-4, algorithm), rel=1e-5)
    state, lr = algorithm.state_dict(), float(algorithm.learner.optimizer.param_groups[0]["lr"])
    other = make(way, adaptive_lr=DESIRED)
    other.load_state_dict(state)
    other.learner.scale_lr(0.5)
    assert update(other)["coefficients/lr"] == pytest.approx(replayed(0.5 * lr, other), rel=1e-5)


def test_after_nan_it_goes_on_from_half_the_rate_of_the_checkpoint(tmp_path):
    config = {**BASE, "model_config": CONFIG[Algorithm], "adaptive_lr": DESIRED}
    checkpoints = {"every_updates": 1, "every_seconds": None}
    trainer = Trainer(
        CartPole, algorithm_config=config, run_dir=tmp_path / "run", checkpoint_config=checkpoints,
        on_nonfinite="restore", track=False,
    )  # fmt: skip
    lr = [trainer.step()["coefficients/lr"] for _ in range(2)][-1]
    gradient, faults = trainer.algorithm.learner.gradient, iter([True])

    def once(*arguments):
        losses = gradient(*arguments)
        return losses * torch.nan if next(faults, False) else losses

    trainer.algorithm.learner.gradient = once
    stats = trainer.step()
    assert stats["coefficients/lr"] == pytest.approx(replayed(0.5 * lr, trainer.algorithm), rel=1e-5)
    trainer.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"lr_schedule": [(0, 1e-3)]},
            "adaptive_lr excludes lr_schedule: let one of them say the learning rate",
        ),
        ({"adaptive_lr": 0.0}, r"adaptive_lr is 0\.0, expected a number above 0"),
        ({"adaptive_lr": "adaptive"}, "adaptive_lr is 'adaptive', expected a number"),
        ({"optimizer_config": {"lr": 0.05}}, r"optimizer_config\.lr is 0\.05, expected 1e-05 to 0\.01"),
        ({"desired_kl": 0.01}, "desired_kl is not a hyperparameter: here it is adaptive_lr"),
        ({"schedule": "adaptive"}, "schedule is not a hyperparameter: here it is adaptive_lr"),
        (
            {"kl_threshold": 0.01},
            "kl_threshold is not a hyperparameter: here it is adaptive_lr.* target_kl_div",
        ),
    ],
)
def test_what_can_not_be_is_named(options, words):
    with pytest.raises(HparamsError, match=words):
        Algorithm(CartPole, **{**BASE, "adaptive_lr": 0.01, **options})
