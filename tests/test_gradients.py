"""Tensors of the user's that require grad: nobody needs their gradients, and rlstack keeps none."""

import copy

import pytest
import torch
from click.testing import CliRunner
from tensordict import TensorDict

from rlstack import Algorithm, RecurrentAlgorithm, Trainer, specs
from rlstack.cli.app import main
from rlstack.distributions import Normal
from rlstack.env import Env
from rlstack.env_check.report import check_env
from rlstack.models import Model

from .helpers import SMALL, parameters, update
from .standin import like_on_a_gpu, record

BASE = {"num_envs": 8, "horizon": 4, "seed": 0, "device": "cpu", "num_sgd_iters": 2}


class Learned(Env):
    """A simulation that is a network: what it returns requires grad, where `grads` says so."""

    grads = frozenset({"reset", "step", "state"})
    nested = False

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec = specs.Unbounded((2,))
        if self.nested:
            self.observation_spec = specs.Composite(deep=specs.Composite(x=specs.Unbounded((2,))))
        self.action_spec = specs.Unbounded((2,))
        self.weight = torch.full((2,), 0.5, requires_grad=True)
        self.seen = []

    def _out(self, x, where):
        with torch.set_grad_enabled(where in self.grads):
            obs = x * (2 * self.weight)
        if not self.nested:
            return obs
        return TensorDict({"deep": TensorDict({"x": obs}, self.num_envs)}, self.num_envs)

    def reset(self, *, config=None):
        self.x = torch.randn(self.num_envs, 2)
        return self._out(self.x, "reset")

    def step(self, action):
        self.seen.append(action.requires_grad)
        with torch.set_grad_enabled("state" in self.grads):
            self.x = self.weight * self.x + 0.1 * action
        with torch.set_grad_enabled("step" in self.grads):
            rewards = -(self.x * self.weight).abs().sum(1, keepdim=True)
        return TensorDict({"obs": self._out(self.x, "step"), "rewards": rewards}, self.num_envs)

    def state_dict(self):
        return {"x": self.x, "all": [{"x": self.x}, (self.x,)]}

    def load_state_dict(self, state):
        self.x = state["x"].clone()


class Plain(Learned):
    grads = frozenset()


def variant(**traits):
    return type("Variant", (Learned,), traits)


VARIANTS = {
    "reset": variant(grads={"reset"}),
    "step": variant(grads={"step"}),
    "all": Learned,
    "nested": variant(nested=True),
}


def require_no_grad(algorithm):
    tensors = algorithm.collector.tensors()
    assert not any(tensor.requires_grad for tensor in tensors)


@pytest.mark.parametrize("cls", [Algorithm, RecurrentAlgorithm])
@pytest.mark.parametrize("name", VARIANTS)
def test_training_is_that_without_them(cls, name):
    small = {"model_config": SMALL if cls is Algorithm else {"hidden_size": 8}}
    plain = cls(Plain, **BASE, **small)
    expected = update(plain, 2)
    algorithm = cls(VARIANTS[name], **BASE, **small)
    assert update(algorithm, 2)["returns/mean"] == expected["returns/mean"]
    assert torch.equal(parameters(algorithm), parameters(plain))
    require_no_grad(algorithm)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_checker_finds_nothing_wrong(name):
    assert check_env(VARIANTS[name]).faults == []


def test_the_command_has_no_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tests = "from tests.test_gradients import Learned\n"
    (tmp_path / "my_env.py").write_text(tests)
    result = CliRunner().invoke(main, ["check", "my_env.py:Learned", "--device", "cpu"])
    assert result.exit_code == 0, result.output


class Physical(Model):
    """Computes with gradients of its own, whatever is asked for."""

    def __init__(self, observation_spec, action_spec, /, size=2):
        super().__init__(observation_spec, action_spec, size=size)
        self.net = torch.nn.Linear(size, size)

    def forward(self, obs):
        with torch.enable_grad():
            mean = self.net(obs)
            features = TensorDict({"mean": mean, "log_std": torch.zeros_like(mean)}, len(obs))
            return features, mean.sum(1, keepdim=True)


def test_actions_that_an_environment_gets_need_no_gradients():
    algorithm = Algorithm(Plain, **BASE, model_cls=Physical, distribution_cls=Normal)
    algorithm.collect(deterministic=True)
    assert algorithm.env.seen == [False] * BASE["horizon"]


def test_what_a_policy_returns_needs_no_gradients():
    algorithm = Algorithm(Plain, **BASE, model_cls=Physical, distribution_cls=Normal)
    acted = algorithm.policy.act(torch.zeros(3, 2, requires_grad=True), deterministic=True)
    assert not any(part.requires_grad for part in acted if part is not None)


def test_a_recurrent_state_with_gradients_is_taken_without():
    algorithm = RecurrentAlgorithm(Plain, **BASE, model_config={"hidden_size": 8})
    update(algorithm)
    state = copy.deepcopy(algorithm.state_dict())
    collector = state["collector"]
    expected = collector["recurrent"].clone()
    collector["recurrent"] = collector["recurrent"].apply(lambda x: x.requires_grad_())
    collector["obs"].requires_grad_()
    algorithm.load_state_dict(state)
    require_no_grad(algorithm)
    assert (algorithm.state_dict()["collector"]["recurrent"] == expected).all()
    update(algorithm)


def test_the_environments_own_state_is_saved_and_restored(tmp_path):
    # Its first horizon doesn't end with a reset, so that its state matters.
    config = {**BASE, "horizons_per_env_reset": 2, "model_config": SMALL}
    trainer = Trainer(Learned, algorithm_config=config, track=False)
    trainer.step()
    path = trainer.save(tmp_path)
    expected = trainer.algorithm.env.x.detach().clone()
    trainer.step()
    assert not torch.equal(trainer.algorithm.env.x, expected)
    trainer.load(path)
    assert torch.equal(trainer.algorithm.env.x, expected)


def test_recorded_horizons_take_tensors_that_require_grad():
    options = {**BASE, "model_config": SMALL, "horizons_per_env_reset": -1}
    plain = like_on_a_gpu(Algorithm, Learned, **options)
    update(plain, 4)
    recorded = record(Algorithm, Learned, **options)
    update(recorded, 4)
    assert torch.equal(parameters(recorded), parameters(plain))
