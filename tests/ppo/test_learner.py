"""Optimizer steps: gradients in blocks, and what keeps a step from being made."""

from operator import call

import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm, NonFiniteError, RecurrentAlgorithm
from rlstack.env import ContinuousDummyEnv, DiscreteDummyEnv
from rlstack.models import DiscreteMLP, Model
from rlstack.ppo import backend, estimates, losses, precision
from rlstack.ppo.rollout_buffer import Sequences

from ..helpers import SMALL, parameters, update
from ..standin import like_on_a_gpu

# The parameters move by exactly minus the gradient.
PLAIN = {
    "optimizer_cls": torch.optim.SGD,
    "optimizer_config": {"lr": 1.0},
    "max_grad_norm": None,
    "num_sgd_iters": 1,
}
BASE = {"num_envs": 12, "horizon": 8, "seed": 1, "device": "cpu"}


def gradient(algorithm_cls=Algorithm, **hyperparameters):
    if algorithm_cls is Algorithm:
        hyperparameters = {"model_config": SMALL, **hyperparameters}
    else:
        hyperparameters = {"model_config": {"hidden_size": 8}, **hyperparameters}
    algorithm = algorithm_cls(DiscreteDummyEnv, **{**BASE, **PLAIN, **hyperparameters})
    before = parameters(algorithm)
    update(algorithm)
    return before - parameters(algorithm)


def direct_gradient():
    """One big batch, written out: no blocks, no minibatches, no learner."""
    algorithm = Algorithm(DiscreteDummyEnv, **BASE, **PLAIN, model_config=SMALL)
    algorithm.collect()
    buffer = algorithm.collector.buffer
    scale = algorithm.advantages.return_moments.var.sqrt()
    advantages, returns = estimates.gae(
        buffer.rewards.squeeze(-1).T / scale, buffer.values.squeeze(-1).T, gamma=0.95, gae_lambda=0.95
    )
    sequences, whole = Sequences(buffer), slice(0, 96)
    sequences.fill(estimates.normalize(advantages), returns)
    obs, state = sequences.observations(whole)
    loss = losses.ppo_loss(
        **algorithm.policy.evaluate(obs, sequences.drawn(whole), state)._asdict(),
        **sequences.loss_inputs(whole)._asdict(),
        clip_param=0.2, vf_clip_param=5.0, dual_clip_param=None, vf_coeff=1.0, entropy_coeff=0.0,
    )  # fmt: skip
    gradients = torch.autograd.grad(loss.total, list(algorithm.policy.parameters()))
    return torch.cat([g.flatten() for g in gradients])


BLOCKS = [
    {"grad_block_size": 5},
    {"grad_block_size": 96},
    {"grad_block_size": 1},
    {"accumulate_grads": True, "sgd_minibatch_size": 8},
    {"accumulate_grads": True, "sgd_minibatch_size": 48, "grad_block_size": 7},
]


@pytest.mark.parametrize("blocks", BLOCKS, ids=str)
def test_blocks_give_the_gradient_of_one_batch_in_float64(float64, blocks):
    expected = direct_gradient()
    error = gradient(**blocks) - expected
    assert error.norm() <= 1e-10 * expected.norm()


@pytest.mark.parametrize("blocks", BLOCKS, ids=str)
def test_blocks_give_the_gradient_of_one_batch_in_float32(blocks):
    expected = direct_gradient()
    assert (gradient(**blocks) - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize(
    "blocks",
    [{"grad_block_size": 4}, {"grad_block_size": 20}, {"accumulate_grads": True, "sgd_minibatch_size": 6}],
    ids=str,
)
def test_blocks_of_sequences(float64, blocks):
    expected = gradient(RecurrentAlgorithm)
    assert (gradient(RecurrentAlgorithm, **blocks) - expected).norm() <= 1e-10 * expected.norm()


def test_accumulation_makes_one_optimizer_step_per_iteration():
    algorithm = Algorithm(
        DiscreteDummyEnv,
        **BASE,
        model_config=SMALL,
        sgd_minibatch_size=8,
        accumulate_grads=True,
        num_sgd_iters=3,
    )
    update(algorithm)
    steps = {int(state["step"]) for state in algorithm.learner.optimizer.state.values()}
    assert steps == {3}


def test_minibatches_make_a_step_each():
    algorithm = Algorithm(DiscreteDummyEnv, **BASE, model_config=SMALL, sgd_minibatch_size=8, num_sgd_iters=3)
    update(algorithm)
    assert {int(state["step"]) for state in algorithm.learner.optimizer.state.values()} == {36}


def test_gradients_are_clipped_by_their_global_norm():
    free, clipped = gradient(), gradient(max_grad_norm=0.01)
    assert free.norm() > 0.01
    assert torch.allclose(clipped, free * 0.01 / free.norm(), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("optimizer_cls", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop])
@pytest.mark.parametrize("on_device", [False, True])
class TestKLStop:
    def run(self, optimizer_cls, on_device, **changes):
        # Where reading a flag is a wait, the flag alone has to stop the optimizer.
        algorithm = (like_on_a_gpu if on_device else call)(
            Algorithm,
            DiscreteDummyEnv,
            **BASE,
            model_config=SMALL,
            optimizer_cls=optimizer_cls,
            optimizer_config={"lr": 0.03},
            **changes,
        )
        return algorithm, update(algorithm)

    def test_cancels_the_step_and_the_rest(self, optimizer_cls, on_device):
        stopped, stats = self.run(optimizer_cls, on_device, target_kl_div=1e-7, num_sgd_iters=6)
        # The first step is on policy, so the estimate is 0; the second one exceeds the limit.
        once, _ = self.run(optimizer_cls, on_device, num_sgd_iters=1)
        assert torch.equal(parameters(stopped), parameters(once))
        assert stats["monitors/kl_div"] > 0

    def test_lets_small_changes_pass(self, optimizer_cls, on_device):
        limited, _ = self.run(optimizer_cls, on_device, target_kl_div=100.0)
        free, _ = self.run(optimizer_cls, on_device)
        assert torch.equal(parameters(limited), parameters(free))


def test_the_limit_is_one_and_a_half_times_the_target():
    def last_kl(target):
        algorithm = Algorithm(
            DiscreteDummyEnv, **BASE, model_config=SMALL, target_kl_div=target, num_sgd_iters=2
        )
        before = parameters(algorithm)
        update(algorithm)
        return algorithm.learner.records()[-1], before

    kl = last_kl(100.0)[0][4].item()
    assert last_kl(kl / 1.49)[0][-1] == 1
    assert last_kl(kl / 1.51)[0][-1] == 0


class Poisoned(Model):
    """A model that fails in one way from its k-th gradient computation on."""

    def __init__(self, observation_spec, action_spec, /, fault="", after=0):
        super().__init__(observation_spec, action_spec, fault=fault, after=after)
        self.inner = DiscreteMLP(observation_spec, action_spec, **SMALL)
        self.zero = torch.nn.Parameter(torch.zeros(()))
        self.calls = 0

    def forward(self, obs):
        features, values = self.inner(obs)
        if torch.is_grad_enabled():
            self.calls += 1
        if self.calls > self.config["after"]:
            if self.config["fault"] == "loss":
                values = values * float("nan")
            elif self.config["fault"] == "gradient":
                # Finite, but its slope at 0 is infinite.
                values = values + self.zero.abs().sqrt()
        return features, values


@pytest.mark.parametrize("optimizer_cls", [torch.optim.Adam, torch.optim.RMSprop])
@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_nothing_that_is_not_finite_reaches_the_parameters(fault, on_device, optimizer_cls):
    def make(after, num_sgd_iters):
        algorithm = (like_on_a_gpu if on_device else call)(
            Algorithm, DiscreteDummyEnv, **BASE,
            model_cls=Poisoned, model_config={"fault": fault, "after": after},
            optimizer_cls=optimizer_cls, num_sgd_iters=num_sgd_iters,
        )  # fmt: skip
        algorithm.collect()
        return algorithm

    sound = make(99, 2)
    sound.step()
    poisoned = make(2, 4)
    with pytest.raises(
        NonFiniteError, match=f"the {fault} is NaN or infinite in optimizer step 2 of update 1"
    ):
        poisoned.step()
    # Two steps were sound and made; the third and fourth were not.
    assert torch.equal(parameters(poisoned), parameters(sound))


def test_a_gated_first_step_leaves_momentum_alone():
    algorithm = Algorithm(
        DiscreteDummyEnv, **BASE, model_cls=Poisoned, model_config={"fault": "loss"},
        optimizer_cls=torch.optim.SGD, optimizer_config={"lr": 0.01, "momentum": 0.9},
    )  # fmt: skip
    before = parameters(algorithm)
    with pytest.raises(NonFiniteError):
        update(algorithm)
    algorithm.policy.model.config["fault"] = ""
    update(algorithm)
    assert (parameters(algorithm) - before).abs().max() < 1


def test_blocks_and_collect_share_their_precision(half):
    algorithm = Algorithm(DiscreteDummyEnv, **BASE, enable_amp=True, num_sgd_iters=1, grad_block_size=12)
    stats = update(algorithm)
    assert stats["monitors/kl_div"] < 1e-5
    assert stats["monitors/clip_fraction"] == 0
    assert all(p.dtype == torch.float32 for p in algorithm.policy.parameters())


@pytest.mark.parametrize("algorithm_cls", [Algorithm, RecurrentAlgorithm])
def test_bfloat16_is_close_to_float32(half, algorithm_cls):
    if algorithm_cls is RecurrentAlgorithm and not half:
        pytest.skip("this CPU has no LSTM in 16 bits")
    rough = gradient(algorithm_cls, enable_amp=True)
    full = gradient(algorithm_cls)
    assert 0 < (rough - full).norm() < 0.1 * full.norm()


class TestFloat16:
    """The gradient scaler, on the CPU: hardware without bfloat16 isn't at hand everywhere."""

    @pytest.fixture(autouse=True)
    def _float16(self, monkeypatch, half):
        for module in (precision, backend):
            monkeypatch.setattr(module, "amp_dtype", lambda device: torch.float16)

    def make(self, **changes):
        options = {**BASE, "model_config": SMALL, "enable_amp": True, "engine": "eager"}
        return Algorithm(ContinuousDummyEnv, **{**options, **changes})

    def test_learns(self):
        algorithm = self.make()
        before = parameters(algorithm)
        stats = update(algorithm, 5)
        assert parameters(algorithm).isfinite().all()
        assert not torch.equal(parameters(algorithm), before)
        assert stats["monitors/grad_norm"] > 0

    def test_steps_that_overflow_are_skipped_and_tried_at_a_smaller_scale(self):
        algorithm = self.make(num_sgd_iters=3)
        scaler = algorithm.learner.scaler
        scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0**60})
        before = parameters(algorithm)
        update(algorithm)
        assert torch.equal(parameters(algorithm), before)
        assert algorithm.learner.skipped_steps == 3
        assert scaler.get_scale() < 2.0**60
        scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0**8})
        update(algorithm)
        assert not torch.equal(parameters(algorithm), before)
        assert algorithm.learner.skipped_steps == 0

    def test_too_many_skips_in_a_row_are_an_error(self):
        algorithm = self.make(num_sgd_iters=4)
        scaler = algorithm.learner.scaler
        before = parameters(algorithm)

        def overflow_again():
            scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0**100})
            update(algorithm)

        overflow_again()
        overflow_again()
        with pytest.raises(NonFiniteError, match="the gradient"):
            overflow_again()
        assert torch.equal(parameters(algorithm), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lrr": 0.1}, "optimizer_config.lrr is not an option of Adam: did you mean lr"),
        ({"learning_rate": 0.1}, "optimizer_config.learning_rate is not an option of Adam: did you mean lr"),
        ({"params": []}, "optimizer_config.params is not an option of Adam: expected one of lr, betas, eps,"),
        ({"zzz": 1}, "amsgrad, maximize, decoupled_weight_decay$"),
        ({"lr": -1.0}, "optimizer_config: Invalid learning rate"),
        ({"betas": 3}, "optimizer_config"),
    ],
)
def test_bad_optimizer_options(options, message):
    with pytest.raises(ValueError, match=message):
        Algorithm(DiscreteDummyEnv, **BASE, optimizer_config=options)


def test_an_optimizer_of_ones_own():
    class Signs(torch.optim.Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p -= group["lr"] * p.grad.sign()

    algorithm = Algorithm(
        DiscreteDummyEnv,
        **BASE,
        model_config=SMALL,
        optimizer_cls=Signs,
        optimizer_config={"lr": 0.25},
        num_sgd_iters=1,
    )
    before = parameters(algorithm)
    update(algorithm)
    moved = (before - parameters(algorithm)).abs()
    assert ((moved - 0.25).abs().lt(1e-5) | moved.eq(0)).all()
    assert moved.gt(0).any()


def test_unused_parameters_do_no_harm():
    class Spare(Model):
        def __init__(self, observation_spec, action_spec, /):
            super().__init__(observation_spec, action_spec)
            self.inner = DiscreteMLP(observation_spec, action_spec, **SMALL)
            self.spare = torch.nn.Parameter(torch.ones(3))
            self.frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)

        def forward(self, obs) -> tuple[TensorDict, torch.Tensor]:
            return self.inner(obs)

    algorithm = Algorithm(DiscreteDummyEnv, **BASE, model_cls=Spare)
    update(algorithm)
    assert torch.equal(algorithm.policy.model.spare, torch.ones(3))
