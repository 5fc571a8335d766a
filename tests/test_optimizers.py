"""Optimizers that work or are refused by name, and parts of models that are compiled."""

import inspect

import pytest
import torch

from rlstack import Algorithm, HparamsError, Policy, RecurrentAlgorithm, RecurrentPolicy, Trainer
from rlstack.env import CartPole
from rlstack.models import DiscreteLSTM, DiscreteMLP

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


@pytest.mark.parametrize(
    ("algorithm_cls", "policy_cls", "model_cls", "options"),
    [
        (Algorithm, Policy, DiscreteMLP, {"hiddens": (8,)}),
        (RecurrentAlgorithm, RecurrentPolicy, DiscreteLSTM, {"hidden_size": 8}),
    ],
)
def test_a_compiled_model_is_helped_on(algorithm_cls, policy_cls, model_cls, options):
    spec = CartPole(1)
    model = torch.compile(model_cls(spec.observation_spec, spec.action_spec, **options), backend="eager")
    words = f"model is a compiled {model_cls.__name__}, .*engine='compile'"
    with pytest.raises(HparamsError, match=words):
        algorithm_cls(CartPole, num_envs=8, horizon=4, device="cpu", model=model)
    with pytest.raises(TypeError, match=words):
        policy_cls(model)


def compiled(algorithm):
    model = algorithm.policy.model
    model.policy = torch.compile(model.policy, backend="eager")
    return algorithm


def test_a_policy_with_a_compiled_part_is_saved_as_if_it_were_not(tmp_path):
    algorithm = compiled(Algorithm(CartPole, **BASE))
    update(algorithm)
    policy = algorithm.policy
    assert not [name for name in policy.state_dict() if "_orig_mod" in name]
    policy.save(tmp_path / "policy.safetensors")
    plain = Policy.load(tmp_path / "policy.safetensors")
    obs = torch.randn(5, 4)
    assert torch.allclose(plain.act(obs).values, policy.act(obs).values)
    # And back into one with a compiled part, by plain names and by those of earlier files.
    other = compiled(Algorithm(CartPole, **{**BASE, "seed": 1})).policy
    other.load_state_dict(plain.state_dict())
    assert torch.equal(torch.cat([p.flatten() for p in other.parameters()]), parameters(algorithm))
    earlier = {
        name.replace("policy.", "policy._orig_mod."): value for name, value in plain.state_dict().items()
    }
    fresh = Algorithm(CartPole, **{**BASE, "seed": 2}).policy
    fresh.load_state_dict(earlier)
    assert torch.equal(torch.cat([p.flatten() for p in fresh.parameters()]), parameters(algorithm))


@pytest.mark.parametrize(
    "ways", [(compiled, lambda algorithm: algorithm), (lambda algorithm: algorithm, compiled)]
)
def test_checkpoints_go_between_compiled_and_not(ways, tmp_path):
    config = {**BASE, "engine": "eager"}
    first, second = (Trainer(CartPole, algorithm_config=config, track=False) for _ in range(2))
    ways[0](first.algorithm)
    first.step()
    path = first.save(tmp_path)
    ways[1](second.algorithm)
    second.step()
    second.load(path)
    assert torch.equal(parameters(first.algorithm), parameters(second.algorithm))
    for trainer in (first, second):
        torch.manual_seed(9)
        trainer.step()
    assert torch.allclose(parameters(first.algorithm), parameters(second.algorithm), atol=1e-6)
