"""A policy acts on the observations that its model's `policy_keys` name, where there are no others."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from rlstack import Algorithm, HparamsError, RecurrentAlgorithm, specs
from rlstack.models import Model, RecurrentModel
from rlstack.policies import Policy, RecurrentPolicy
from rlstack.policies.check import check_policy
from rlstack.policies.memory import Breaks, with_zeros

from ..helpers import SECRET, SEEN, Veiled, update

BASE = {"num_envs": 8, "horizon": 8, "seed": 0, "device": "cpu"}
SIZES = {Algorithm: {"hiddens": [16]}, RecurrentAlgorithm: {"hidden_size": 8}}
CLASSES = [Algorithm, RecurrentAlgorithm]
KEYS = {"policy_keys": SEEN, "value_keys": [*SECRET, "place"]}


def trained(cls, **changes):
    config = {**BASE, "model_config": {**SIZES[cls], **KEYS}, **changes}
    algorithm = cls(Veiled, **config)
    update(algorithm, 2)
    return algorithm


def seen(obs):
    return obs.select("place", ("inner", "turn"))


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("normalize", [False, True])
def test_the_same_actions_come_without_the_rest(cls, normalize, tmp_path):
    policy = trained(cls, normalize_observations=normalize).policy
    path = tmp_path / "policy.safetensors"
    policy.save(path)
    loaded, env = type(policy).load(path), Veiled(6)
    whole = alone = again = None
    obs = env.reset()
    for _ in range(4):
        torch.manual_seed(7)
        step = policy.act(obs, whole)
        torch.manual_seed(7)
        mine = policy.act(seen(obs), alone)
        torch.manual_seed(7)
        theirs = loaded.act(seen(obs), again)
        for other in (mine, theirs):
            assert torch.equal(step.actions, other.actions)
            assert torch.equal(step.logp, other.logp)
            assert other.values is None
        assert step.values.shape == (6, 1)
        whole, alone, again = step.state, mine.state, theirs.state
        obs = env.step(step.actions)["obs"]


def test_the_memory_of_the_values_is_left_as_it_was():
    policy = trained(RecurrentAlgorithm).policy
    obs = Veiled(6).reset()
    state = policy.act(obs).state
    after = policy.act(seen(obs), state).state
    for key in ("hidden", "cell"):
        assert not torch.equal(after[key], state[key])
        assert torch.equal(after[f"value_{key}"], state[f"value_{key}"])
        assert state[f"value_{key}"].any()
    assert set(after.keys()) == set(policy.state_spec.keys())


def test_values_remember_what_only_they_see():
    policy = trained(RecurrentAlgorithm).policy
    obs = Veiled(6).reset()
    other = obs.clone()
    other["wind"] = other["wind"] + 1
    one, two = (policy.act(obs, policy.act(first, deterministic=True).state) for first in (obs, other))
    assert not torch.equal(one.values, two.values)
    one, two = (policy.act(obs, policy.act(first).state, deterministic=True) for first in (obs, other))
    assert torch.equal(one.actions, two.actions)


@pytest.mark.parametrize("ends", [False, True])
def test_two_memories_step_by_step_are_two_memories_in_one_go(ends):
    policy = trained(RecurrentAlgorithm).policy
    obs = policy.observation_spec.expand(6, 5).rand()
    ended = torch.zeros(6, 5, dtype=torch.bool)
    ended[::2, 2] = ends
    state = first = policy.initial_state(6)
    steps = []
    for t in range(5):
        steps.append(policy.sample(obs[:, t], state))
        state = with_zeros(steps[-1].state, ended[:, t])
    drawn = torch.stack([step.drawn for step in steps], 1).flatten(0, 1)
    found = policy.evaluate(obs, drawn, first, Breaks(ended[:, :-1], [2]) if ends else None)
    for name in ("logp", "values"):
        collected = torch.stack([getattr(step, name) for step in steps], 1).flatten(0, 1)
        assert torch.allclose(getattr(found, name), collected, atol=1e-5)


def test_what_else_is_there_is_not_needed():
    policy = trained(Algorithm).policy
    obs = Veiled(6).reset()
    expected = policy.act(obs, deterministic=True).actions
    for left in ("wind", ("inner", "mass")):
        step = policy.act(obs.exclude(left), deterministic=True)
        assert step.values is None
        assert torch.equal(step.actions, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda obs: obs.exclude("place", "wind"),
            r"has the keys \['inner'\], expected \['inner', 'place'\]",
        ),
        (lambda obs: obs.exclude("place"), r"expected \['inner', 'place', 'wind'\]"),
        (lambda obs: seen(obs).set("winds", obs["wind"]), r"expected \['inner', 'place'\]"),
        (lambda obs: seen(obs).set("inner", obs["wind"]), r"obs\.inner is a tensor .*expected a TensorDict"),
        (lambda obs: seen(obs).set("place", obs["wind"][:, :1]), r"obs\.place has shape \[6, 1\]"),
        (lambda obs: obs.set("wind", obs["wind"][:, :1]), r"obs\.wind has shape \[6, 1\]"),
        (lambda obs: seen(obs)[0], r"obs is a single row: add a batch dimension, obs\[None\]"),
        (lambda obs: obs["place"], r"obs is a tensor .*expected a TensorDict"),
    ],
)
def test_observations_that_do_not_do(change, message):
    with pytest.raises(ValueError, match=message):
        trained(Algorithm).policy.act(change(Veiled(6).reset()))


@pytest.mark.parametrize("cls", CLASSES)
def test_without_keys_everything_is_needed(cls):
    policy = trained(cls, model_config={**SIZES[cls], "value_keys": ["place"]}).policy
    obs = Veiled(6).reset()
    assert policy.acting_spec is policy.observation_spec
    assert policy.act(obs).values is not None
    with pytest.raises(ValueError, match=r"obs has the keys \['inner', 'place'\], expected"):
        policy.act(obs.exclude("wind"))


class Own(Model):
    """A model of one's own, with one fault or none."""

    policy_keys = ("place",)

    def __init__(self, observation_spec, action_spec, /, fault=""):
        super().__init__(observation_spec, action_spec, fault=fault)
        self.actor, self.critic = nn.Linear(2, 2), nn.Linear(4, 1)

    def policy_features(self, obs):
        mean = self.actor(obs["place"])
        match self.config["fault"]:
            case "key":
                mean = mean * obs["wind"]
            case "tensor":
                return mean
            case "name":
                return TensorDict({"mean": mean}, len(mean))
        return TensorDict({"mean": mean, "log_std": torch.zeros_like(mean)}, len(mean))

    def forward(self, obs):
        mean = self.actor(obs["place"])
        if self.config["fault"] == "peeks":
            mean = mean + obs["wind"]
        values = self.critic(torch.cat([obs["place"], obs["wind"]], -1))
        return TensorDict({"mean": mean, "log_std": torch.zeros_like(mean)}, len(mean)), values


class Lazy(Own):
    """Says which keys it needs, but not how to do without the others."""

    policy_features = Model.policy_features


class Odd(Own):
    policy_keys = ("plase",)


class Remembering(RecurrentModel):
    """A memory of one's own, into which goes what the policy must not see, or not."""

    policy_keys = ("place",)

    def __init__(self, observation_spec, action_spec, /, fault=""):
        super().__init__(observation_spec, action_spec, fault=fault)
        self.actor, self.critic = nn.Linear(2, 2), nn.Linear(4, 1)
        self.state_spec = specs.Composite(last=specs.Unbounded((2,)))

    def policy_features(self, obs, state):
        features, _, after = self.run(obs["place"], obs["place"], state)
        match self.config["fault"]:
            case "stateless":
                return features
            case "state":
                return features, after.rename_key_("last", "first")
        return features, after

    def forward(self, obs, state):
        features, _, after = self.run(
            obs["place"], obs["wind" if self.config["fault"] == "leak" else "place"], state
        )
        return features, self.critic(torch.cat([obs["place"], obs["wind"]], -1)), after

    def run(self, place, kept, state):
        steps = []
        last = state["last"]
        for t in range(place.shape[1]):
            steps.append(self.actor(place[:, t] + last))
            last = kept[:, t]
        mean = torch.stack(steps, 1)
        features = TensorDict({"mean": mean, "log_std": torch.zeros_like(mean)}, mean.shape[:2])
        return features, None, TensorDict({"last": last}, len(last))


def policy_of(model_cls, **config):
    env = Veiled(1)
    policy_cls = RecurrentPolicy if issubclass(model_cls, RecurrentModel) else Policy
    return policy_cls(model_cls(env.observation_spec, env.action_spec, **config), normalize_observations=True)


@pytest.mark.parametrize("model_cls", [Own, Remembering])
def test_models_of_ones_own_act_alone(model_cls, tmp_path):
    policy = policy_of(model_cls)
    check_policy(policy)
    policy.save(tmp_path / "policy")
    obs = Veiled(6).reset()
    for each in (policy, type(policy).load(tmp_path / "policy", model_cls=model_cls)):
        state = alone = None
        for _ in range(2):
            step = policy.act(obs, state, deterministic=True)
            mine = each.act(obs.select("place"), alone, deterministic=True)
            assert torch.equal(mine.actions, step.actions)
            assert mine.values is None
            state, alone = step.state, mine.state


@pytest.mark.parametrize(
    ("model_cls", "fault", "message"),
    [
        (Own, "key", r"Own\.policy_features raised KeyError.*wind"),
        (Own, "tensor", r"features from policy_features of Own is a tensor .*, expected a TensorDict"),
        (Own, "name", r"policy_features of Own returned \['mean'\], forward returned \['log_std', 'mean'\]"),
        (Own, "peeks", r"the feature mean of Own isn't the same from policy_features.*policy_keys"),
        (Lazy, "", r"Lazy\.policy_features raised KeyError.*wind"),
        (Odd, "", r"Odd\.policy_keys has 'plase', .*did you mean place\?"),
        (Remembering, "leak", r"the feature mean of Remembering isn't the same"),
        (
            Remembering,
            "stateless",
            r"policy_features of Remembering returned .*, expected \(features, state\)",
        ),
        (Remembering, "state", r"state from policy_features of Remembering has the keys \['first'\]"),
    ],
)
def test_models_that_need_more_than_they_say(model_cls, fault, message):
    with pytest.raises(ValueError, match=message):
        check_policy(policy_of(model_cls, fault=fault))


def test_they_are_named_before_training():
    with pytest.raises(HparamsError, match="the feature mean of Own isn't the same"):
        Algorithm(Veiled, **BASE, model_cls=Own, model_config={"fault": "peeks"})
