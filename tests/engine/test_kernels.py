"""The written-out passes give what autograd gives, on any number of threads."""

import os
import subprocess
import sys

import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm, RecurrentAlgorithm, specs
from rlstack.engine.kernels.select import kernel_class
from rlstack.env import CartPole, ContinuousDummyEnv, DiscreteDummyEnv, Env, Pendulum
from rlstack.models import DiscreteMLP

from ..helpers import parameters, update, without_numba

BASE = {"num_envs": 24, "horizon": 8, "seed": 3, "device": "cpu"}


class Wide(Env):
    """Nested observations, two parts of the action, each with choices of its own."""

    choices = specs.Categorical(4, shape=(2,))

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec = specs.Composite(
            which=specs.Categorical(3, shape=(1,)),
            where=specs.Unbounded((2, 2), dtype=torch.get_default_dtype()),
        )
        self.action_spec = self.choices

    def reset(self, *, config=None):
        num = self.num_envs
        return TensorDict({"which": torch.randint(3, (num, 1)), "where": torch.randn(num, 2, 2)}, num)

    def step(self, action):
        rewards = action.to(torch.get_default_dtype()).flatten(1)[:, 1:].sum(-1, keepdim=True)
        return TensorDict({"obs": self.reset(), "rewards": rewards}, self.num_envs)


class Several(Wide):
    choices = specs.MultiCategorical([2, 3])


class OneOf(Wide):
    choices = specs.OneHot(3)


class Switches(Wide):
    choices = specs.Binary(3)


class Twofold(ContinuousDummyEnv.__base__):
    """Actions of two numbers."""

    def __init__(self, num_envs, /, **kwargs):
        super().__init__(num_envs, **kwargs)
        self.action_spec = specs.Unbounded((2,), dtype=torch.get_default_dtype())

    def _displacement(self, action):
        return action.sum(-1, keepdim=True)


@pytest.fixture(autouse=True)
def _operations(monkeypatch):
    """Compute as without numba, which would take what Adam makes of these gradients."""
    without_numba(monkeypatch)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def train(cls, env_cls, engine, updates=3, threads=2, **changes):
    # Orthogonal matrices come out differently, by their last bits, on another number of threads.
    torch.set_num_threads(1)
    start = cls(env_cls, **{**BASE, **changes}).policy.state_dict()
    torch.set_num_threads(threads)
    algorithm = cls(env_cls, **{**BASE, "engine": engine, **changes})
    algorithm.policy.load_state_dict(start)
    assert algorithm.params["engine"] == ("eager" if engine == "eager" else "kernels")
    stats = [update(algorithm) for _ in range(updates)]
    moments = [
        value.flatten()
        for state in algorithm.learner.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    assert torch.get_num_threads() == threads
    return parameters(algorithm), torch.cat(moments), stats


def assert_same(cls, env_cls, tolerance, **changes):
    expected, moments, their_stats = train(cls, env_cls, "eager", threads=1, **changes)
    got, my_moments, my_stats = train(cls, env_cls, "auto", **changes)
    assert (got - expected).norm() <= tolerance * expected.norm()
    assert (my_moments - moments).norm() <= tolerance * moments.norm()
    for mine, theirs in zip(my_stats, their_stats, strict=True):
        for key in mine.keys() - {"profiling/collect_ms", "profiling/step_ms"}:
            assert mine[key] == pytest.approx(theirs[key], rel=100 * tolerance, abs=10 * tolerance), key


ENVS = [DiscreteDummyEnv, ContinuousDummyEnv, CartPole, Pendulum, Wide, Several, OneOf, Switches, Twofold]
MODES = [
    {},
    {"sgd_minibatch_size": 48, "grad_block_size": 20},
    {"sgd_minibatch_size": 48, "entropy_coeff": 0.1, "grad_block_size": 7},
    {"accumulate_grads": True, "sgd_minibatch_size": 16, "entropy_coeff": 0.1},
    {"dual_clip_param": 1.5, "clip_param": 0.01, "optimizer_config": {"lr": 0.02}},
    {"vf_clip_param": None, "max_grad_norm": None, "normalize_observations": True},
    {"vf_clip_param": 0.01, "vf_coeff": 0.3, "optimizer_config": {"lr": 0.02}, "num_sgd_iters": 8},
    {"target_kl_div": 0.001, "optimizer_config": {"lr": 0.02}, "max_grad_norm": 0.01},
    {"horizons_per_env_reset": 2, "lr_schedule": [(0, 1e-2), (400, 1e-3)], "shuffle_minibatches": False},
    {"clip_param_schedule": [(0, 0.2), (400, 0.01)], "optimizer_config": {"lr": 0.02}},
    {"adaptive_lr": 1e-3, "optimizer_config": {"lr": 3e-3, "value": {"lr": 1e-2}}, "num_sgd_iters": 8},
    {"horizons_per_env_reset": -1, "optimizer_cls": torch.optim.RMSprop},
]


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("env_cls", ENVS)
def test_a_perceptron(float64, env_cls, mode):
    mode = {**mode, "sgd_minibatch_size": mode.get("sgd_minibatch_size")}
    assert_same(Algorithm, env_cls, 1e-9, **mode, model_config={"hiddens": [12, 8]})


@pytest.mark.parametrize("hiddens", [[5], [6, 6, 6], [2, 40], [40, 2]])
@pytest.mark.parametrize("activation_fn", ["relu", "tanh"])
def test_perceptrons_of_other_shapes(float64, hiddens, activation_fn):
    config = {"hiddens": hiddens, "activation_fn": activation_fn}
    assert_same(Algorithm, CartPole, 1e-9, model_config=config, grad_block_size=50)


@pytest.mark.parametrize("value_hiddens", [[5], [40, 2, 3], [3, 7], [7, 3]])
def test_a_value_network_of_another_shape(float64, value_hiddens):
    config = {"hiddens": [7, 3], "value_hiddens": value_hiddens}
    assert_same(Algorithm, CartPole, 1e-9, model_config=config, grad_block_size=50)
    # A block is as long as the widest layer allows.
    wide = {"hiddens": [8], "value_hiddens": [2048], "activation_fn": "tanh"}
    algorithm = Algorithm(CartPole, **{**BASE, "num_envs": 1024}, model_config=wide)
    assert algorithm.backend.block_size == 128


BOUNDS = {"log_std_init": -1, "min_log_std": -1.01, "max_log_std": -0.99}
SMALL = {
    Algorithm: {"model_config": {"hiddens": [8], **BOUNDS}},
    RecurrentAlgorithm: {"model_config": {"hidden_size": 6, **BOUNDS}},
}


def log_std_of(algorithm):
    [log_std] = [p for name, p in algorithm.policy.named_parameters() if name.endswith("log_std")]
    return log_std


@pytest.mark.parametrize("cls", SMALL)
@pytest.mark.parametrize("env_cls", [Pendulum, Twofold])
def test_a_log_std_that_would_leave_its_bounds(float64, cls, env_cls):
    assert_same(cls, env_cls, 1e-9, **SMALL[cls], entropy_coeff=0.1, optimizer_config={"lr": 0.004})


@pytest.mark.parametrize("engine", ["auto", "eager"])
@pytest.mark.parametrize("cls", SMALL)
def test_a_log_std_stops_at_a_bound_and_comes_back(cls, engine):
    # Nothing but the entropy counts, which first is to grow, then to shrink.
    entropy = {"entropy_coeff_schedule": [(0, 1e3), (500, -1e3)], "max_grad_norm": None}
    sgd = {"optimizer_cls": torch.optim.SGD, "optimizer_config": {"lr": 1e-5}}
    algorithm = cls(Pendulum, **BASE, engine=engine, **SMALL[cls], **entropy, **sgd)
    log_std, seen = log_std_of(algorithm), []
    for _ in range(4):
        update(algorithm)
        seen.append(log_std.item())
    assert seen == pytest.approx([-0.99, -0.99, -1.01, -1.01])


@pytest.mark.parametrize("engine", ["auto", "eager"])
@pytest.mark.parametrize("cls", SMALL)
def test_a_log_std_beyond_a_bound_has_no_gradient(cls, engine):
    algorithm = cls(Twofold, **BASE, engine=engine, **SMALL[cls], entropy_coeff=0.1, num_sgd_iters=1)
    log_std = log_std_of(algorithm)
    log_std.data.copy_(torch.tensor([-2.0, -1.0]))
    algorithm.collect()
    algorithm.step()
    assert log_std.grad[0] == 0 != log_std.grad[1]
    assert log_std[0].item() == pytest.approx(-1.01)


@pytest.mark.parametrize("activation_fn", ["relu", "tanh"])
def test_a_perceptron_in_float32(activation_fn):
    config = {"hiddens": [64, 64], "activation_fn": activation_fn}
    assert_same(Algorithm, CartPole, 1e-4, model_config=config, updates=1, sgd_minibatch_size=96)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("env_cls", [DiscreteDummyEnv, Pendulum, Wide, Twofold])
def test_a_memory(float64, env_cls, mode):
    size = mode.get("sgd_minibatch_size")
    mode = {**mode, "sgd_minibatch_size": size and size // 4}
    assert_same(RecurrentAlgorithm, env_cls, 1e-9, **mode, model_config={"hidden_size": 6})


@pytest.mark.parametrize("changes", [{"seq_len": 1}, {"seq_len": 8}, {"seqs_per_state_reset": 3}], ids=str)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_memories_of_other_shapes(float64, changes, num_layers):
    config = {"hidden_size": 5, "num_layers": num_layers}
    assert_same(RecurrentAlgorithm, CartPole, 1e-9, model_config=config, horizons_per_env_reset=-1, **changes)


def test_a_memory_in_float32():
    assert_same(RecurrentAlgorithm, CartPole, 1e-4, model_config={"hidden_size": 32}, updates=1)


def test_16_bits_give_nearly_the_same(half):
    common = {"model_config": {"hiddens": [64, 64]}, "updates": 1, "enable_amp": True}
    expected, _, their_stats = train(Algorithm, CartPole, "eager", **common)
    got, _, my_stats = train(Algorithm, CartPole, "auto", **common)
    start = parameters(Algorithm(CartPole, **BASE, model_config={"hiddens": [64, 64]}))
    assert torch.nn.functional.cosine_similarity(got - start, expected - start, dim=0) > 0.9
    for key in ("losses/policy", "losses/vf", "monitors/grad_norm"):
        assert my_stats[0][key] == pytest.approx(their_stats[0][key], rel=0.05, abs=5e-3)


@pytest.mark.parametrize("cls", [Algorithm, RecurrentAlgorithm])
@pytest.mark.parametrize("env_cls", [CartPole, ContinuousDummyEnv])
def test_the_number_of_threads_changes_nothing(cls, env_cls):
    options = {"grad_block_size": 16, "normalize_observations": True, "entropy_coeff": 0.01}
    one, moments, _ = train(cls, env_cls, "auto", threads=1, **options)
    for threads in (2, 3):
        same, same_moments, _ = train(cls, env_cls, "auto", threads=threads, **options)
        assert torch.equal(one, same)
        assert torch.equal(moments, same_moments)


PLAIN = """
import torch
from rlstack import Algorithm, RecurrentAlgorithm
from rlstack.env import CartPole, Pendulum
for cls in (Algorithm, RecurrentAlgorithm):
    for env_cls in (CartPole, Pendulum):
        algorithm = cls(env_cls, num_envs=24, horizon=8, seed=3, device="cpu", grad_block_size=48)
        for _ in range(3):
            algorithm.collect()
            algorithm.step()
        print(algorithm.engine, *[p.double().sum().item().hex() for p in algorithm.policy.parameters()])
"""


@pytest.mark.slow
def test_the_same_comes_out_without_torchscript():
    said = []
    for jit in "01":
        environment = os.environ | {"PYTORCH_JIT": jit}
        command = [sys.executable, "-W", "error::DeprecationWarning:rlstack", "-c", PLAIN]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0] == said[1]
    assert said[0].count("kernels") == 4


def test_a_fault_in_a_thread_comes_out():
    torch.set_num_threads(2)
    algorithm = Algorithm(CartPole, **BASE, grad_block_size=16)
    algorithm.collect()
    algorithm.backend.encode = lambda obs: 1 / 0
    with pytest.raises(ZeroDivisionError):
        algorithm.step()
    assert torch.get_num_threads() == 2
    assert not torch.is_inference_mode_enabled()


class Changed(DiscreteMLP.__base__):
    head_cls = DiscreteMLP.head_cls


def test_only_the_default_models_as_they_are():
    def policy(**changes):
        return Algorithm(CartPole, **BASE, **changes).policy

    assert kernel_class(policy(), amp=False)
    assert kernel_class(RecurrentAlgorithm(CartPole, **BASE).policy, amp=False)
    assert not kernel_class(RecurrentAlgorithm(CartPole, **BASE).policy, amp=True)
    assert not kernel_class(policy(model_cls=Changed), amp=False)
    assert not kernel_class(policy(model_config={"activation_fn": "gelu"}), amp=False)
    assert not kernel_class(policy(model_config={"layer_norm": True}), amp=False)
    for change in (
        lambda model: model.policy.register_forward_hook(lambda *args: None),
        lambda model: model.value[0].bias.requires_grad_(False),
        lambda model: model.value.append(torch.nn.Identity()),
        lambda model: torch.nn.utils.parametrizations.weight_norm(model.value[0]),
        lambda model: model.double().value.float(),
    ):
        changed = policy()
        change(changed.model)
        assert not kernel_class(changed, amp=False)
