"""Models that their user compiles, whole or in part: named, trained, saved and loaded as if they weren't."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from tensordict import TensorDict

from rlstack import Algorithm, HparamsError, Policy, RecurrentAlgorithm, Trainer
from rlstack.common.random_state import set_random_state
from rlstack.env import CartPole
from rlstack.models import DiscreteLSTM, DiscreteMLP, Model
from rlstack.runs import checkpoint

from ..helpers import SMALL, parameters, update

BASE = {"num_envs": 8, "horizon": 4, "seed": 0, "device": "cpu", "num_sgd_iters": 1}


class Net(Model):
    """A network that may be replaced by a compiled one, with a buffer in it."""

    def __init__(self, observation_spec, action_spec, /, size=4):
        super().__init__(observation_spec, action_spec, size=size)
        self.net = torch.nn.Linear(size, 3)
        self.net.register_buffer("scale", torch.tensor(2.0))

    def forward(self, obs):
        out = self.net(obs * self.net.scale)
        return TensorDict({"logits": out[:, None, :2]}, len(obs)), out[:, 2:]


class Wrapped(torch.nn.Module):
    """What torch.compile makes of a module, without compiling: it holds the module by the same name."""

    def __init__(self, module):
        super().__init__()
        self._orig_mod = module

    def forward(self, *inputs):
        return self._orig_mod(*inputs)

    def __getattr__(self, name):
        return super().__getattr__(name) if name == "_orig_mod" else getattr(self._orig_mod, name)


def compiled(module):
    return torch.compile(module, backend="eager")


def part_compiled(cls=Algorithm, wrap=compiled, **options):
    options = {"model_cls": Net} if cls is Algorithm else {"model_config": {"hidden_size": 8}, **options}
    algorithm = cls(CartPole, **BASE, **options)
    part = "net" if cls is Algorithm else "value"
    setattr(algorithm.policy.model, part, wrap(getattr(algorithm.policy.model, part)))
    return algorithm


@pytest.mark.parametrize("model_cls", [DiscreteMLP, DiscreteLSTM])
@pytest.mark.parametrize("way", ["model", "model_cls"])
def test_a_compiled_model_is_helped_on(model_cls, way):
    def make(observation_spec, action_spec):
        return compiled(model_cls(observation_spec, action_spec))

    env = CartPole(1)
    cls = Algorithm if model_cls is DiscreteMLP else RecurrentAlgorithm
    given = make if way == "model_cls" else make(env.observation_spec, env.action_spec)
    with pytest.raises(HparamsError, match='hand over the model itself; engine="compile" compiles it'):
        cls(CartPole, **BASE, **{way: given})


def test_a_part_compiled_later_is_saved_under_its_own_name(tmp_path):
    algorithm = part_compiled()
    policy = algorithm.policy
    assert type(policy.model.net) is not torch.nn.Linear
    policy.save(tmp_path / "policy.safetensors")
    names = {"model.net.weight", "model.net.bias", "model.net.scale"}
    assert load_file(tmp_path / "policy.safetensors").keys() == names
    loaded = Policy.load(tmp_path / "policy.safetensors", model_cls=Net)
    assert type(loaded.model.net) is torch.nn.Linear
    assert torch.equal(loaded.model.net.weight, policy.model.net.weight)
    obs = torch.randn(5, 4)
    acted = [each.act(obs, deterministic=True) for each in (loaded, policy)]
    assert torch.equal(acted[0].values, acted[1].values)


def test_a_whole_model_compiled_later_is_saved_as_what_it_is(tmp_path):
    policy = Algorithm(CartPole, **BASE, model_config=SMALL).policy
    before = policy.description
    policy.model = compiled(policy.model)
    assert policy.description == before
    policy.save(tmp_path / "policy.safetensors")
    loaded = Policy.load(tmp_path / "policy.safetensors")
    assert torch.equal(loaded.model.value[0].weight, policy.model.value[0].weight)


@pytest.mark.parametrize("cls", [Algorithm, RecurrentAlgorithm])
@pytest.mark.parametrize("ways", [(True, False), (False, True), (True, True)])
def test_checkpoints_go_from_compiled_models_to_others_and_back(tmp_path, cls, ways):
    options = {"model_cls": Net} if cls is Algorithm else {"model_config": {"hidden_size": 8}}
    first, second = (part_compiled(cls, Wrapped) if way else cls(CartPole, **BASE, **options) for way in ways)
    head = first.policy.model.net if cls is Algorithm else first.policy.model.value
    head.bias.requires_grad_(False)
    update(first, 2)
    packed = checkpoint.write(
        tmp_path, 0, first.policy, first.state_dict(),
        {"collects": 0, "updates": 0, "env_steps": 0, "stats": {}},
    )  # fmt: skip
    state = checkpoint.read(packed).state
    assert not any("_orig_mod" in name for name in state["policy"])
    second.load_state_dict(state)
    saved = parameters(first)
    assert torch.equal(parameters(second), saved)
    update(second)
    set_random_state(state["random"], first.device)
    update(first)
    assert not torch.equal(parameters(first), saved)
    assert torch.allclose(parameters(first), parameters(second), atol=1e-5)


def test_what_was_saved_with_the_compilers_names_is_loaded(tmp_path):
    whole = Algorithm(CartPole, **BASE, model_cls=Net)
    update(whole)
    state = copy.deepcopy(whole.state_dict())

    def as_before(name):
        return name.replace("net.", "net._orig_mod.")

    state["policy"] = {as_before(name): value for name, value in state["policy"].items()}
    state["optimizer"]["parameters"] = [as_before(name) for name in state["optimizer"]["parameters"]]
    state["optimizer"]["frozen"] = [as_before("model.net.bias")]
    other = Algorithm(CartPole, **{**BASE, "seed": 5}, model_cls=Net)
    other.load_state_dict(state)
    assert torch.equal(parameters(other), parameters(whole))
    assert not other.policy.model.net.bias.requires_grad
    assert other.policy.model.net.weight.requires_grad


def test_missing_and_unknown_names_are_still_named():
    policy = part_compiled().policy
    state = policy.state_dict()
    state["model.net.other"] = state.pop("model.net.weight")
    with pytest.raises(
        RuntimeError, match=r'(?s)Missing.*"model.net._orig_mod.weight".*Unexpected.*net.*other'
    ):
        policy.load_state_dict(state)


def test_a_part_of_a_default_model_may_be_compiled_or_replaced():
    algorithm = Algorithm(CartPole, **BASE, model_config=SMALL)
    update(algorithm)
    assert algorithm.engine == "kernels"
    algorithm.policy.model.value = compiled(algorithm.policy.model.value)
    update(algorithm)
    assert algorithm.engine == "eager"
    assert algorithm.params["model_cls"].endswith("DiscreteMLP")


def test_a_run_is_resumed_with_and_without(tmp_path):
    def make(run_dir=None):
        config = {**BASE, "model_cls": Net}
        return Trainer(CartPole, algorithm_config=config, run_dir=run_dir, track=False)

    trainer = make(tmp_path)
    model = trainer.algorithm.policy.model
    model.net = Wrapped(model.net)
    trainer.step()
    path = trainer.save()
    trainer.close()
    other = make()
    other.load(path)
    assert torch.equal(parameters(other.algorithm), parameters(trainer.algorithm))
