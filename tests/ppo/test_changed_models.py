"""What is done to a model after the algorithm was made, and models that aren't the same each time."""

import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch.nn import functional

from rlstack import Algorithm, HparamsError, Policy, RecurrentAlgorithm, Trainer, specs
from rlstack.env import CartPole
from rlstack.models import Model, RecurrentModel
from rlstack.policies.check import check_policy

from ..helpers import SMALL, update
from ..standin import record

BASE = {"num_envs": 8, "horizon": 8, "seed": 3, "device": "cpu"}
KINDS = [(Algorithm, {"model_config": SMALL}), (RecurrentAlgorithm, {"model_config": {"hidden_size": 8}})]
ENGINES = ["auto", "eager"]


def make(cls=Algorithm, options=None, engine="auto", **changes):
    options = {"model_config": SMALL} if options is None else options
    return cls(CartPole, **{**BASE, **options, "engine": engine, **changes})


def values(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def moved(module, before):
    return [not torch.equal(now, old) for now, old in zip(module.parameters(), before, strict=True)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("cls", "options"), KINDS)
def test_frozen_parameters_stay_and_unfrozen_ones_are_trained(cls, options, engine, caplog):
    algorithm = make(cls, options, engine)
    update(algorithm, 2)
    value = algorithm.policy.model.value
    value.requires_grad_(False)
    frozen, rest = values(value), values(algorithm.policy.model.policy)
    update(algorithm, 2)
    assert not any(moved(value, frozen))
    assert any(moved(algorithm.policy.model.policy, rest))
    assert "weight was frozen" in caplog.text
    assert "engine eager" in caplog.text
    value.requires_grad_(True)
    update(algorithm)
    assert all(moved(value, frozen))
    assert algorithm.engine == ("kernels" if engine == "auto" else "eager")


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_frozen_from_the_start_can_be_trained_later(engine):
    class Late(Model):
        def __init__(self, observation_spec, action_spec, /):
            super().__init__(observation_spec, action_spec)
            self.net = torch.nn.Linear(4, 3)
            self.net.bias.requires_grad_(False)

        def forward(self, obs):
            logits, values = self.net(obs).split([2, 1], -1)
            return TensorDict({"logits": logits.unsqueeze(1)}, len(obs)), values

    algorithm = make(options={"model_cls": Late}, engine=engine)
    net = algorithm.policy.model.net
    before = values(net)
    update(algorithm)
    assert moved(net, before) == [True, False]
    net.bias.requires_grad_(True)
    update(algorithm)
    assert moved(net, before) == [True, True]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("cls", "options"), KINDS)
def test_a_frozen_part_gives_the_same_results_whatever_the_engine(cls, options, engine):
    results = []
    for name in (engine, "eager"):
        algorithm = make(cls, options, name)
        update(algorithm)
        algorithm.policy.model.value.requires_grad_(False)
        update(algorithm, 2)
        results.append(torch.cat([value.flatten() for value in values(algorithm.policy)]))
    assert torch.allclose(*results, atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("cls", "options"), KINDS)
def test_hooks_are_called(cls, options, engine):
    algorithm = make(cls, options, engine)
    update(algorithm)
    calls = []
    handle = algorithm.policy.model.value.register_forward_hook(lambda *args: calls.append(1))
    update(algorithm)
    assert len(calls) >= algorithm.hparams.horizon + algorithm.hparams.num_sgd_iters
    handle.remove()
    calls.clear()
    update(algorithm)
    assert not calls
    assert algorithm.engine == ("kernels" if engine == "auto" else "eager")


def test_a_hook_that_changes_the_values_is_felt_by_evaluations_too():
    algorithm = make()
    algorithm.eval()
    algorithm.policy.model.policy.register_forward_hook(
        lambda module, args, out: TensorDict(
            {"logits": 0 * out["logits"] + torch.tensor([0.0, 99.0])}, len(out)
        )
    )
    algorithm.collect()
    algorithm.step()
    assert (algorithm.collector.buffer.drawn == 1).all()
    seen = []
    algorithm.eval()
    evaluation = algorithm._eval_collector
    seen.append(evaluation.buffer.drawn)
    assert (seen[0] == 1).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_replaced_layers_are_run_and_trained(engine, caplog):
    algorithm = make(engine=engine)
    update(algorithm)
    new = torch.nn.Linear(16, 1)
    algorithm.policy.model.value[-1] = new
    before = values(new)
    algorithm.collect()
    obs = algorithm.collector.buffer.obs
    assert torch.allclose(
        algorithm.collector.buffer.values,
        algorithm.policy.model(obs.flatten(0, 1))[1].view(9, 8, 1),
        atol=1e-5,
    )
    algorithm.step()
    assert all(moved(new, before))
    assert "model.value.2 was replaced" in caplog.text
    held = {id(p) for group in algorithm.learner.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in algorithm.policy.parameters()}
    assert {id(p) for p in algorithm.learner.optimizer.state} == held


def test_a_forward_of_its_own_is_used():
    algorithm = make()
    update(algorithm)
    value = algorithm.policy.model.value
    plain = value.forward
    value.forward = lambda x: plain(x) + 100
    algorithm.collect()
    assert (algorithm.collector.buffer.values > 50).all()


@pytest.mark.parametrize("change", [lambda model: model.double(), lambda model: model.to("meta")])
def test_another_dtype_or_device_is_refused(change):
    algorithm = make()
    update(algorithm)
    change(algorithm.policy.model)
    with pytest.raises(
        RuntimeError, match=r"model\.policy\.0\.weight is torch\.float.* make a new algorithm"
    ):
        algorithm.collect()


@pytest.mark.parametrize("cls", [Algorithm, RecurrentAlgorithm])
def test_replayed_programs_notice(cls):
    options = dict(KINDS)[cls]
    replayed, expected = record(make, cls, options, "eager"), make(cls, options, "eager")
    for algorithm in (replayed, expected):
        torch.manual_seed(0)
        update(algorithm, 3)
        algorithm.policy.model.value.requires_grad_(False)
        update(algorithm, 2)
        algorithm.policy.model.value.requires_grad_(True)
        update(algorithm, 2)
    assert torch.allclose(
        *(torch.cat([v.flatten() for v in values(a.policy)]) for a in (replayed, expected)), atol=1e-5
    )
    assert replayed.engine == "graph"
    calls = []
    replayed.policy.model.value.register_forward_hook(lambda *args: calls.append(1))
    update(replayed)
    calls.clear()
    update(replayed)
    assert len(calls) >= replayed.hparams.horizon


def test_a_resumed_run_keeps_what_was_frozen(tmp_path):
    def train(trainer, updates):
        for _ in range(updates):
            trainer.step()
        return values(trainer.algorithm.policy)

    config = {**BASE, "model_config": SMALL}
    whole = Trainer(CartPole, algorithm_config=config, track=False)
    first = Trainer(CartPole, algorithm_config=config, run_dir=tmp_path / "run", track=False)
    for trainer in (whole, first):
        torch.manual_seed(1)
        train(trainer, 2)
        trainer.algorithm.policy.model.value.requires_grad_(False)
        train(trainer, 2)
        trainer.algorithm.policy.model.value[0].requires_grad_(True)
        train(trainer, 1)
    torch.manual_seed(5)
    random.seed(5)
    random_state = torch.get_rng_state()
    expected = train(whole, 2)
    torch.set_rng_state(random_state)
    first.save()
    first.close()
    second = Trainer.resume(tmp_path / "run", track=False)
    got = train(second, 2)
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))
    second.close()


class Odd(Model):
    """A model that isn't a function of its observations and parameters."""

    def __init__(self, observation_spec, action_spec, /, way=""):
        super().__init__(observation_spec, action_spec, way=way)
        self.net = torch.nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.count = 0

    def forward(self, obs):
        hidden, way = self.net(obs), self.config["way"]
        if way == "dropout":
            hidden = functional.dropout(hidden, 0.5, training=self.training)
        elif way == "noise":
            hidden = hidden + 0.05 * torch.randn_like(hidden)
        elif way == "numpy noise":
            hidden = hidden + float(np.random.rand())  # noqa: NPY002
        elif way == "python noise":
            hidden = hidden + random.random()
        elif way == "counter":
            self.count += 1
            hidden = hidden + self.count
        elif way == "buffer":
            self.calls += 1
            hidden = hidden + self.calls
        elif way == "mode":
            hidden = hidden * (1.0 if self.training else 1.5)
        elif way == "batch":
            hidden = hidden - hidden.mean(0)
        elif way == "batch norm":
            hidden = functional.batch_norm(hidden, None, None, training=True)
        logits, values = hidden.split([2, 1], -1)
        return TensorDict({"logits": logits.unsqueeze(1)}, len(obs)), values


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("dropout", "the feature logits of Odd differs by up to .* when it is run again: chance"),
        ("noise", "when it is run again"),
        ("numpy noise", "when it is run again"),
        ("python noise", "when it is run again"),
        ("counter", "when it is run again"),
        ("buffer", "when it is run again"),
        ("mode", r"after eval\(\): a layer acts differently while training"),
        ("batch", "beside other rows: it mixes the rows"),
        ("batch norm", "beside other rows: it mixes the rows"),
    ],
)
def test_models_that_are_not_the_same_each_time_are_refused(way, message):
    with pytest.raises(HparamsError, match=message):
        Algorithm(CartPole, **BASE, model_cls=Odd, model_config={"way": way})


def test_recurrent_models_are_tried_as_well():
    class OddMemory(RecurrentModel):
        def __init__(self, observation_spec, action_spec, /):
            super().__init__(observation_spec, action_spec)
            self.net = torch.nn.GRU(4, 3, batch_first=True)
            self.state_spec = specs.Composite(h=specs.Unbounded((3,)))

        def forward(self, obs, state):
            out, h = self.net(obs, state["h"].unsqueeze(0))
            h = functional.dropout(h[0], 0.5, training=self.training)
            logits, values = out.split([2, 1], -1)
            features = TensorDict({"logits": logits.unsqueeze(2)}, obs.shape[:2])
            return features, values, TensorDict({"h": h}, len(obs))

    with pytest.raises(
        HparamsError, match=r"the state h of OddMemory differs by up to .* when it is run again"
    ):
        RecurrentAlgorithm(CartPole, **BASE, model_cls=OddMemory)


@pytest.mark.parametrize("way", ["", "noise", "numpy noise", "python noise", "buffer"])
def test_the_trial_leaves_generators_modes_and_buffers_alone(way):
    model = Odd(CartPole(1).observation_spec, CartPole(1).action_spec, way=way)
    model.net.eval()
    policy = Policy(model)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    with pytest.raises(ValueError, match="differs") if way else nullcontext():
        check_policy(policy)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]
    assert model.training
    assert not model.net.training
    assert model.calls == 0


def test_16_bits_that_the_cpu_would_only_emulate_are_left_out(monkeypatch, caplog):
    monkeypatch.setattr("rlstack.ppo.precision.has_half", lambda: False)
    for cls, options in KINDS:
        algorithm = make(cls, options, enable_amp=True)
        assert algorithm.params["enable_amp"] == "False"
        update(algorithm)
    assert "this CPU has no 16-bit arithmetic, the model is run in float32" in caplog.text
