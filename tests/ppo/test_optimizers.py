"""Every optimizer of torch's makes an update or is refused by name, and so is any option of another type."""

import re

import pytest
import torch

from rlstack import Algorithm, HparamsError, RecurrentAlgorithm
from rlstack.env import DiscreteDummyEnv

from ..helpers import SMALL, parameters, update

BASE = {"num_envs": 8, "horizon": 4, "seed": 0, "device": "cpu", "num_sgd_iters": 2}
CLASSES = [cls for cls in vars(torch.optim).values() if isinstance(cls, type)]
REFUSED = {
    "LBFGS": "which needs a closure",
    "Muon": "Muon only supports 2D parameters",
    "Optimizer": "which takes no learning rate lr",
    "SparseAdam": "which can't make a step on these parameters .*SparseAdam does not support dense gradients",
}


@pytest.mark.parametrize("cls", [Algorithm, RecurrentAlgorithm])
@pytest.mark.parametrize("optimizer_cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_of_torchs(optimizer_cls, cls):
    config = SMALL if cls is Algorithm else {"hidden_size": 8}
    options = {**BASE, "model_config": config, "optimizer_cls": optimizer_cls}
    name = optimizer_cls.__name__
    if name in REFUSED:
        with pytest.raises(HparamsError, match=REFUSED[name]) as error:
            cls(DiscreteDummyEnv, **options)
        assert f"optimizer_cls is {name}" in str(error.value)
        return
    algorithm = cls(DiscreteDummyEnv, **options)
    before = parameters(algorithm)
    update(algorithm)
    assert not torch.equal(parameters(algorithm), before)
    assert parameters(algorithm).isfinite().all()


NUMBERS = "expected 2 numbers, like (0.9, 0.999)"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": (1e-4, 1e-3)}, "optimizer_config.lr is (0.0001, 0.001), expected a number"),
        ({"lr": "1e-3"}, "optimizer_config.lr is '1e-3', expected a number"),
        ({"lr": True}, "optimizer_config.lr is True, expected a number"),
        ({"lr": None}, "optimizer_config.lr is None, expected a number"),
        ({"lr": float("nan")}, "optimizer_config.lr is nan, expected a number"),
        ({"lr": float("inf")}, "optimizer_config.lr is inf, expected a number"),
        ({"eps": [1e-8]}, "optimizer_config.eps is [1e-08], expected a number"),
        ({"weight_decay": "0"}, "optimizer_config.weight_decay is '0', expected a number"),
        ({"betas": 0.9}, f"optimizer_config.betas is 0.9, {NUMBERS}"),
        ({"betas": (0.9, "x")}, f"optimizer_config.betas is (0.9, 'x'), {NUMBERS}"),
        ({"betas": (0.9,)}, f"optimizer_config.betas is (0.9,), {NUMBERS}"),
        ({"amsgrad": 1}, "optimizer_config.amsgrad is 1, expected True or False"),
        ({"foreach": "yes"}, "optimizer_config.foreach is 'yes', expected True, False or None"),
        ({"capturable": True}, "optimizer_cls is Adam, which can't make a step"),
        ({"differentiable": True}, "optimizer_cls is Adam, which can't make a step"),
        ({"fused": True, "foreach": True}, "optimizer_config: `fused` and `foreach` cannot be `True`"),
    ],
)
def test_options_of_another_type_are_named(options, words):
    with pytest.raises(HparamsError, match=re.escape(words)):
        Algorithm(DiscreteDummyEnv, **BASE, model_config=SMALL, optimizer_config=options)


@pytest.mark.parametrize(
    "options", [{"betas": [0.8, 0.9]}, {"lr": torch.tensor(1e-3)}, {"foreach": None}, {"lr": 1}]
)
def test_options_that_fit_are_taken(options):
    algorithm = Algorithm(DiscreteDummyEnv, **BASE, model_config=SMALL, optimizer_config=options)
    before = parameters(algorithm)
    update(algorithm)
    assert not torch.equal(parameters(algorithm), before)


class Noisy(torch.optim.SGD):
    """Draws random numbers, and can't make its first step where its class says so."""

    broken = False

    def step(self, closure=None):
        torch.rand(3)
        if self.broken:
            raise ZeroDivisionError("no\nmore")
        return super().step(closure)


def test_an_optimizer_is_tried_without_taking_random_numbers():
    algorithm = Algorithm(DiscreteDummyEnv, **BASE, model_config=SMALL, optimizer_cls=Noisy)
    after = torch.get_rng_state()
    Algorithm(DiscreteDummyEnv, **BASE, model_config=SMALL, optimizer_cls=torch.optim.SGD)
    assert torch.equal(torch.get_rng_state(), after)
    assert not algorithm.learner.optimizer.state
    broken = type("Broken", (Noisy,), {"broken": True})
    with pytest.raises(
        HparamsError, match=r"optimizer_cls is Broken, .*\(ZeroDivisionError: no\): use another"
    ):
        Algorithm(DiscreteDummyEnv, **BASE, optimizer_cls=broken)


def test_an_activation_of_another_type_is_named():
    with pytest.raises(HparamsError, match=re.escape("activation_fn is ['relu']: ")):
        Algorithm(DiscreteDummyEnv, **BASE, model_config={"activation_fn": ["relu"]})
