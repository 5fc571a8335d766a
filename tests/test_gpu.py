"""What is to hold on a CUDA device; where it can be shown without one, a stand-in on the CPU shows it too."""

from contextlib import contextmanager
from operator import call
from threading import Event, Thread
from typing import Any, ClassVar

import pytest
import torch

from rlstack import Algorithm, NonFiniteError, Policy, RecurrentAlgorithm, RecurrentPolicy, Trainer
from rlstack.env import CartPole, ContinuousDummyEnv, DiscreteDummyEnv, MountainCar, Pendulum
from rlstack.ppo.rollout_buffer import Sequences

from .engine.test_engine import LSTM, MODES, UNFIT, Rebinding, train
from .helpers import Stateless, parameters, update
from .standin import Notes, record

NEEDS_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SIZE: dict[str, Any] = {"num_envs": 64, "horizon": 8, "seed": 0}
BASE = {**SIZE, "device": "cuda"}
BOTH = pytest.mark.parametrize("algorithm_cls", [Algorithm, RecurrentAlgorithm])


def gpu(test):
    """Mark a test that only a CUDA device can pass."""
    for mark in NEEDS_CUDA:
        test = mark(test)
    return test


@pytest.fixture(params=[pytest.param("cuda", marks=NEEDS_CUDA), "cpu"], ids=["cuda", "stand-in"])
def device(request):
    return request.param


def make(algorithm_cls, env_cls, device, **options) -> Algorithm | RecurrentAlgorithm:
    """Make an algorithm on a GPU, or on the CPU one that is run in the same way."""
    return (record if device == "cpu" else call)(algorithm_cls, env_cls, device=device, **SIZE, **options)


@contextmanager
def refusing_to_wait(device):
    """Raise where a number is read from the device meanwhile."""
    if device == "cpu":
        with Notes():
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@BOTH
@pytest.mark.parametrize("env_cls", [DiscreteDummyEnv, ContinuousDummyEnv, CartPole, MountainCar, Pendulum])
def test_learns_there(algorithm_cls, env_cls, device):
    algorithm = make(algorithm_cls, env_cls, device, normalize_observations=True)
    before = parameters(algorithm)
    stats = update(algorithm, 2)
    assert all(type(value) is float for value in stats.values())
    assert algorithm.policy.device.type == algorithm.collector.buffer.rewards.device.type == device
    assert parameters(algorithm).isfinite().all()
    assert not torch.equal(parameters(algorithm), before)


@BOTH
@pytest.mark.parametrize("enable_amp", [False, True])
def test_with_everything_that_saves_memory(algorithm_cls, enable_amp, device):
    algorithm = make(
        algorithm_cls,
        DiscreteDummyEnv,
        device,
        optimizer_cls=torch.optim.SGD,
        accumulate_grads=True,
        enable_amp=enable_amp,
        sgd_minibatch_size=32,
    )
    assert update(algorithm, 3)["monitors/grad_norm"] > 0


@BOTH
@pytest.mark.parametrize("target_kl_div", [None, 0.01])
@pytest.mark.parametrize("optimizer_cls", [torch.optim.Adam, torch.optim.SGD])
def test_nothing_waits_for_the_device_inside(algorithm_cls, target_kl_div, optimizer_cls, device):
    algorithm = make(
        algorithm_cls,
        DiscreteDummyEnv,
        device,
        target_kl_div=target_kl_div,
        adaptive_lr=target_kl_div,
        optimizer_cls=optimizer_cls,
        engine="eager",
    )
    update(algorithm, 2)
    collector, learner, advantages = algorithm.collector, algorithm.learner, algorithm.advantages
    collector.begin(None)
    advantages.begin(anew=True)
    sequences = Sequences(collector.buffer)
    learner.begin(lr=1e-3, coefficients=learner.coefficients)
    with refusing_to_wait(device):
        collector.rollout(deterministic=False)
        advantages.sum_rewards()
        advantages.accept()
        advantages.estimate()
        index = torch.arange(len(sequences), device=device)
        for part in (slice(0, len(sequences)), index[::2]):
            learner.take(learner.step(sequences, part))
    assert learner.records().shape == (2, 11)


@BOTH
def test_nothing_that_is_not_finite_is_learned_from_a_replay(algorithm_cls, device):
    # What the stand-in records are eager's operations.
    algorithm = make(algorithm_cls, DiscreteDummyEnv, device, engine="eager" if device == "cpu" else "graph")
    update(algorithm, 2)
    assert algorithm.engine == "graph"
    algorithm.collect()
    before = [tensor.clone() for tensor in algorithm.learner.optimizer.state_dict()["state"][0].values()]
    before.append(parameters(algorithm))
    algorithm.collector.buffer.values.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="the loss is NaN or infinite in optimizer step 0 of update 3"):
        algorithm.step()
    after = [*algorithm.learner.optimizer.state_dict()["state"][0].values(), parameters(algorithm)]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    update(algorithm)
    assert parameters(algorithm).isfinite().all()
    assert not torch.equal(parameters(algorithm), before[-1])


def test_the_stand_in_refuses_to_wait():
    with pytest.raises(RuntimeError, match="capturing"), refusing_to_wait("cpu"):
        float(torch.zeros(()))


@gpu
@BOTH
def test_evaluations_leave_the_random_numbers_alone(algorithm_cls):
    algorithm = algorithm_cls(CartPole, **BASE)
    before = torch.cuda.get_rng_state()
    algorithm.eval(deterministic=False)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@gpu
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


@gpu
def test_an_explicit_device_is_obeyed():
    assert Algorithm(DiscreteDummyEnv, **{**BASE, "device": "cpu"}).policy.device.type == "cpu"
    assert Algorithm(DiscreteDummyEnv, **{**BASE, "device": "auto"}).policy.device.type == "cuda"


@gpu
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


@gpu
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_graph_does_what_eager_does(mode):
    assert_graph_is_eager(Algorithm, Pendulum, **mode)


@gpu
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_recurrent_graph_does_what_eager_does(mode):
    size = mode.get("sgd_minibatch_size")
    assert_graph_is_eager(
        RecurrentAlgorithm, CartPole, **{**mode, **LSTM, "sgd_minibatch_size": size and size // 2}
    )


@gpu
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_graphs_by_default(precision):
    assert_graph_is_eager(Algorithm, DiscreteDummyEnv, engine="auto", matmul_precision=precision)


def fp32_precisions():
    # torch's types don't know the second one.
    cuda, rnn = torch.backends.cuda.matmul, torch.backends.cudnn.rnn
    return cuda.fp32_precision, rnn.fp32_precision  # type: ignore[attr-defined]


class Precise(DiscreteDummyEnv):
    """Notes in what precision it is stepped."""

    seen: ClassVar[list[Any]] = []

    def step(self, action):
        self.seen.append(fp32_precisions())
        return super().step(action)


@gpu
def test_precision_is_ours_alone():
    before = fp32_precisions()
    for precision in ("highest", "high"):
        update(Algorithm(Precise, **BASE, matmul_precision=precision), 2)
        now = fp32_precisions()
        assert now == before
    assert {*Precise.seen} == {before}


@gpu
@BOTH
def test_parameters_with_another_storage_are_used_there(algorithm_cls):
    results = []
    for engine in ("eager", "graph"):
        algorithm = algorithm_cls(Pendulum, **BASE, engine=engine)
        update(algorithm, 3)
        vector = torch.nn.utils.parameters_to_vector(algorithm.policy.parameters())
        torch.nn.utils.vector_to_parameters(1.5 * vector.detach(), algorithm.policy.parameters())
        results.append(train(algorithm, 2))
        assert algorithm.engine == engine
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


@gpu
def test_graphs_of_models_and_environments_of_ones_own():
    assert_graph_is_eager(RecurrentAlgorithm, DiscreteDummyEnv, model_cls=Stateless, seq_len=1)


@gpu
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


class Uploading(ContinuousDummyEnv):
    """Draws on the host and copies from one place of its memory: a graph would copy what was there."""

    def __init__(self, num_envs, /, **kwargs):
        super().__init__(num_envs, **kwargs)
        self.drawn = torch.zeros(num_envs, 1).pin_memory()

    def step(self, action):
        self.drawn.copy_(torch.rand(self.drawn.shape))
        return super().step(action * self.drawn.to(self.device, non_blocking=True))


@gpu
def test_copies_from_pinned_memory_run_eagerly(caplog):
    algorithm = Algorithm(Uploading, **BASE)
    update(algorithm, 4)
    assert algorithm.params["engine"] == "graph (optimizer steps only)"
    assert sum("eagerly" in entry.getMessage() for entry in caplog.records) == 1


class Tabled(Pendulum):
    """Holds numbers on the CPU before any on the device."""

    def __init__(self, num_envs, /, **kwargs):
        self.table = torch.zeros(3)
        super().__init__(num_envs, **kwargs)


@gpu
def test_numbers_on_the_cpu_do_no_harm():
    assert_graph_is_eager(Algorithm, Tabled)


@gpu
def test_a_stream_of_ones_own_gives_the_same():
    results = []
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(stream):
            algorithm = Algorithm(Pendulum, **BASE)
            results.append(train(algorithm, 4))
            assert algorithm.engine == "graph"
            assert torch.cuda.current_stream() == stream
        torch.cuda.synchronize()
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][0] == results[1][0]


@gpu
def test_other_threads_may_use_the_device_while_graphs_are_recorded():
    expected, done = train(Algorithm(Pendulum, **BASE, engine="eager"), 3), Event()

    def work():
        stream = torch.cuda.Stream()
        while not done.is_set():
            with torch.cuda.stream(stream):
                torch.ones(2**20, device="cuda").sum().item()

    thread = Thread(target=work)
    thread.start()
    try:
        algorithm = Algorithm(Pendulum, **BASE)
        got = train(algorithm, 3)
    finally:
        done.set()
        thread.join()
    assert algorithm.engine == "graph"
    assert torch.equal(got[1], expected[1])


@gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_graph_on_another_device_than_the_current_one():
    assert_graph_is_eager(Algorithm, Pendulum, device="cuda:1")


@gpu
@BOTH
def test_memory_stays_flat(algorithm_cls):
    algorithm = algorithm_cls(DiscreteDummyEnv, **BASE)
    update(algorithm, 10)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    update(algorithm, 1000)
    assert torch.cuda.memory_allocated() <= before + 2**16


@gpu
def test_the_entropy_stays_that_of_an_eager_run():
    changes = {**BASE, "optimizer_config": {"lr": 0.01}}
    curves = [
        [update(algorithm)["losses/entropy"] for _ in range(50)]
        for engine in ("eager", "graph")
        for algorithm in [Algorithm(ContinuousDummyEnv, **changes, engine=engine)]
    ]
    assert curves[0] == curves[1]
