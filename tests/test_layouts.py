"""Parameters and buffers in every layout: saved, and gone on with as they were, or refused beforehand."""

import copy
import logging
import re

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import nn

from rlstack import Algorithm, Policy, Trainer
from rlstack.common.errors import EnvError, HparamsError, PolicyFileError
from rlstack.common.serialization import same
from rlstack.env import DiscreteDummyEnv
from rlstack.models import DiscreteMLP, Model
from rlstack.runs import checkpoint
from rlstack.runs.inspect import inspect


class Layout(Model):
    """A small model; its subclasses lay a part of it out in another way."""

    def __init__(self, observation_spec, action_spec, /):
        super().__init__(observation_spec, action_spec)
        self.net, self.head = nn.Linear(1, 8), nn.Linear(8, 3)
        self.lay_out()

    def lay_out(self):
        """Replace or add a part."""

    def hidden(self, obs):
        return torch.tanh(self.net(obs.float()))

    def forward(self, obs):
        out = self.head(self.hidden(obs))
        return TensorDict({"logits": out[:, None, :2]}, len(out)), out[:, 2:]


class ChannelsLast(Layout):
    def lay_out(self):
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.to(memory_format=torch.channels_last)

    def hidden(self, obs):
        return torch.tanh(self.conv(obs.float().view(-1, 1, 1, 1).expand(-1, 2, 3, 3))).mean((2, 3))


class Transposed(Layout):
    def lay_out(self):
        self.head.weight = nn.Parameter(torch.randn(8, 3).t())


class Tied(Layout):
    def lay_out(self):
        self.twin = self.head


class TransposedBuffer(Layout):
    def lay_out(self):
        self.register_buffer("scale", torch.rand(3, 8).t())

    def hidden(self, obs):
        return super().hidden(obs) * self.scale[:, 0]


class Conjugate(Layout):
    def lay_out(self):
        self.register_buffer("phase", torch.randn(8, dtype=torch.complex64).conj())

    def hidden(self, obs):
        return super().hidden(obs) * self.phase.imag


class Bfloat16(Layout):
    def lay_out(self):
        self.shift = nn.Parameter(torch.randn(8, dtype=torch.bfloat16))

    def hidden(self, obs):
        return super().hidden(obs) + self.shift.float()


class Float8(Layout):
    def lay_out(self):
        self.register_buffer("coarse", torch.randn(8).to(torch.float8_e4m3fn))

    def hidden(self, obs):
        return super().hidden(obs) + self.coarse.float()


class Empty(Layout):
    def lay_out(self):
        self.nothing = nn.Parameter(torch.zeros(0, 3))


class Scalar(Layout):
    def lay_out(self):
        self.gain = nn.Parameter(torch.tensor(0.5))

    def hidden(self, obs):
        return super().hidden(obs) * self.gain


class SparseMadeAnew(Layout):
    def lay_out(self):
        self.register_buffer("mask", torch.eye(8).to_sparse(), persistent=False)

    def hidden(self, obs):
        return torch.sparse.mm(self.mask, super().hidden(obs).t()).t()


class Remembers(Layout):
    """Has what is no tensor in its state: nn.Module's way to keep that."""

    def lay_out(self):
        self.known = {
            "layout": [1, 0.5, None, "a"],
            "pair": (True, float("inf")),
            3: {"seen": torch.arange(3)},
        }

    def hidden(self, obs):
        return super().hidden(obs) * self.known["layout"][1]

    def get_extra_state(self):
        return self.known

    def set_extra_state(self, state):
        assert same(state, self.known)
        self.known = state


class RemembersDeepInside(Layout):
    """Beside a tensor whose name could be taken for a part of it."""

    def lay_out(self):
        self.inner = nn.Sequential(Counter())
        self.register_buffer("policy", torch.arange(2.0))


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.count = np.float32(7)

    def get_extra_state(self):
        return self.count

    def set_extra_state(self, state):
        self.count = state


class TensorAsExtraState(Remembers):
    def lay_out(self):
        self.known = torch.arange(3.0)

    def hidden(self, obs):
        return Layout.hidden(self, obs) * self.known[1]


SAVED = [
    Remembers,
    RemembersDeepInside,
    TensorAsExtraState,
    ChannelsLast,
    Transposed,
    Tied,
    TransposedBuffer,
    Conjugate,
    Bfloat16,
    Float8,
    Empty,
    Scalar,
    SparseMadeAnew,
]
CONFIG = {"num_envs": 8, "horizon": 4, "seed": 0, "device": "cpu"}


def make(model_cls, run_dir=None, **changes):
    kept = {} if run_dir is None else {"run_dir": run_dir, "checkpoint_config": {"every_updates": 1}}
    config = {**CONFIG, "model_cls": model_cls, **changes}
    return Trainer(DiscreteDummyEnv, algorithm_config=config, track=False, **kept)


def values(trainer):
    return copy.deepcopy(dict(trainer.algorithm.policy.state_dict()))


@pytest.mark.parametrize("model_cls", SAVED)
def test_what_trains_is_saved_and_goes_on_the_same(model_cls, tmp_path):
    whole = make(model_cls)
    for _ in range(4):
        whole.step()
    with make(model_cls, tmp_path / "run") as first:
        for _ in range(2):
            first.step()
    with Trainer.resume(tmp_path / "run", algorithm_config={"model_cls": model_cls}, track=False) as second:
        for _ in range(2):
            second.step()
    expected, got = values(whole), values(second)
    assert same(expected, got)
    tensors = [value for value in expected.values() if torch.is_tensor(value)]
    assert inspect(tmp_path / "run")["parameters"] == sum(map(torch.numel, tensors))
    second.algorithm.policy.save(tmp_path / "policy")
    policy = Policy.load(tmp_path / "policy", model_cls=model_cls)
    obs = torch.linspace(-1, 1, 5).unsqueeze(1)
    assert torch.equal(policy.act(obs).values, whole.algorithm.policy.act(obs).values)


class SparseBuffer(SparseMadeAnew):
    def lay_out(self):
        self.register_buffer("mask", torch.eye(8).to_sparse())


class Complex128(Layout):
    def lay_out(self):
        self.register_buffer("phase", torch.randn(8, dtype=torch.complex128))


class RemembersAHandle(RemembersDeepInside):
    def lay_out(self):
        super().lay_out()
        self.inner[0].count = {"handle": object()}


class MuteCounter(Counter):
    def get_extra_state(self):
        return 1 / 0


class Mute(Layout):
    def lay_out(self):
        self.inner = nn.Sequential(MuteCounter())


class Unwritable(Layout):
    def lay_out(self):
        self.config = {"device": torch.device("cpu")}


@pytest.mark.parametrize(
    ("model_cls", "said"),
    [
        (SparseBuffer, r"model\.mask is a sparse_coo tensor, which no file of rlstack can hold"),
        (Complex128, r"model\.phase is a complex128 tensor"),
        (
            RemembersAHandle,
            r"model\.inner\.0\._extra_state\.handle is a object, which a checkpoint can't hold",
        ),
        (Mute, r"state_dict of model\.inner\.0 \(a MuteCounter\) raised ZeroDivisionError: division by zero"),
        (Unwritable, "model_config among it, can't be JSON"),
    ],
)
def test_what_can_not_be_saved_is_refused_before_training(model_cls, said, tmp_path):
    with pytest.raises(HparamsError, match=said):
        make(model_cls, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # Where nothing is kept it trains.
    trainer = make(model_cls)
    trainer.step()
    with pytest.raises((TypeError, ValueError), match=said):
        trainer.algorithm.policy.save(tmp_path / "policy")
    assert not (tmp_path / "policy").exists()


class ForgetfulCounter(Counter):
    def set_extra_state(self, state):
        raise KeyError("count")


class Forgetful(Layout):
    def lay_out(self):
        self.inner = ForgetfulCounter()


def test_so_is_what_could_not_be_gone_on_from(tmp_path):
    said = r"the policy can't load what it saves \(KeyError: 'count'\): mend that"
    with pytest.raises(HparamsError, match=said):
        make(Forgetful, tmp_path / "run")
    trainer = make(Forgetful)
    trainer.step()
    trainer.algorithm.policy.save(tmp_path / "policy")
    with pytest.raises(PolicyFileError, match="is not a usable policy: KeyError: 'count'"):
        Policy.load(tmp_path / "policy", model_cls=Forgetful)


class Hoarder(torch.optim.SGD):
    """Keeps what no file can hold."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["made"] = object()


def test_so_is_an_optimizer_whose_state_can_not_be(tmp_path):
    with pytest.raises(HparamsError, match=r"optimizer\.state\.0\.made is a object"):
        make(Layout, tmp_path / "run", optimizer_cls=Hoarder)
    make(Layout, optimizer_cls=Hoarder).step()


class Strided(Layout):
    def lay_out(self):
        self.head.weight = nn.Parameter(torch.randn(3, 16)[:, ::2])


class Expanded(Layout):
    def lay_out(self):
        self.head.weight = nn.Parameter(torch.ones(1, 8).expand(3, 8))


class Sparse(Layout):
    def lay_out(self):
        self.mask = nn.Parameter(torch.eye(8).to_sparse())


@pytest.mark.parametrize("model_cls", [Strided, Expanded])
def test_parameters_with_gaps_or_repeats_in_memory_are_refused(model_cls):
    with pytest.raises(HparamsError, match=r"model\.head\.weight is a view with gaps or repeats in memory"):
        make(model_cls)


def test_so_are_sparse_ones():
    with pytest.raises(HparamsError, match=r"model\.mask is .*sparse, which can't be trained"):
        make(Sparse)


def like_any_order(algorithm):
    """Compare with an optimizer that doesn't care how tensors are laid out."""
    return Algorithm(
        DiscreteDummyEnv,
        **CONFIG,
        model_cls=algorithm.hparams.model_cls,
        optimizer_config={"fused": False},
        engine="eager",
    )


@pytest.mark.parametrize("when", [0, 2])
def test_a_layout_that_changes_while_training_is_followed(when, caplog):
    one = Algorithm(DiscreteDummyEnv, **CONFIG, model_cls=DiscreteMLP)
    other = like_any_order(one)
    for algorithm in (one, other):
        torch.manual_seed(0)
        for number in range(4):
            if number == when:
                for parameter in algorithm.policy.parameters():
                    if parameter.ndim == 2:
                        parameter.data = parameter.data.t().contiguous().t()
            algorithm.collect()
            algorithm.step()
    for a, b in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert "is laid out otherwise in memory" in caplog.text


def test_gaps_that_come_later_are_refused():
    algorithm = Algorithm(DiscreteDummyEnv, **CONFIG, model_cls=Layout)
    weight = algorithm.policy.model.head.weight
    weight.data = torch.zeros(3, 16)[:, ::2]
    with pytest.raises(RuntimeError, match=r"model\.head\.weight has gaps or repeats in memory now"):
        algorithm.collect()


FAULTS = [
    OSError(28, "No space left on device"),
    RuntimeError("CUDA error"),
    ValueError("not contiguous"),
    EnvError("state_dict raised"),
    MemoryError(),
    PolicyFileError("odd"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_save_that_fails_never_ends_training(fault, tmp_path, monkeypatch, caplog):
    trainer = make(Layout, tmp_path / "run")

    def fail(*args):
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", fail)
        trainer.step()
    said = "no checkpoint could be written, training goes on: "
    assert said in caplog.text
    assert str(fault) in caplog.text
    trainer.step()
    assert trainer.run_dir.saved == 2
    trainer.close()


class LateCounter(Counter):
    """Can say its state until it is told not to."""

    fault = None

    def get_extra_state(self):
        if self.fault is not None:
            raise self.fault
        return self.count


class Late(Layout):
    def lay_out(self):
        self.inner = LateCounter()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_neither_does_a_model_that_can_not_say_its_state_any_more(fault, tmp_path, caplog):
    with make(Late, tmp_path / "run") as trainer:
        trainer.step()
        counter = trainer.algorithm.policy.model.inner
        counter.fault = fault
        trainer.step()
        said = f"state_dict of model.inner (a LateCounter) raised {type(fault).__name__}: {fault}"
        assert f"no checkpoint could be written, training goes on: {said}" in caplog.text
        with pytest.raises(TypeError, match=re.escape(said)):
            trainer.save(tmp_path / "elsewhere")
        counter.fault = None
        counter.count = object()
        trainer.step()
        assert "policy.model.inner._extra_state is a object" in caplog.text
        counter.count = 3
        trainer.step()
        assert trainer.run_dir.saved == 4


class Secretive(DiscreteDummyEnv):
    """Has a state that no file can hold."""

    def state_dict(self):
        return {"handle": object()}


def test_an_environment_whose_state_can_not_be_written_is_named_after_the_first_update(tmp_path, caplog):
    config = {**CONFIG, "model_cls": Layout}
    with Trainer(Secretive, algorithm_config=config, run_dir=tmp_path / "run", track=False) as trainer:
        with caplog.at_level(logging.WARNING):
            trainer.step()
            trainer.step()
        [record] = caplog.records
    assert "state.collector.env.handle is a object, which a checkpoint can't hold" in record.getMessage()
