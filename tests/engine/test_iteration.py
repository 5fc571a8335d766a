"""Small optimizer steps, all of an SGD iteration at once, are those that eager makes, and nothing else is."""

import copy
import sys

import pytest
import torch

from rlstack import Algorithm, NonFiniteError
from rlstack.engine.kernels import steps
from rlstack.engine.native import available
from rlstack.env import CartPole, ContinuousDummyEnv, Pendulum

from ..helpers import parameters, update, without_numba
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
    """Count updates by operations on one thread, minibatches by those on two, and updates in machine code."""
    counts = {"iterate": 0, "rate_values": 0, "machine code": 0}
    script, make = steps.script, steps.ManySteps.make

    def counted(function):
        if function.__name__ in counts:
            counts[function.__name__] += 1
        return script(function)

    def counted_make(self, sequences, size, iterations):
        made = make(self, sequences, size, iterations)
        counts["machine code"] += "machine code" in self.way
        return made

    monkeypatch.setattr(steps, "script", counted)
    monkeypatch.setattr(steps.ManySteps, "make", counted_make)
    return counts


@pytest.fixture
def operations(monkeypatch):
    """Compute as without numba."""
    without_numba(monkeypatch)


@pytest.fixture(params=["operations", "machine code"])
def way(request, calls, monkeypatch):
    """Take one way after the other."""
    if request.param == "operations":
        without_numba(monkeypatch)
    else:
        pytest.importorskip("numba", reason="rlstack[fast] is not installed")
    return request.param


@pytest.fixture
def parts(calls, monkeypatch):
    """Let threads share the rows of a minibatch, in machine code."""
    pytest.importorskip("numba", reason="rlstack[fast] is not installed")
    monkeypatch.setattr(steps, "MACHINE_CODE_ALONE", 0)
    monkeypatch.setattr(steps, "MACHINE_CODE_ROWS", 10)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("env_cls", [CartPole, Pendulum, Twofold, Doors])
def test_they_are_those_of_eager(float64, calls, way, env_cls, mode):
    masks = {"action_mask_key": "may"} if env_cls is Doors else {}
    model_config = {
        "hiddens": [12, 8],
        "activation_fn": "tanh" if "vf_clip_param" in mode else "relu",
        **masks,
    }
    mode = {"sgd_minibatch_size": 32, **mode, "model_config": model_config}
    assert_same(Algorithm, env_cls, 1e-9, **mode)
    taken, left = ("machine code", "iterate") if way == "machine code" else ("iterate", "machine code")
    # A KL limit may end the first update within its first iteration, which is eager's: Adam has no state yet.
    assert calls[taken] == 3 or (calls[taken] and "target_kl_div" in mode)
    assert not calls[left]


def test_float32_is_close_to_eager(way):
    for env_cls in (CartPole, Pendulum):
        assert_same(Algorithm, env_cls, 1e-4, sgd_minibatch_size=32, model_config={"hiddens": [12, 8]})


def test_two_threads_give_the_bits_of_one(monkeypatch, calls, operations):
    alone, _, _ = train(Algorithm, Pendulum, "auto", threads=1, **SMALL)
    assert calls["rate_values"] == 0
    monkeypatch.setattr(steps, "STEP_ALONE", 0)
    for threads in (1, 2):
        shared, _, _ = train(Algorithm, Pendulum, "auto", threads=threads, **SMALL)
        assert torch.equal(shared, alone)
    assert calls["rate_values"] > 0


OTHERS = {
    "another optimizer": {"optimizer_cls": torch.optim.SGD, "optimizer_config": {"momentum": 0.9}},
    "the rate follows the KL": {"adaptive_lr": 0.01},
    "log std has bounds": {"model_config": {"hiddens": [8], "min_log_std": -1.0}},
    "not fused": {"optimizer_config": {"fused": False}},
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_it_does_not_cover_is_made_as_ever(float64, calls, name):
    assert_same(Algorithm, ContinuousDummyEnv, 1e-8, sgd_minibatch_size=32, **OTHERS[name])
    assert not any(calls.values())


def test_without_numba_a_block_size_is_kept(float64, calls, operations):
    assert_same(Algorithm, ContinuousDummyEnv, 1e-8, sgd_minibatch_size=32, grad_block_size=8)
    assert not any(calls.values())


def test_parts_with_other_distributions_are_made_as_ever(float64, calls):
    assert_same(Algorithm, Several, 1e-9, sgd_minibatch_size=32)
    assert not any(calls.values())


def test_hooks_and_schedulers_of_ones_own_are_called(calls, operations):
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
    assert calls["iterate"] == made + 1
    # It replaces the optimizer's step.
    scheduler = torch.optim.lr_scheduler.ExponentialLR(algorithm.learner.optimizer, 0.5)
    before = algorithm.learner.optimizer.param_groups[0]["lr"]
    update(algorithm)
    scheduler.step()
    assert algorithm.learner.optimizer.param_groups[0]["lr"] == before / 2
    assert update(algorithm)["coefficients/lr"] == before / 2


def test_resumes_to_the_bit(way):
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


def test_parameters_whose_storage_is_replaced_are_used(way):
    one, other = Algorithm(CartPole, **SMALL), Algorithm(CartPole, **SMALL)
    for algorithm in (one, other):
        torch.manual_seed(7)
        update(algorithm, 2)
        if algorithm is other:
            for parameter in algorithm.policy.parameters():
                parameter.data = parameter.data.clone()
        update(algorithm, 2)
    assert torch.equal(parameters(one), parameters(other))


def test_what_is_not_finite_is_not_learned(way):
    algorithm = Algorithm(CartPole, **SMALL)
    update(algorithm, 2)
    algorithm.collect()
    algorithm.collector.buffer.values[3, 5] = torch.nan
    with pytest.raises(NonFiniteError, match="the loss is NaN or infinite in optimizer step"):
        algorithm.step()
    assert parameters(algorithm).isfinite().all()


@pytest.mark.parametrize("numba", ["none", "one that can't be imported"])
def test_without_numba_there_are_operations(monkeypatch, caplog, numba):
    if numba == "none":
        monkeypatch.setattr(available, "find_spec", lambda name: None)
    else:
        monkeypatch.setattr(available, "find_spec", lambda name: name)
        monkeypatch.setitem(sys.modules, "rlstack.engine.native.program", None)
    available._imported.cache_clear()
    algorithm = Algorithm(CartPole, **SMALL)
    assert algorithm.optimizer_steps == "none so far"
    update(algorithm, 2)
    available._imported.cache_clear()
    assert algorithm.optimizer_steps == "many at once, on one thread"
    said = [record.getMessage() for record in caplog.records if "numba" in record.getMessage()]
    assert len(said) == (numba != "none")


@pytest.mark.parametrize("mode", [MODES[0], MODES[4], MODES[6], {"accumulate_grads": True}], ids=str)
@pytest.mark.parametrize("env_cls", [CartPole, Twofold])
def test_parts_of_the_rows_give_what_eager_gives(float64, calls, parts, env_cls, mode):
    assert_same(Algorithm, env_cls, 1e-9, **{"model_config": {"hiddens": [12, 8]}, **mode})
    assert calls["machine code"]


def test_parts_give_the_same_bits_on_any_number_of_threads(float64, parts, calls):
    found = [train(Algorithm, Pendulum, "auto", threads=threads, **SMALL)[0] for threads in (1, 2, 3)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert calls["machine code"] == 9


def test_rows_of_large_minibatches_are_computed_in_blocks(float64, calls, monkeypatch):
    networks = pytest.importorskip("rlstack.engine.native.program", reason="rlstack[fast] is not installed")
    monkeypatch.setattr(networks, "block_rows", lambda shapes: 20)
    assert_same(Algorithm, Pendulum, 1e-9, **SMALL)
    assert calls["machine code"] == 3


def test_processors_with_narrow_vectors_have_bounds(monkeypatch):
    found = available.machine_code(1, 1)
    if found is None:
        pytest.skip("rlstack[fast] is not installed")
    monkeypatch.setattr(available, "_imported", lambda: found._replace(wide=False))
    assert available.machine_code(64, 2**16)
    assert not available.machine_code(64, 2**16 + 1)
    assert not available.machine_code(2**23, 2)
    monkeypatch.setattr(available, "_imported", lambda: found._replace(wide=True))
    assert available.machine_code(2**23, 2**17)
