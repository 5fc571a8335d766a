"""Optimizers work or are refused by name."""

import inspect

import pytest
import torch

from rlstack import Algorithm, HparamsError
from rlstack.env import CartPole

from .helpers import SMALL, parameters, update

BASE = {"num_envs": 8, "horizon": 4, "seed": 0, "device": "cpu", "model_config": SMALL}
OPTIMIZERS = {
    name: cls
    for name, cls in vars(torch.optim).items()
    if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
}
REFUSED = {"SparseAdam": "dense", "LBFGS": "closure", "Muon": "2D"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_torch_trains_or_is_refused_by_name(name):
    config = {**BASE, "optimizer_cls": OPTIMIZERS[name], "optimizer_config": {"lr": 1e-3}}
    if name in REFUSED:
        with pytest.raises(HparamsError, match=f"(?s){name}.*{REFUSED[name]}|{REFUSED[name]}.*{name}"):
            Algorithm(CartPole, **config)
        return
    algorithm = Algorithm(CartPole, **config)
    before = parameters(algorithm)
    update(algorithm)
    assert not torch.equal(parameters(algorithm), before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": (1e-4, 1e-3)}, r"optimizer_config.lr is \(0.0001, 0.001\), expected a number"),
        ({"lr": "1e-3"}, "optimizer_config.lr is '1e-3', expected a number"),
        ({"lr": None}, "optimizer_config.lr is None, expected a number"),
        ({"lr": True}, "optimizer_config.lr is True, expected a number"),
        ({"lr": float("nan")}, "optimizer_config.lr is nan, expected a number"),
        ({"lr": float("inf")}, "optimizer_config.lr is inf, expected a number"),
        ({"eps": "1e-8"}, "optimizer_config.eps is '1e-8', expected a number"),
        ({"weight_decay": [0.1]}, r"optimizer_config.weight_decay is \[0.1\], expected a number"),
        ({"betas": 0.9}, r"optimizer_config.betas is 0.9, expected 2 numbers, like \(0.9, 0.999\)"),
        ({"betas": (0.9,)}, r"optimizer_config.betas is \(0.9,\), expected 2 numbers"),
        ({"betas": (0.9, "x")}, "expected 2 numbers"),
        ({"amsgrad": 1}, "optimizer_config.amsgrad is 1, expected True or False"),
        ({"lr": -1.0}, "Invalid learning rate"),
        ({"betas": (0.9, 2.0)}, "Invalid beta"),
    ],
)
def test_options_of_another_kind_are_named(options, words):
    with pytest.raises(HparamsError, match=words):
        Algorithm(CartPole, **BASE, optimizer_config=options)


def test_options_may_be_lists_and_numbers_of_any_kind():
    options = {"betas": [0.8, 0.9], "weight_decay": 1, "lr": torch.tensor(1e-3).numpy().item()}
    update(Algorithm(CartPole, **BASE, optimizer_config=options))


def test_a_trial_leaves_parameters_and_random_numbers_alone():
    class Noisy(torch.optim.SGD):
        def step(self, closure=None):
            torch.rand(3)
            return super().step(closure)

    made = []
    for cls in (torch.optim.SGD, Noisy):
        torch.manual_seed(5)
        made.append((Algorithm(CartPole, **{**BASE, "seed": None}, optimizer_cls=cls), torch.rand(2)))
    assert torch.equal(made[0][1], made[1][1])
    assert torch.equal(parameters(made[0][0]), parameters(made[1][0]))
