"""Acting and values in machine code are those of eager, from the same random numbers."""

import pytest
import torch

from rlstack import Algorithm
from rlstack.distributions import Normal
from rlstack.engine.kernels import acting, backend
from rlstack.env import CartPole, Pendulum

from ..helpers import parameters, update
from ..ppo.test_masks import Doors
from .test_kernels import BASE, Twofold

numba_acting = pytest.importorskip("rlstack.engine.native.acting", reason="rlstack[fast] is not installed")
WAYS = [
    (CartPole, {}),
    (Pendulum, {}),
    (Pendulum, {"distribution_cls": Normal}),
    (Twofold, {"model_config": {"hiddens": [12, 8], "log_std_init": -1.0, "max_log_std": -0.5}}),
    (CartPole, {"normalize_observations": True}),
]


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def acts(monkeypatch):
    """Count calls of `Forward.act`."""
    count, act = [], acting.Forward.act

    def counted(self, thread, vectors, noise):
        count.append(thread)
        return act(self, thread, vectors, noise)

    monkeypatch.setattr(acting.Forward, "act", counted)
    return count


def horizon(env_cls, engine, horizons=2, deterministic=False, threads=1, **changes):
    """Return what the last of some horizons left: by name, and torch's random numbers after it."""
    torch.set_num_threads(1)
    options = {**BASE, "model_config": {"hiddens": [12, 8], "activation_fn": "tanh"}, **changes}
    algorithm = Algorithm(env_cls, engine=engine, **options)
    with torch.no_grad():
        for parameter in algorithm.policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    torch.set_num_threads(threads)
    for _ in range(horizons):
        algorithm.collect(deterministic=deterministic)
    buffer = algorithm.collector.buffer
    found = {name: getattr(buffer, name).clone() for name in ("drawn", "logp", "values", "rewards")}
    return {**found, "random": torch.get_rng_state()}


def assert_close(mine, theirs, tolerance):
    for name in mine:
        assert mine[name].dtype == theirs[name].dtype
        assert torch.allclose(mine[name].double(), theirs[name].double(), tolerance, tolerance), name


@pytest.mark.parametrize(("env_cls", "changes"), WAYS, ids=str)
def test_a_horizon_is_that_of_eager(float64, acts, env_cls, changes):
    expected = horizon(env_cls, "eager", **changes)
    assert not acts
    assert_close(horizon(env_cls, "auto", **changes), expected, 1e-9)
    assert len(acts) == 2 * BASE["horizon"]


@pytest.mark.parametrize("env_cls", [CartPole, Pendulum])
def test_float32_is_close_to_eager(acts, env_cls):
    assert_close(horizon(env_cls, "auto", 1), horizon(env_cls, "eager", 1), 1e-4)
    assert acts


@pytest.mark.parametrize("env_cls", [CartPole, Pendulum])
def test_blocks_and_threads_change_no_bit(acts, monkeypatch, env_cls):
    expected = horizon(env_cls, "auto")
    monkeypatch.setattr(numba_acting, "block_rows", lambda shapes: 5)
    in_blocks = horizon(env_cls, "auto")
    monkeypatch.setattr(backend, "ACTING_ALONE", 0)
    before = len(acts)
    shared = horizon(env_cls, "auto", threads=2)
    assert len(acts) - before == 2 * BASE["horizon"] * backend.ACTING_PARTS
    for name, value in expected.items():
        assert torch.equal(in_blocks[name], value)
        assert torch.equal(shared[name], value)


def test_what_it_does_not_cover_acts_as_ever(float64, acts):
    masks = {"model_config": {"hiddens": [12, 8], "action_mask_key": "may"}}
    for env_cls, changes in ((Doors, masks), (CartPole, {"deterministic": True})):
        assert_close(horizon(env_cls, "auto", **changes), horizon(env_cls, "eager", **changes), 1e-9)
    horizon(CartPole, "auto", enable_amp=True)
    assert not acts


def test_it_acts_with_the_parameters_as_they_are(float64, acts):
    found = []
    for engine in ("eager", "auto"):
        algorithm = Algorithm(Pendulum, **BASE, engine=engine, distribution_cls=Normal)
        update(algorithm)
        with torch.no_grad():
            algorithm.policy.model.policy[-1].log_std.fill_(-2.0)
            for parameter in algorithm.policy.parameters():
                parameter.data = parameter.data.clone()
        algorithm.policy.clip_actions(False)
        update(algorithm, 2)
        found.append(parameters(algorithm))
    assert torch.allclose(*found, 1e-8, 1e-8)
    assert acts


def test_what_is_not_a_number_is_found(acts):
    algorithm = Algorithm(CartPole, **BASE)
    with torch.no_grad():
        algorithm.policy.model.policy[-1].linear.bias[0] = torch.nan
    with pytest.raises(ArithmeticError, match="NaN"):
        algorithm.collect()
    assert acts
