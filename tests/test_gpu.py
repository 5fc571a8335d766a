"""What only a CUDA device can show; elsewhere these tests are skipped."""

import pytest
import torch

from rlstack import Algorithm, Policy, RecurrentAlgorithm, RecurrentPolicy, Trainer
from rlstack.buffer import Sequences
from rlstack.env import CartPole, ContinuousDummyEnv, DiscreteDummyEnv, MountainCar, Pendulum

from .helpers import Stateless, parameters, update
from .test_engine import LSTM, MODES, UNFIT, Rebinding, train

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
    algorithm = algorithm_cls(DiscreteDummyEnv, **BASE, target_kl_div=target_kl_div, engine="eager")
    update(algorithm, 2)
    algorithm.collector.begin(None)
    advantages = torch.zeros(64, 8, device="cuda")
    algorithm._absorb_rewards()
    torch.cuda.set_sync_debug_mode("error")
    try:
        algorithm.collector.rollout(deterministic=False)
        algorithm._absorb_rewards()
        algorithm._targets()
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


def assert_graph_is_eager(cls, env_cls, engine="graph", **changes):
    changes = {**BASE, "num_envs": 64, "horizon": 8, **changes}
    expected = train(cls(env_cls, **changes, engine="eager"), 3)
    algorithm = cls(env_cls, **changes, engine=engine)
    got = train(algorithm, 3)
    assert algorithm.params["engine"] == "graph"
    # The same kernels in the same order: the same bits.
    assert torch.equal(got[1], expected[1])
    assert torch.equal(got[2], expected[2])
    assert got[0] == expected[0]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_graph_does_what_eager_does(mode):
    assert_graph_is_eager(Algorithm, Pendulum, **mode)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_recurrent_graph_does_what_eager_does(mode):
    size = mode.get("sgd_minibatch_size")
    assert_graph_is_eager(
        RecurrentAlgorithm, CartPole, **{**mode, **LSTM, "sgd_minibatch_size": size and size // 2}
    )


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_graphs_by_default(precision):
    assert_graph_is_eager(Algorithm, DiscreteDummyEnv, engine="auto", matmul_precision=precision)


def test_precision_is_ours_alone():
    before = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.rnn.fp32_precision
    for precision in ("highest", "high"):
        update(Algorithm(DiscreteDummyEnv, **BASE, matmul_precision=precision), 2)
        now = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.rnn.fp32_precision
        assert now == before


def test_graphs_of_models_and_environments_of_ones_own():
    assert_graph_is_eager(RecurrentAlgorithm, DiscreteDummyEnv, model_cls=Stateless, seq_len=1)


@pytest.mark.parametrize("env_cls", [env_cls for env_cls in UNFIT if env_cls.__name__ != "Growing"])
def test_what_does_not_fit_runs_eagerly(env_cls, caplog):
    class There(env_cls):
        def __init__(self, num_envs, /, **kwargs):
            super().__init__(num_envs, **kwargs)
            self.more = {name: self._there(value) for name, value in self.more.items()}

        def _there(self, value):
            return [self._there(v) for v in value] if isinstance(value, list) else value.to(self.device)

        def reset(self, *, config=None):
            self.state = torch.rand(self.num_envs, 1, device=self.device)
            return self.state

    algorithm = Algorithm(There, **BASE)
    update(algorithm, 4)
    assert algorithm.params["engine"] != "graph"
    assert sum("eagerly" in entry.getMessage() for entry in caplog.records) == 1
    assert issubclass(There, Rebinding)


@BOTH
def test_memory_stays_flat(algorithm_cls):
    algorithm = algorithm_cls(DiscreteDummyEnv, **BASE)
    update(algorithm, 10)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    update(algorithm, 1000)
    assert torch.cuda.memory_allocated() <= before + 2**16


def test_the_entropy_stays_that_of_an_eager_run():
    changes = {**BASE, "optimizer_config": {"lr": 0.01}}
    curves = [
        [update(algorithm)["losses/entropy"] for _ in range(50)]
        for engine in ("eager", "graph")
        for algorithm in [Algorithm(ContinuousDummyEnv, **changes, engine=engine)]
    ]
    assert curves[0] == curves[1]
