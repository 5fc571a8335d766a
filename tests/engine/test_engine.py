"""What is recorded and replayed does what it does eagerly, or isn't replayed."""

import itertools
import logging
import random
import threading

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm, HparamsError, RecurrentAlgorithm, specs
from rlstack.common.errors import CaptureError
from rlstack.distributions import SquashedNormal
from rlstack.engine.capture import Program, capture
from rlstack.engine.snapshot import ObjectSnapshot
from rlstack.env import CartPole, ContinuousDummyEnv, DiscreteDummyEnv, Pendulum

from ..helpers import (
    SMALL,
    Stateless,
    parameters,
    update,
)
from ..standin import StandIn, like_on_a_gpu, record

BASE = {"num_envs": 8, "horizon": 4, "seed": 5, "device": "cpu", "engine": "eager", "model_config": SMALL}
FAST = {"optimizer_config": {"lr": 0.02}}
LSTM = {"model_config": {"hidden_size": 8}, "seq_len": 2}


def train(algorithm, updates=4, **options):
    stats = [algorithm.collect(**options) | algorithm.step() for _ in range(updates)]
    moments = [v for state in algorithm.learner.optimizer.state.values() for v in state.values()]
    for entry in stats:
        for name in ("collect", "step"):
            del entry[f"profiling/{name}_ms"]
    return stats, parameters(algorithm), torch.cat([torch.as_tensor(m).flatten().cpu() for m in moments])


def assert_replays(cls, env_cls, replayed=4, **changes):
    changes = {**BASE, **changes}
    expected = train(like_on_a_gpu(cls, env_cls, **changes))
    algorithm = record(cls, env_cls, **changes)
    got = train(algorithm)
    assert got[0] == expected[0]
    assert torch.equal(got[1], expected[1])
    assert torch.equal(got[2], expected[2])
    reasons = [part.graphs.reason for part in algorithm._executor.parts]
    assert reasons.count(None) == replayed, reasons
    return algorithm


MODES = [
    {},
    {"sgd_minibatch_size": 8},
    {"sgd_minibatch_size": 8, "shuffle_minibatches": False},
    {"accumulate_grads": True, "sgd_minibatch_size": 8},
    {"grad_block_size": 5},
    {"enable_amp": True},
    {"target_kl_div": 1e-6, "optimizer_config": {"lr": 0.05}},
    {"horizons_per_env_reset": 2},
    {"horizons_per_env_reset": -1},
    {"lr_schedule": [(0, 1e-2), (64, 1e-3)], "lr_schedule_kind": "interp"},
    {"entropy_coeff_schedule": [(0, 0.1), (96, 0.0)], "entropy_coeff_schedule_kind": "interp"},
    {"clip_param_schedule": [(0, 0.2), (96, 1e-4)], "clip_param_schedule_kind": "interp", **FAST},
    {"adaptive_lr": 1e-4},
    {"adaptive_lr": 1e-4, "optimizer_config": {"lr": 1e-3, "value": {"lr": 3e-3, "betas": (0.8, 0.9)}}},
    {"adaptive_lr": 1e-4, "optimizer_cls": torch.optim.Adagrad},
    {"normalize_observations": True, "max_grad_norm": 0.01},
    {"optimizer_cls": torch.optim.AdamW},
    {"optimizer_cls": torch.optim.SGD, "optimizer_config": {"momentum": 0.9}},
    {"optimizer_cls": torch.optim.RMSprop},
]


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("env_cls", [DiscreteDummyEnv, Pendulum])
def test_modes(env_cls, mode):
    assert_replays(Algorithm, env_cls, **mode)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_recurrent_modes(mode):
    size = mode.get("sgd_minibatch_size")
    assert_replays(RecurrentAlgorithm, CartPole, **{**mode, **LSTM, "sgd_minibatch_size": size and size // 2})


def test_options_of_the_default_models():
    std = {"log_std_init": -1, "min_log_std": -1.001, "max_log_std": -0.999}
    layers = {"hiddens": [8], "value_hiddens": [4], "layer_norm": True}
    assert_replays(Algorithm, Pendulum, model_config={**layers, **std}, entropy_coeff=0.1)
    assert_replays(RecurrentAlgorithm, Pendulum, seq_len=2, model_config={"hidden_size": 8, **std})


@pytest.mark.parametrize("seqs_per_state_reset", [1, 2, 3, -1])
def test_states_that_go_on(seqs_per_state_reset):
    changes = {"seqs_per_state_reset": seqs_per_state_reset, "horizons_per_env_reset": -1}
    assert_replays(RecurrentAlgorithm, DiscreteDummyEnv, **LSTM, **changes)


def test_models_and_distributions_of_ones_own():
    assert_replays(RecurrentAlgorithm, DiscreteDummyEnv, model_cls=Stateless, seq_len=1)
    assert_replays(Algorithm, ContinuousDummyEnv, distribution_cls=SquashedNormal)


def test_it_does_replay():
    algorithm = record(Algorithm, DiscreteDummyEnv, **BASE)
    update(algorithm)
    assert StandIn.made == 0
    update(algorithm)
    assert StandIn.made == 4
    before = StandIn.replays
    update(algorithm)
    assert StandIn.made == 4
    # A horizon, the sums of its rewards, the advantages and four optimizer steps.
    assert StandIn.replays == before + 7
    assert algorithm.params["engine"] == "graph"


def test_deterministic_and_another_config():
    def play(algorithm):
        for number in range(6):
            algorithm.collect(deterministic=number % 2 == 1, env_config={"bounds": 10.0 + number // 2})
            algorithm.step()
        return parameters(algorithm), algorithm.eval()

    (one, mine), (two, theirs) = (
        play(f(Algorithm, DiscreteDummyEnv, **BASE)) for f in (record, like_on_a_gpu)
    )
    assert torch.equal(one, two)
    assert mine == theirs


class Rebinding(ContinuousDummyEnv.__base__):
    """Makes a new tensor in each step, and keeps another one in a dictionary and a list."""

    def __init__(self, num_envs, /, **kwargs):
        super().__init__(num_envs, **kwargs)
        self.action_spec = specs.Unbounded((1,))
        self.more = {"last": torch.zeros(num_envs, 1), "all": [torch.zeros(num_envs, 1)]}

    def step(self, action):
        self.more["all"][0] = self.more["all"][0] + self.state
        self.state = self.state + action + 0.1 * self.more["last"]
        self.more["last"] = action
        return TensorDict({"obs": self.state, "rewards": -self.more["all"][0]}, self.num_envs)

    def reset(self, *, config=None):
        self.state = torch.rand(self.num_envs, 1)
        return self.state

    def _displacement(self, action):
        raise NotImplementedError


@pytest.mark.parametrize("resets", [1, 2, -1])
@pytest.mark.parametrize("name", ["Rebinding", "Swapping"])
def test_an_environment_that_replaces_its_tensors(name, resets):
    assert_replays(Algorithm, globals()[name], horizons_per_env_reset=resets)


class Counting(Rebinding):
    """Counts its steps in Python."""

    steps = 0

    def step(self, action):
        self.steps += 1
        out = super().step(action)
        return out.set("rewards", out["rewards"] * self.steps)


class Reading(Rebinding):
    """Reads a number back."""

    def step(self, action):
        self.state = self.state * (1.0 if self.state.mean().item() > 0 else 0.5)
        return super().step(action)


class OwnGenerator(Rebinding):
    """Draws from a generator of its own."""

    def __init__(self, num_envs, /, **kwargs):
        super().__init__(num_envs, **kwargs)
        self.generator = torch.Generator().manual_seed(0)

    def step(self, action):
        return super().step(action + torch.rand(self.num_envs, 1, generator=self.generator).to(action.device))


class NumpyGenerator(Rebinding):
    """Draws from NumPy's."""

    def __init__(self, num_envs, /, **kwargs):
        super().__init__(num_envs, **kwargs)
        self.generator = np.random.default_rng(0)

    def step(self, action):
        return super().step(action + float(self.generator.random()))


class Locked(Rebinding):
    """Holds what can't be copied."""

    def __init__(self, num_envs, /, **kwargs):
        super().__init__(num_envs, **kwargs)
        self.lock = threading.Lock()


class Parted(Rebinding):
    """Holds tensors in a tuple."""

    def step(self, action):
        self.pair = (action, action)
        return super().step(action)


class Growing(Rebinding):
    """Makes its state larger in each step."""

    def step(self, action):
        self.seen = torch.cat([getattr(self, "seen", action), action])
        return super().step(action)


class Chances(Rebinding):
    """Draws a number in Python, which a recording would repeat."""

    def step(self, action):
        return super().step(action * random.random())


class Swapping(Rebinding):
    """Lets two tensors change places."""

    def step(self, action):
        out = super().step(action)
        self.state, self.more["all"][0] = self.more["all"][0], self.state
        return out


UNFIT = {
    Counting: "Counting.steps changes",
    Reading: "not permitted",
    OwnGenerator: "OwnGenerator.generator is a random generator",
    NumpyGenerator: "NumpyGenerator.generator is a random generator",
    Locked: "Locked.lock is a lock",
    Parted: "Parted.pair is a tuple of tensors",
    Growing: "Growing.seen changes its shape",
    Chances: "leaves other numbers",
}


@pytest.mark.parametrize("env_cls", UNFIT)
def test_environments_that_do_not_fit_run_eagerly(env_cls, caplog):
    random.seed(0)
    changes = {**BASE, "horizons_per_env_reset": -1}
    expected = train(like_on_a_gpu(Algorithm, env_cls, **changes))
    random.seed(0)
    algorithm = record(Algorithm, env_cls, **changes)
    with caplog.at_level(logging.WARNING):
        got = train(algorithm)
    assert got[0] == expected[0]
    assert torch.equal(got[1], expected[1])
    said = [entry.getMessage() for entry in caplog.records if "eagerly" in entry.getMessage()]
    assert len(said) == 1
    assert env_cls.__name__ in said[0]
    assert UNFIT[env_cls] in said[0]
    assert algorithm.params["engine"] == "graph (optimizer steps only)"


def test_capture_leaves_no_trace():
    algorithm = record(Algorithm, CartPole, **BASE, horizons_per_env_reset=-1)
    update(algorithm)
    algorithm.collector.begin(None)
    horizons = algorithm._executor.parts[0]
    env = algorithm.env

    def everything():
        tensors = [
            *algorithm.collector.tensors(),
            *ObjectSnapshot(env, "env").tensors(),
            *algorithm.policy.parameters(),
        ]
        return (
            [t.clone() for t in tensors],
            torch.get_rng_state(),
            np.random.get_state()[1].copy(),  # noqa: NPY002 (what is restored)
            random.getstate(),
        )

    before = everything()
    snapshot = horizons._held()
    from rlstack.engine.graphed import _Horizon

    capture(_Horizon(algorithm.collector, snapshot, deterministic=False), StandIn())
    after = everything()
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert torch.equal(before[1], after[1])
    assert (before[2] == after[2]).all()
    assert before[3] == after[3]


class Frozen(Program):
    """Adds what a Python counter says: right in the first round, frozen afterwards."""

    def __init__(self):
        self.total, self.counter = torch.zeros(()), itertools.count(1)

    def run(self):
        self.total.add_(next(self.counter))

    def storage(self):
        return [self.total]

    def go_on(self):
        pass

    check = put_back = go_on


def test_the_proof_finds_what_is_frozen():
    program = Frozen()
    with pytest.raises(CaptureError, match="leaves other numbers"):
        capture(program, StandIn())
    assert program.total == 0


def test_the_entropy_stays_that_of_an_eager_run():
    # A recorded policy whose standard deviation silently collapsed is a known accident elsewhere.
    changes = {**BASE, "optimizer_config": {"lr": 0.01}}
    curves = [
        [update(algorithm)["losses/entropy"] for _ in range(50)]
        for prepare in (like_on_a_gpu, record)
        for algorithm in [prepare(Algorithm, ContinuousDummyEnv, **changes)]
    ]
    assert curves[0] == curves[1]
    assert curves[0][0] != curves[0][-1]


def test_loaded_parameters_are_used():
    def play(algorithm):
        update(algorithm, 3)
        other = Algorithm(DiscreteDummyEnv, **{**BASE, "seed": 9})
        update(other, 2)
        algorithm.policy.load_state_dict(other.policy.state_dict())
        algorithm.learner.optimizer.load_state_dict(other.learner.optimizer.state_dict())
        update(algorithm, 3)
        return parameters(algorithm)

    plain = play(like_on_a_gpu(Algorithm, DiscreteDummyEnv, **BASE))
    recorded = record(Algorithm, DiscreteDummyEnv, **BASE)
    assert torch.equal(play(recorded), plain)
    assert recorded.engine == "graph"


@pytest.mark.parametrize("cls", [Algorithm, RecurrentAlgorithm])
def test_parameters_with_another_storage_are_used(cls):
    def play(algorithm):
        update(algorithm, 3)
        # This is how torch writes them: `vector_to_parameters` sets their data.
        vector = torch.nn.utils.parameters_to_vector(algorithm.policy.parameters())
        torch.nn.utils.vector_to_parameters(1.5 * vector.detach(), algorithm.policy.parameters())
        stats = algorithm.collect()["returns/mean"]
        algorithm.step()
        update(algorithm, 2)
        return stats, parameters(algorithm)

    changes = {**BASE, **(LSTM if cls is RecurrentAlgorithm else {})}
    expected = play(like_on_a_gpu(cls, DiscreteDummyEnv, **changes))
    recorded = record(cls, DiscreteDummyEnv, **changes)
    got = play(recorded)
    assert got[0] == expected[0]
    assert torch.equal(got[1], expected[1])
    assert recorded.engine == "graph"


def test_a_graph_needs_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(HparamsError, match="engine is 'graph', which needs a CUDA device: use auto"):
        Algorithm(DiscreteDummyEnv, **{**BASE, "engine": "graph"})


@pytest.mark.slow
@pytest.mark.parametrize("algorithm_cls", [Algorithm, RecurrentAlgorithm])
def test_compiled(algorithm_cls):
    changes = {**BASE, "num_envs": 16, "updates": 2} | (LSTM if algorithm_cls is RecurrentAlgorithm else {})
    updates = changes.pop("updates")
    expected = train(algorithm_cls(CartPole, **changes), updates)
    algorithm = algorithm_cls(CartPole, **{**changes, "engine": "compile"})
    got = train(algorithm, updates)
    assert algorithm.params["engine"] == "compile"
    assert torch.allclose(got[1], expected[1], atol=1e-5)


@pytest.mark.parametrize(
    ("phase", "advice"), [("collect", "num_envs=2, or horizon=1"), ("step", "grad_block_size=512")]
)
def test_a_gpu_too_small_is_told_what_to_change(phase, advice, monkeypatch):
    algorithm = Algorithm(DiscreteDummyEnv, **BASE)
    update(algorithm)
    message = "Tried to allocate 8.00 GiB. GPU 0 has a total capacity of 9 GiB of which 2.50 GiB is free."

    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError(message)

    algorithm.collect()
    monkeypatch.setattr(algorithm.backend, "step" if phase == "collect" else "gradient", fail)
    with pytest.raises(
        torch.OutOfMemoryError, match=rf"too small for {phase}\(\): try {advice}.*enable_amp=True"
    ):
        getattr(algorithm, phase)()


@pytest.mark.slow
def test_what_schedules_change_is_compiled_once():
    schedule = [(0, 0.1), (10_000, 0.0)]
    algorithm = Algorithm(
        DiscreteDummyEnv, **{**BASE, "engine": "compile", "num_sgd_iters": 1},
        entropy_coeff_schedule=schedule, entropy_coeff_schedule_kind="interp",
        clip_param_schedule=schedule, clip_param_schedule_kind="interp",
    )  # fmt: skip
    update(algorithm)
    with torch._dynamo.config.patch(error_on_recompile=True):
        stats = update(algorithm, 2)
    assert stats["coefficients/clip_param"] == pytest.approx(0.1 * (1 - 96 / 10_000))
