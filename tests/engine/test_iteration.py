"""Small optimizer steps, all of an SGD iteration at once, are those that eager makes, and nothing else is."""

import copy

import pytest
import torch

from rlstack import Algorithm, NonFiniteError
from rlstack.engine.kernels import executor
from rlstack.env import CartPole, ContinuousDummyEnv, Pendulum

from ..helpers import parameters, update
from ..ppo.test_masks import Doors
from .test_kernels import BASE, Several, Twofold, assert_same, train

SMALL = {**BASE, "model_config": {"hiddens": [12, 8]}, "sgd_minibatch_size": 32}
MODES = [
    {"entropy_coeff": 0.1},
    {"optimizer_cls": torch.optim.AdamW, "optimizer_config": {"weight_decay": 0.1, "amsgrad": True}},
    {"optimizer_config": {"maximize": True, "betas": (0.5, 0.9), "eps": 1e-3}, "max_grad_norm": None},
    {"optimizer_config": {"lr": 1e-3, "value": {"lr": 3e-3, "weight_decay": 0.1}}},
    {"dual_clip_param": 1.5, "clip_param": 0.01, "optimizer_config": {"lr": 0.02}},
    {"vf_clip_param": None, "normalize_observations": True, "shuffle_minibatches": False},
    {"target_kl_div": 0.001, "optimizer_config": {"lr": 0.02}, "num_sgd_iters": 8},
    {"lr_schedule": [(0, 1e-2), (400, 1e-3)], "clip_param_schedule": [(0, 0.2), (400, 0.01)]},
]


@pytest.fixture
def calls(monkeypatch):
    """Count how often whole iterations are made at once, on one thread and on two."""
    counts = {"iterate": 0, "rate_values": 0}
    script = executor.script

    def counted(function):
        if function.__name__ in counts:
            counts[function.__name__] += 1
        return script(function)

    monkeypatch.setattr(executor, "script", counted)
    return counts


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("env_cls", [CartPole, Pendulum, Twofold, Doors])
def test_they_are_those_of_eager(float64, calls, env_cls, mode):
    masks = {"action_mask_key": "may"} if env_cls is Doors else {}
    model_config = {
        "hiddens": [12, 8],
        "activation_fn": "tanh" if "vf_clip_param" in mode else "relu",
        **masks,
    }
    mode = {"sgd_minibatch_size": 32, **mode, "model_config": model_config}
    assert_same(Algorithm, env_cls, 1e-9, **mode)
    # Adam's state is there from the second iteration on.
    assert calls["iterate"] == 3 * mode.get("num_sgd_iters", 4) - 1 or "target_kl_div" in mode


def test_float32_is_close_to_eager():
    for env_cls in (CartPole, Pendulum):
        assert_same(Algorithm, env_cls, 1e-4, sgd_minibatch_size=32, model_config={"hiddens": [12, 8]})


def test_two_threads_give_the_bits_of_one(monkeypatch, calls):
    alone, _, _ = train(Algorithm, Pendulum, "auto", threads=1, **SMALL)
    assert calls["rate_values"] == 0
    monkeypatch.setattr(executor, "_ALONE", 0)
    for threads in (1, 2):
        shared, _, _ = train(Algorithm, Pendulum, "auto", threads=threads, **SMALL)
        assert torch.equal(shared, alone)
    assert calls["rate_values"] > 0


OTHERS = {
    "another optimizer": {"optimizer_cls": torch.optim.SGD, "optimizer_config": {"momentum": 0.9}},
    "the rate follows the KL": {"adaptive_lr": 0.01},
    "log std has bounds": {"model_config": {"hiddens": [8], "min_log_std": -1.0}},
    "not fused": {"optimizer_config": {"fused": False}},
    "blocks are smaller": {"grad_block_size": 8},
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_it_does_not_cover_is_made_as_ever(float64, calls, name):
    assert_same(Algorithm, ContinuousDummyEnv, 1e-8, sgd_minibatch_size=32, **OTHERS[name])
    assert calls["iterate"] == 0


def test_parts_with_other_distributions_are_made_as_ever(float64, calls):
    assert_same(Algorithm, Several, 1e-9, sgd_minibatch_size=32)
    assert calls["iterate"] == 0


def test_hooks_and_schedulers_of_ones_own_are_called(calls):
    algorithm = Algorithm(CartPole, **SMALL)
    update(algorithm)
    made = calls["iterate"]
    seen = []
    handle = algorithm.learner.optimizer.register_step_post_hook(lambda *_: seen.append(1))
    update(algorithm)
    assert len(seen) == 4 * 24 * 8 // 32
    assert calls["iterate"] == made
    handle.remove()
    update(algorithm)
    assert calls["iterate"] == made + 4
    # It replaces the optimizer's step.
    scheduler = torch.optim.lr_scheduler.ExponentialLR(algorithm.learner.optimizer, 0.5)
    before = algorithm.learner.optimizer.param_groups[0]["lr"]
    update(algorithm)
    scheduler.step()
    assert algorithm.learner.optimizer.param_groups[0]["lr"] == before / 2
    assert update(algorithm)["coefficients/lr"] == before / 2


def test_resumes_to_the_bit():
    algorithm = Algorithm(CartPole, **SMALL)
    update(algorithm, 2)
    state = copy.deepcopy(algorithm.state_dict())
    update(algorithm, 2)
    other = Algorithm(CartPole, **SMALL)
    other.load_state_dict(state)
    update(other, 2)
    assert torch.equal(parameters(other), parameters(algorithm))
    steps = [each["step"].item() for each in other.learner.optimizer.state.values()]
    assert {*steps} == {4 * 4 * 24 * 8 // 32}


def test_parameters_whose_storage_is_replaced_are_used():
    one, other = Algorithm(CartPole, **SMALL), Algorithm(CartPole, **SMALL)
    for algorithm in (one, other):
        torch.manual_seed(7)
        update(algorithm, 2)
        if algorithm is other:
            for parameter in algorithm.policy.parameters():
                parameter.data = parameter.data.clone()
        update(algorithm, 2)
    assert torch.equal(parameters(one), parameters(other))


def test_what_is_not_finite_is_not_learned():
    algorithm = Algorithm(CartPole, **SMALL)
    update(algorithm, 2)
    algorithm.collect()
    algorithm.collector.buffer.values[3, 5] = torch.nan
    with pytest.raises(NonFiniteError, match="the loss is NaN or infinite in optimizer step"):
        algorithm.step()
    assert parameters(algorithm).isfinite().all()
