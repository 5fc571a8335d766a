"""What only a CUDA device can show; elsewhere these tests are skipped."""

import pytest
import torch

from rlstack import Algorithm, Policy, RecurrentAlgorithm, RecurrentPolicy, Trainer
from rlstack.buffer import Sequences
from rlstack.env import CartPole, ContinuousDummyEnv, DiscreteDummyEnv, MountainCar, Pendulum

from .helpers import parameters, update

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
BASE = {"num_envs": 64, "horizon": 8, "seed": 0, "device": "cuda"}
BOTH = pytest.mark.parametrize("algorithm_cls", [Algorithm, RecurrentAlgorithm])


@BOTH
@pytest.mark.parametrize("env_cls", [DiscreteDummyEnv, ContinuousDummyEnv, CartPole, MountainCar, Pendulum])
def test_learns_there(algorithm_cls, env_cls):
    algorithm = algorithm_cls(env_cls, **BASE, normalize_observations=True)
    before = parameters(algorithm)
    stats = update(algorithm, 2)
    assert all(type(value) is float for value in stats.values())
    assert algorithm.policy.device.type == algorithm.collector.buffer.rewards.device.type == "cuda"
    assert parameters(algorithm).isfinite().all()
    assert not torch.equal(parameters(algorithm), before)


@BOTH
@pytest.mark.parametrize("enable_amp", [False, True])
def test_with_everything_that_saves_memory(algorithm_cls, enable_amp):
    algorithm = algorithm_cls(
        DiscreteDummyEnv,
        **BASE,
        optimizer_cls=torch.optim.SGD,
        accumulate_grads=True,
        enable_amp=enable_amp,
        sgd_minibatch_size=32,
    )
    assert update(algorithm, 3)["monitors/grad_norm"] > 0


@BOTH
@pytest.mark.parametrize("target_kl_div", [None, 0.01])
def test_nothing_waits_for_the_device_inside(algorithm_cls, target_kl_div):
    algorithm = algorithm_cls(DiscreteDummyEnv, **BASE, target_kl_div=target_kl_div)
    update(algorithm, 2)
    algorithm.collector.begin(None)
    advantages = torch.zeros(64, 8, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        algorithm.collector.rollout(deterministic=False)
        sequences = Sequences(algorithm.collector.buffer)
        sequences.fill(advantages, advantages)
        algorithm.learner.begin(lr=1e-3, entropy_coeff=0.0)
        algorithm.learner.step(sequences, slice(0, len(sequences)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert algorithm.learner.records().shape == (1, 11)


@BOTH
def test_evaluations_leave_the_random_numbers_alone(algorithm_cls):
    algorithm = algorithm_cls(CartPole, **BASE)
    before = torch.cuda.get_rng_state()
    algorithm.eval(deterministic=False)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("algorithm_cls", [Algorithm, RecurrentAlgorithm])
def test_policies_go_from_there_to_the_cpu(algorithm_cls, tmp_path):
    algorithm = algorithm_cls(Pendulum, **BASE)
    update(algorithm)
    algorithm.policy.save(tmp_path / "policy.safetensors")
    cls = Policy if algorithm_cls is Algorithm else RecurrentPolicy
    obs = torch.randn(5, 3)
    there = algorithm.policy.act(obs.cuda(), deterministic=True)
    here = cls.load(tmp_path / "policy.safetensors").act(obs, deterministic=True)
    assert torch.allclose(here.actions, there.actions.cpu(), atol=1e-3)


def test_an_explicit_device_is_obeyed():
    assert Algorithm(DiscreteDummyEnv, **{**BASE, "device": "cpu"}).policy.device.type == "cpu"
    assert Algorithm(DiscreteDummyEnv, **{**BASE, "device": "auto"}).policy.device.type == "cuda"


def test_memory_is_that_of_the_device(tracked):
    stats = Trainer(DiscreteDummyEnv, algorithm_config=BASE).step()
    assert stats["memory/total"] == torch.cuda.mem_get_info()[1]
