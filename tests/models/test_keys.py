"""Policy and values read the observations that their keys name, and no others."""

import pytest
import torch

from rlstack import Algorithm, HparamsError, RecurrentAlgorithm, specs
from rlstack.models import ContinuousLSTM, ContinuousMLP, DiscreteLSTM, DiscreteMLP

from ..helpers import SECRET, SEEN, Veiled

SPEC = Veiled(1).observation_spec
FLOATS = [("place",), ("inner", "mass"), ("wind",)]
CASES = [
    (SEEN, SECRET),
    (SEEN, None),
    (None, ["wind"]),
    (SEEN, SEEN),
    (["inner"], ["place", "inner.turn"]),
    (None, None),
]
SIZES = {"place": 2, "inner.mass": 1, "inner.turn": 3, "wind": 2}


def names(keys):
    return [name for name in SIZES if keys is None or name in keys or name.split(".")[0] in keys]


def run(model, obs, steps=3):
    """Return features and values of sequences, one after the other for a model without a state."""
    if isinstance(model, ContinuousLSTM | DiscreteLSTM):
        return model(obs, specs.zeros(model.state_spec, obs.shape[:1], torch.device("cpu")))[:2]
    return model(obs.flatten(0, 1))


def make(cls, policy_keys, value_keys):
    size = {"hidden_size": 8} if cls in (ContinuousLSTM, DiscreteLSTM) else {"hiddens": [8]}
    discrete = cls in (DiscreteLSTM, DiscreteMLP)
    actions = specs.Categorical(4, shape=(1,)) if discrete else specs.Unbounded((2,))
    return cls(SPEC, actions, **size, policy_keys=policy_keys, value_keys=value_keys)


@pytest.mark.parametrize("cls", [ContinuousMLP, DiscreteMLP, ContinuousLSTM, DiscreteLSTM])
@pytest.mark.parametrize(("policy_keys", "value_keys"), CASES)
def test_gradients_reach_what_the_keys_name(cls, policy_keys, value_keys):
    model = make(cls, policy_keys, value_keys)
    obs = SPEC.expand(5, 3).rand()
    for path in FLOATS:
        obs[path] = torch.randn_like(obs[path]).requires_grad_()
    features, values = run(model, obs)
    for output, keys in (
        (features["logits" if "logits" in features else "mean"], policy_keys),
        (values, value_keys),
    ):
        found = torch.autograd.grad(
            output.square().sum(), [obs[path] for path in FLOATS], allow_unused=True, retain_graph=True
        )
        reached = {".".join(path) for path, g in zip(FLOATS, found, strict=True) if g is not None and g.any()}
        assert reached == {".".join(path) for path in FLOATS} & set(names(keys))
    assert model.encoder.size == sum(SIZES[name] for name in names(policy_keys))


@pytest.mark.parametrize("cls", [ContinuousMLP, ContinuousLSTM])
def test_the_order_of_keys_changes_nothing(cls):
    obs = SPEC.expand(5, 3).rand()
    results = []
    for keys in (SEEN, SEEN[::-1]):
        torch.manual_seed(3)
        results.append(run(make(cls, keys, keys), obs))
    assert torch.equal(results[0][0]["mean"], results[1][0]["mean"])
    assert torch.equal(results[0][1], results[1][1])


def test_a_second_memory_only_where_the_keys_differ():
    for policy_keys, value_keys in CASES:
        parts = set(make(ContinuousLSTM, policy_keys, value_keys).state_spec.keys())
        second = {"value_hidden", "value_cell"} if names(policy_keys) != names(value_keys) else set()
        assert parts == {"hidden", "cell"} | second


@pytest.mark.parametrize("cls", [Algorithm, RecurrentAlgorithm])
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"policy_keys": ["plase"]}, r"^model_config\.policy_keys has 'plase', .*: did you mean place\?$"),
        ({"value_keys": ["place", "inner.mas"]}, r"^model_config\.value_keys .*did you mean inner\.mass\?$"),
        (
            {"value_keys": ["turn"]},
            r"expected one of place, inner, inner\.mass, inner\.turn, wind$|did you mean",
        ),
        ({"policy_keys": []}, r"policy_keys is \[\], expected a list of at least one key"),
        ({"policy_keys": "place"}, r"policy_keys is 'place', expected a list"),
        ({"policy_keys": 3}, r"policy_keys is 3, expected a list"),
        ({"policy_key": ["place"]}, r"did you mean policy_keys\?"),
    ],
)
def test_keys_that_are_none(cls, config, message):
    with pytest.raises(HparamsError, match=message):
        cls(Veiled, num_envs=4, horizon=4, model_config=config)


@pytest.mark.parametrize("name", ["policy_keys", "value_keys"])
def test_observations_without_keys(name):
    for cls in (DiscreteMLP, DiscreteLSTM):
        with pytest.raises(
            ValueError, match=rf"model_config\.{name} is \['a'\], but observations .*Unbounded.*Composite"
        ):
            cls(specs.Unbounded((2,)), specs.Categorical(2, shape=(1,)), **{name: ["a"]})


def test_a_key_below_which_nothing_is_left_but_the_mask_is_none():
    masks = specs.Composite(allowed=specs.Binary(shape=(1, 4), dtype=torch.bool))
    seen = specs.Composite(place=specs.Unbounded((2,)), masks=masks)
    with pytest.raises(ValueError, match="policy_keys has 'masks', no key of the observations"):
        DiscreteMLP(
            seen,
            specs.Categorical(4, shape=(1,)),
            policy_keys=["masks"],
            action_mask_key="masks.allowed",
        )
