import json
import re

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tensordict import TensorDict

from rlstack import specs
from rlstack.common.errors import PolicyFileError
from rlstack.distributions import Distribution, SquashedNormal
from rlstack.models import ContinuousLSTM, ContinuousMLP, DiscreteLSTM, DiscreteMLP, Model
from rlstack.policies import Policy, RecurrentPolicy
from rlstack.policies.check import check_policy

from ..helpers import CompositeEnv, CompositeModel, composite_distribution

LINE = specs.Unbounded((2,))
DISCRETE = specs.Categorical(3, shape=(1,))
BOUNDED = specs.Bounded(torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 10.0]), (2,))


def make(recurrent=False, action_spec=DISCRETE, **options):
    if recurrent:
        cls, policy_cls, config = (
            (DiscreteLSTM if action_spec is DISCRETE else ContinuousLSTM),
            RecurrentPolicy,
            {"hidden_size": 8},
        )
    else:
        cls, policy_cls, config = (
            (DiscreteMLP if action_spec is DISCRETE else ContinuousMLP),
            Policy,
            {"hiddens": (8,)},
        )
    return policy_cls(cls(LINE, action_spec, **config), **options)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("action_spec", [DISCRETE, specs.Unbounded((2,)), BOUNDED])
class TestActAndEvaluate:
    def test_agree(self, recurrent, action_spec):
        policy = make(recurrent, action_spec, normalize_observations=True)
        policy.normalizer.update(3 + 2 * torch.randn(50, 2))
        obs = torch.randn(4, 5, 2)
        state = first = policy.initial_state(4)
        steps = []
        for t in range(5):
            steps.append(policy.sample(obs[:, t], state))
            state = steps[-1].state
        drawn = torch.stack([step.drawn for step in steps], 1)
        if recurrent:
            evaluation = policy.evaluate(obs, drawn.flatten(0, 1), first)
        else:
            evaluation = policy.evaluate(obs.reshape(20, 1, 2), drawn.flatten(0, 1), None)
        for name in ("logp", "values"):
            collected = torch.stack([getattr(step, name) for step in steps], 1).flatten(0, 1)
            assert torch.allclose(getattr(evaluation, name), collected, atol=1e-5)
        assert evaluation.entropy.shape == (20, 1)
        assert evaluation.logp.requires_grad
        assert not steps[0].logp.requires_grad

    def test_deterministic_needs_no_chance(self, recurrent, action_spec):
        policy = make(recurrent, action_spec)
        obs = torch.randn(4, 2)
        before = torch.get_rng_state()
        one, two = (policy.act(obs, deterministic=True).actions for _ in range(2))
        assert torch.equal(one, two)
        assert torch.equal(torch.get_rng_state(), before)
        assert specs.mismatch(one, action_spec, 4, "action") is None

    def test_saved_and_loaded(self, recurrent, action_spec, tmp_path):
        policy = make(recurrent, action_spec, normalize_observations=True)
        policy.normalizer.update(torch.randn(50, 2))
        policy.save(tmp_path / "policy.safetensors")
        copy = type(policy).load(tmp_path / "policy.safetensors")
        obs = torch.randn(4, 2)
        step, again = (p.act(obs, deterministic=True) for p in (policy, copy))
        assert torch.equal(step.actions, again.actions)
        assert torch.equal(step.values, again.values)
        assert copy.observation_spec == policy.observation_spec
        assert copy.action_spec == policy.action_spec
        assert list(tmp_path.iterdir()) == [tmp_path / "policy.safetensors"]


def test_actions_are_mapped_onto_the_bounds():
    policy = make(action_spec=BOUNDED)
    samples = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])
    assert policy.to_env(samples).tolist() == [[-2, 0], [0, 5], [2, 10]]
    actions = policy.act(torch.randn(1000, 2)).actions
    assert ((actions >= BOUNDED.space.low) & (actions <= BOUNDED.space.high)).all()


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize(
    "spec",
    [
        specs.OneHot(3, shape=(2, 3)),
        specs.OneHot(3, dtype=torch.int64),
        specs.Binary(2),
        specs.Binary(2, dtype=torch.bool),
        specs.Binary(2, dtype=torch.float32),
    ],
)
def test_binary_and_one_hot_actions_are_of_their_spec(recurrent, spec, tmp_path):
    policy_cls, cls = (RecurrentPolicy, DiscreteLSTM) if recurrent else (Policy, DiscreteMLP)
    policy = policy_cls(cls(LINE, spec))
    check_policy(policy)
    step = policy.act(torch.randn(50, 2))
    assert specs.mismatch(step.actions, spec, 50, "actions") is None
    assert not specs.outside(step.actions, spec).any()
    assert step.actions.unique().tolist() == [0, 1]
    policy.save(tmp_path / "policy")
    again = policy_cls.load(tmp_path / "policy")
    obs = torch.randn(50, 2)
    expected = policy.act(obs, deterministic=True)
    assert torch.equal(again.act(obs, deterministic=True).actions, expected.actions)


def test_only_what_is_bounded_is_mapped():
    samples = torch.tensor([[0.5, 3.0]])
    unbounded = make(action_spec=specs.Unbounded((2,)), distribution_cls=SquashedNormal)
    assert torch.equal(unbounded.to_env(samples), samples)


def test_recurrent_state_goes_on():
    policy = make(recurrent=True)
    obs = torch.randn(4, 2)
    first = policy.act(obs)
    second = policy.act(obs, first.state)
    assert not torch.equal(first.values, second.values)
    assert torch.equal(policy.act(obs).values, first.values)
    assert make().act(obs).state is None


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (torch.zeros(2), "obs is a single row: add a batch dimension, obs\\[None\\]"),
        (torch.zeros(4, 3), "expected \\[4, 2\\]"),
        (torch.zeros(4, 2).double(), "float64"),
        (np.zeros((4, 2), np.float32), "torch.as_tensor"),
        (torch.tensor(1.0), "expected \\[1, 2\\]"),
    ],
)
def test_act_checks_observations(obs, message):
    with pytest.raises(ValueError, match=message):
        make().act(obs)


def test_composite_observations_and_actions(tmp_path):
    env = CompositeEnv(6)
    distribution_cls = composite_distribution()
    policy = Policy(CompositeModel(env.observation_spec, env.action_spec), distribution_cls)
    check_policy(policy)
    step = policy.act(env.reset())
    assert specs.mismatch(step.actions, env.action_spec, 6, "actions") is None
    policy.save(tmp_path / "p.safetensors")
    classes = {"model_cls": CompositeModel, "distribution_cls": distribution_cls}
    copy = Policy.load(tmp_path / "p.safetensors", **classes)
    obs = env.reset()
    assert (copy.act(obs, deterministic=True).actions == policy.act(obs, deterministic=True).actions).all()
    for missing in classes:
        rest = {name: cls for name, cls in classes.items() if name != missing}
        with pytest.raises(PolicyFileError, match=f"hand it over as {missing}="):
            Policy.load(tmp_path / "p.safetensors", **rest)


def damaged(path, **changes):
    """Rewrite a policy's description, leaving its tensors."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        description = json.loads(file.metadata()["rlstack"])
    # One without a checksum, as rlstack 0.1.0 wrote them.
    del description["checksum"]
    description.update({"format": "rlstack.policy.1", **changes})
    save_file(tensors, path, {"rlstack": json.dumps(description)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "rlstack.policy.999"}, "not of the format"),
        ({"policy": "RecurrentPolicy"}, "use RecurrentPolicy.load"),
        ({"model_cls": "os.system"}, "needs the class os.system"),
        ({"distribution_cls": "canary.Distribution"}, "needs the class canary"),
        ({"model_config": {"hiddens": [9]}}, "not a usable policy"),
        ({"model_config": {"color": "red"}}, "not a usable policy"),
        ({"model_config": None}, "not a usable policy"),
        ({"observation_spec": "{}"}, "not a spec|not a usable policy"),
        ({"normalize_observations": True}, "not a usable policy"),
    ],
)
def test_damaged_descriptions(tmp_path, changes, message):
    path = tmp_path / "policy.safetensors"
    make().save(path)
    damaged(path, **changes)
    with pytest.raises(PolicyFileError, match=message):
        Policy.load(path)


def test_loading_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "canary.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "policy.safetensors"
    make().save(path)
    damaged(path, model_cls="canary.Model")
    with pytest.raises(PolicyFileError, match=r"canary\.Model"):
        Policy.load(path)


@pytest.mark.parametrize("content", [b"", b"not a policy", b"\x80\x04\x95", b"\xff" * 64])
def test_other_files(tmp_path, content):
    path = tmp_path / "policy.safetensors"
    path.write_bytes(content)
    with pytest.raises(PolicyFileError, match=r"policy\.safetensors"):
        Policy.load(path)


def test_every_flipped_bit_is_found(tmp_path):
    path = tmp_path / "policy.safetensors"
    make().save(path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    positions = {*range(80), *range(80, header, 7), *range(header, len(whole), 23), len(whole) - 1}
    for place in sorted(positions):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(PolicyFileError, match=r"policy\.safetensors is damaged"):
            Policy.load(path)
    path.write_bytes(whole)
    Policy.load(path)


def test_a_policy_is_the_same_file_each_time(tmp_path):
    policy = make()
    for name in ("one", "two"):
        policy.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_without_a_checksum_loads(tmp_path):
    path = tmp_path / "policy.safetensors"
    policy = make()
    policy.save(path)
    damaged(path)
    loaded = Policy.load(path)
    assert loaded.state_dict().keys() == policy.state_dict().keys()
    assert all(torch.equal(value, policy.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_missing_file(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        Policy.load(tmp_path / "nowhere")


def test_a_truncated_file_and_a_failed_save_leave_the_old_one(tmp_path):
    path = tmp_path / "policy.safetensors"
    policy = make()
    policy.save(path)
    before = path.read_bytes()
    policy.model.config = {"callback": print}
    with pytest.raises(ValueError, match="JSON"):
        policy.save(path)
    assert path.read_bytes() == before
    path.write_bytes(before[: len(before) // 2])
    with pytest.raises(PolicyFileError):
        Policy.load(path)


def test_tied_weights(tmp_path):
    class Tied(Model):
        def __init__(self, observation_spec, action_spec, /):
            super().__init__(observation_spec, action_spec)
            self.inner = DiscreteMLP(observation_spec, action_spec, hiddens=(4,))
            self.same = self.inner.policy[0]

        def forward(self, obs):
            return self.inner(obs)

    policy = Policy(Tied(LINE, DISCRETE))
    policy.save(tmp_path / "p")
    obs = torch.randn(3, 2)
    assert torch.equal(Policy.load(tmp_path / "p", model_cls=Tied).act(obs).values, policy.act(obs).values)


class Faulty(Model):
    """A feedforward model with one fault, by name."""

    def __init__(self, observation_spec, action_spec, /, fault=""):
        super().__init__(observation_spec, action_spec, fault=fault)
        self.inner = DiscreteMLP(observation_spec, action_spec, hiddens=(4,))
        if fault == "batchnorm":
            self.norm = torch.nn.BatchNorm1d(2)

    def forward(self, obs):
        features, values = self.inner(obs)
        match self.config["fault"]:
            case "one result":
                return features
            case "features":
                return features["logits"], values
            case "values":
                return features, values.squeeze(-1)
            case "key":
                return features.rename_key_("logits", "logit"), values
        return features, values


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("one result", "Faulty.forward returned .*, expected \\(features, values\\)"),
        ("features", "features of Faulty is a tensor .*, expected a TensorDict"),
        ("values", "values of Faulty is a tensor of shape \\[2\\], expected a tensor of shape \\[2, 1\\]"),
        ("key", "Categorical misses a feature.*logits.*let Faulty return it"),
    ],
)
def test_faulty_models_are_named(fault, message):
    with pytest.raises(ValueError, match=message):
        check_policy(Policy(Faulty(LINE, DISCRETE, fault=fault)))


def test_checking_takes_no_random_numbers():
    policy, before = make(), torch.get_rng_state()
    check_policy(policy)
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_that_mix_rows_are_refused():
    with pytest.raises(TypeError, match=r"model\.norm is a BatchNorm1d.*use LayerNorm"):
        check_policy(Policy(Faulty(LINE, DISCRETE, fault="batchnorm")))


class Rolls(Distribution):
    """Samples real numbers, whatever the action spec."""

    def sample(self):
        return torch.rand(len(self.features), 1)

    deterministic_sample = sample

    def logp(self, samples):
        return samples * 0.0

    def entropy(self):
        return torch.zeros(len(self.features), 1)


@pytest.mark.parametrize(
    ("make_policy", "message"),
    [
        (lambda: RecurrentPolicy(Dropping(LINE, DISCRETE)), r"model\.lstm is a LSTM that drops out"),
        (
            lambda: Policy(Faulty(LINE, DISCRETE), Rolls),
            "dtype torch.float32, which torch.int64 actions can't",
        ),
        (lambda: Policy(ContinuousMLP(LINE, BOUNDED), Rolls), r"shape \[2, 1\], expected \[2, 2\]"),
        (lambda: Policy(Faulty(LINE, DISCRETE), torch.nn.Linear), "expected a Distribution"),
        (lambda: Policy(Wide(LINE, DISCRETE)), r"logits has shape \[2, 1, 4\], expected \[N, 1, 3\]"),
        (lambda: Policy(Bare()), "Bare has no specs: call super"),
    ],
)
def test_more_faults_are_named(make_policy, message):
    with pytest.raises((TypeError, ValueError), match=message):
        check_policy(make_policy())


class Dropping(DiscreteLSTM.__mro__[1]):
    head_cls = DiscreteLSTM.head_cls

    def __init__(self, observation_spec, action_spec, /):
        super().__init__(observation_spec, action_spec, hidden_size=4, num_layers=2)
        self.lstm.dropout = 0.5


class Wide(Model):
    """Has one choice more than the action spec."""

    def __init__(self, observation_spec, action_spec, /):
        super().__init__(observation_spec, action_spec)
        self.inner = DiscreteMLP(observation_spec, specs.Categorical(4, shape=(1,)))

    def forward(self, obs):
        return self.inner(obs)


class Bare(Model):
    def __init__(self):
        torch.nn.Module.__init__(self)

    def forward(self, obs):
        return obs


def test_states_are_checked():
    policy = make(recurrent=True)
    with pytest.raises(ValueError, match=r"state has batch size \[3\], expected \[4\]"):
        policy.act(torch.zeros(4, 2), policy.initial_state(3))
    with pytest.raises(ValueError, match=r"state is a tensor of shape \[.*\], expected a TensorDict"):
        policy.act(torch.zeros(4, 2), torch.zeros(4, 8))


def test_bounds_as_wide_as_the_numbers_go():
    policy = make(action_spec=specs.Bounded(-3e38, 3e38, (1,)))
    actions = policy.to_env(torch.tensor([[-1.0], [0.0], [1.0]]))
    assert actions.flatten().tolist() == pytest.approx([-3e38, 0, 3e38])


def test_saving_where_there_is_no_place(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        make().save(tmp_path / "nowhere" / "policy.safetensors")
    with pytest.raises(OSError, match="is a directory"):
        Policy.load(tmp_path)


def test_policies_take_their_kind_of_model_only():
    with pytest.raises(TypeError, match="model is a DiscreteMLP, expected a RecurrentModel"):
        RecurrentPolicy(DiscreteMLP(LINE, DISCRETE))
    with pytest.raises(TypeError, match="model is a Linear, expected a Model"):
        Policy(torch.nn.Linear(1, 1))


COMPOSITE = TensorDict(
    {
        "goal": torch.zeros(1, dtype=torch.int64),
        "body": {"position": torch.zeros(2), "flags": torch.zeros(3).char()},
    }
)
WORLDS = {
    "numbers": (specs.Unbounded((2,)), torch.zeros(2)),
    "one number": (specs.Unbounded((1,)), torch.zeros(1)),
    "image": (specs.Bounded(0, 255, (2, 2), dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.uint8)),
    "choice": (specs.Categorical(3, shape=(1,)), torch.zeros(1, dtype=torch.int64)),
    "choices": (specs.MultiCategorical([2, 3]), torch.zeros(2, dtype=torch.int64)),
    "parts": (CompositeEnv(1).observation_spec, COMPOSITE),
}


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("model_cls", [DiscreteMLP, ContinuousMLP, DiscreteLSTM, ContinuousLSTM])
def test_one_observation_needs_a_batch_dimension(name, model_cls):
    spec, obs = WORLDS[name]
    discrete = model_cls in (DiscreteMLP, DiscreteLSTM)
    actions = specs.Categorical(2, shape=(1,)) if discrete else specs.Unbounded((2,))
    policy_cls = RecurrentPolicy if "LSTM" in model_cls.__name__ else Policy
    policy = policy_cls(model_cls(spec, actions))
    words = "^obs is a single row: add a batch dimension, "
    with pytest.raises(ValueError, match=words + re.escape("obs[None]")):
        policy.act(obs)
    assert len(policy.act(obs[None]).actions) == 1
    if name == "parts":
        plain = obs.to_dict()
        with pytest.raises(ValueError, match=words + re.escape("TensorDict(obs)[None]")):
            policy.act(plain)
        assert len(policy.act(TensorDict(plain)[None]).actions) == 1
        rows = TensorDict({key: obs[None].expand(3)[key] for key in obs.keys()}, 3).to_dict()  # noqa: SIM118
        with pytest.raises(
            ValueError, match=r"obs is a dict, expected a TensorDict .* TensorDict\(\.\.\., batch_size=3"
        ):
            policy.act(rows)


def test_one_observation_for_a_model_of_ones_own():
    env = CompositeEnv(1)
    policy = Policy(CompositeModel(env.observation_spec, env.action_spec), composite_distribution())
    with pytest.raises(ValueError, match=r"obs is a single row: add a batch dimension, obs\[None\]"):
        policy.act(COMPOSITE)
    assert policy.act(COMPOSITE[None]).actions.batch_size == (1,)
