"""Options of the optimizer for single parts of the model."""

import re
from functools import partial

import pytest
import torch

from rlstack import Algorithm, HparamsError, RecurrentAlgorithm
from rlstack.env import CartPole, DiscreteDummyEnv
from rlstack.models import DiscreteMLP, Model

from ..helpers import SMALL, update
from ..runs.test_resume import assert_goes_on_the_same, assert_same
from ..standin import like_on_a_gpu, record

BASE = {"num_envs": 8, "horizon": 8, "seed": 1, "device": "cpu", "num_sgd_iters": 2}
CONFIG = {Algorithm: SMALL, RecurrentAlgorithm: {"hidden_size": 8}}
PARTS = {"lr": 1e-3, "value": {"lr": 3e-3, "betas": (0.8, 0.9)}}
WAYS = {
    "eager": lambda make, *args, **options: make(*args, **options, engine="eager"),
    "kernels": lambda make, *args, **options: make(*args, **options),
    "device": partial(like_on_a_gpu, engine="eager"),
    "recorded": partial(record, engine="eager"),
}
EACH_WAY = pytest.mark.parametrize("way", WAYS)


def make(way="eager", cls=Algorithm, **changes):
    return WAYS[way](cls, CartPole, **{**BASE, "model_config": CONFIG[cls], **changes})


def named(algorithm):
    return {name.removeprefix("model."): value for name, value in algorithm.policy.named_parameters()}


def rates(algorithm):
    """By parameter its learning rate."""
    names = {id(value): name for name, value in named(algorithm).items()}
    groups = algorithm.learner.optimizer.param_groups
    return {names[id(value)]: float(group["lr"]) for group in groups for value in group["params"]}


@EACH_WAY
@pytest.mark.parametrize("cls", CONFIG)
def test_a_part_moves_at_its_own_rate(cls, way):
    # Plain steps: a parameter moves by its rate times the same gradient.
    plain = {"optimizer_cls": torch.optim.SGD, "num_sgd_iters": 1}
    moved = {}
    for factor in (1, 3, 0):
        algorithm = make(way, cls, **plain, optimizer_config={"lr": 0.01, "value": {"lr": 0.01 * factor}})
        before = {name: value.detach().clone() for name, value in named(algorithm).items()}
        update(algorithm)
        moved[factor] = {name: value.detach() - before[name] for name, value in named(algorithm).items()}
    for name, change in moved[1].items():
        for factor in (3, 0):
            expected = change * factor if name.startswith("value.") else change
            assert torch.allclose(moved[factor][name], expected, atol=1e-6), name
    assert any(change.any() for name, change in moved[1].items() if name.startswith("value."))


@EACH_WAY
def test_options_are_those_of_an_optimizer_of_its_own(way):
    own = {"lr": 3e-3, "betas": (0.8, 0.9), "weight_decay": 0.1}
    made = []
    for config in (own, {"value": own}, None):
        made.append(make(way, max_grad_norm=None, num_sgd_iters=1, optimizer_config=config))
        update(made[-1])
    whole, parted, rest = made
    for name, value in named(parted).items():
        assert torch.equal(value, named(whole if name.startswith("value.") else rest)[name]), name


@EACH_WAY
@pytest.mark.parametrize(
    "how", [{"lr_schedule": [(0, 4e-3), (128, 2e-3)]}, {"adaptive_lr": 1e-4}], ids=["schedule", "adaptive"]
)
def test_parts_keep_their_proportion(way, how):
    algorithm = make(way, optimizer_config=PARTS, **how)
    seen = set()
    for _ in range(4):
        lr = update(algorithm)["coefficients/lr"]
        seen.add(lr)
        for name, rate in rates(algorithm).items():
            assert rate == pytest.approx(3 * lr if name.startswith("value.") else lr, rel=1e-6)
    assert len(seen) > 1
    algorithm.learner.scale_lr(0.5)
    for name, rate in rates(algorithm).items():
        assert rate == pytest.approx((1.5 if name.startswith("value.") else 0.5) * lr, rel=1e-6)


@EACH_WAY
@pytest.mark.parametrize(
    ("cls", "how"),
    [
        (Algorithm, {}),
        (Algorithm, {"adaptive_lr": 1e-4}),
        (Algorithm, {"lr_schedule": [(0, 4e-3), (128, 2e-3)]}),
        (RecurrentAlgorithm, {}),
    ],
    ids=str,
)
def test_goes_on_to_the_bit(tmp_path, way, cls, how):
    algorithm = partial(WAYS[way], cls)
    changes = {"model_config": CONFIG[cls], "optimizer_config": PARTS, **how}
    assert_goes_on_the_same(algorithm, CartPole, tmp_path, **changes)


@pytest.mark.parametrize("way", ["kernels", "device"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, PARTS),
        (PARTS, {}),
        (PARTS, {"policy": {"lr": 5e-3}}),
        (PARTS, {**PARTS, "policy": {"eps": 1e-3}}),
    ],
    ids=str,
)
def test_other_parts_keep_what_the_optimizer_knows(before, after, way):
    first, second = make(way, optimizer_config=before), make(way, optimizer_config=after)
    update(first, 2)
    second.load_state_dict(first.state_dict())
    mine, theirs = named(second), named(first)
    for name, parameter in mine.items():
        for key, value in first.learner.optimizer.state[theirs[name]].items():
            assert torch.equal(second.learner.optimizer.state[parameter][key], value), (name, key)
    for name, rate in rates(second).items():
        expected = {"lr": 1e-3, **after} | after.get(name.partition(".")[0], {})
        assert rate == pytest.approx(expected["lr"])
    assert {*rates(second)} == {*mine}
    update(second)
    update(first)
    third = make(way, optimizer_config=after)
    third.load_state_dict(second.state_dict())
    assert_same(second, third)


def test_rates_of_parts_that_were_set_by_hand_are_kept():
    first = make(optimizer_config=PARTS)
    first.learner.optimizer.param_groups[1]["lr"] = 7e-3
    update(first)
    second = make(optimizer_config=PARTS)
    second.load_state_dict(first.state_dict())
    assert rates(second)["value.0.weight"] == 7e-3
    assert rates(second)["policy.0.weight"] == 1e-3


@EACH_WAY
def test_parts_that_are_frozen_or_replaced_stay_in_their_group(way):
    algorithm = make(way, optimizer_config=PARTS)
    model = algorithm.policy.model
    update(algorithm, 2)
    model.value.requires_grad_(False)
    frozen = [value.clone() for value in model.value.parameters()]
    update(algorithm, 2)
    assert all(torch.equal(*pair) for pair in zip(frozen, model.value.parameters(), strict=True))
    model.value.requires_grad_(True)
    model.value[-1] = torch.nn.Linear(16, 1)
    update(algorithm, 2)
    assert not torch.equal(frozen[0], model.value[0].weight)
    assert {*rates(algorithm)} == {*named(algorithm)}
    for name, rate in rates(algorithm).items():
        assert rate == pytest.approx(3e-3 if name.startswith("value.") else 1e-3), name


class Scaled(Model):
    """Has a parameter of its own beside its modules; one module has none."""

    def __init__(self, observation_spec, action_spec, /):
        super().__init__(observation_spec, action_spec)
        self.inner = DiscreteMLP(observation_spec, action_spec, **SMALL)
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.empty = torch.nn.Identity()

    def forward(self, obs):
        features, values = self.inner(obs)
        return features, self.empty(self.scale * values)


def test_parameters_of_the_model_are_parts_too():
    config = {"scale": {"lr": 0.0}, "inner": {"lr": 0.01}}
    algorithm = Algorithm(DiscreteDummyEnv, **BASE, model_cls=Scaled, optimizer_config=config)
    update(algorithm)
    assert algorithm.policy.model.scale == 1
    assert rates(algorithm)["inner.value.0.weight"] == 0.01
    assert algorithm.params["optimizer_config.inner.lr"] == "0.01"
    assert algorithm.params["optimizer_config.lr"] == "0.001"
    with pytest.raises(
        HparamsError, match=r"optimizer_config\.empty is no part of the model with parameters: "
    ):
        Algorithm(DiscreteDummyEnv, **BASE, model_cls=Scaled, optimizer_config={"empty": {"lr": 0.1}})


def test_all_of_the_model_may_be_parts_of_their_own():
    algorithm = make(optimizer_config={"value": {"lr": 3e-3}, "policy": {"lr": 2e-3}})
    update(algorithm, 2)
    assert {*rates(algorithm).values()} == {3e-3, 2e-3}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"valu": {"lr": 0.1}},
            "valu is no part of the model with parameters: did you mean value?",
        ),
        ({"value": {"lrr": 0.1}}, "optimizer_config.value.lrr is not an option of Adam: did you mean lr"),
        ({"value": {"lr": "x"}}, "optimizer_config.value.lr is 'x', expected a number"),
        ({"value": {"lr": -1.0}}, "optimizer_config.value: Invalid learning rate: -1.0"),
        ({"value": {"fused": False}}, "optimizer_config.value.fused is for all parts alike"),
        ({"value": 3e-3}, "optimizer_config.value is not an option of Adam"),
        ({"lr": {"value": 1e-3}}, "optimizer_config.lr is {'value': 0.001}, expected a number"),
        (
            {"lr": 0.0, "value": {"lr": 0.1}},
            "optimizer_config.lr is 0.0, expected a number above 0: with lr_schedule",
        ),
    ],
)
def test_what_can_not_be_is_named(options, words):
    with pytest.raises(HparamsError, match=re.escape(words)):
        make(optimizer_config=options, lr_schedule=[(0, 1e-3)])
