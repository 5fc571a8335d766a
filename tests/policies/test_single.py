"""One observation at a time: a recording does what the policy does, to the bit, also after changes."""

import copy
import pickle
import sys

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from rlstack import specs
from rlstack.distributions import Normal
from rlstack.models import ContinuousLSTM, ContinuousMLP, DiscreteLSTM, DiscreteMLP
from rlstack.policies import Policy, RecurrentPolicy

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 14), reason="without TorchScript nothing is recorded")

FLAT = specs.Unbounded((3,))
MASKED = specs.Composite(body=specs.Unbounded((3,)), mask=specs.Binary(shape=(1, 4), dtype=torch.bool))
NESTED = specs.Composite(
    seen=specs.Composite(place=specs.Unbounded((2,)), kind=specs.Categorical(3, shape=(1,))),
    wind=specs.Unbounded((1,)),
)
BOUNDED = specs.Bounded(torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 10.0]), (2,))
CASES = {
    "one choice": (FLAT, specs.Categorical(4, shape=(1,)), {}),
    "several choices": (FLAT, specs.MultiCategorical([2, 3]), {}),
    "one-hot": (FLAT, specs.OneHot(4), {}),
    "binary": (FLAT, specs.Binary(3), {}),
    "real": (FLAT, specs.Unbounded((2,)), {}),
    "squashed": (FLAT, BOUNDED, {}),
    "clipped": (FLAT, BOUNDED, {"distribution_cls": Normal}),
    "unclipped": (FLAT, BOUNDED, {"distribution_cls": Normal, "clip_actions": False}),
    "masked": (MASKED, specs.Categorical(4, shape=(1,)), {"action_mask_key": "mask"}),
    "keys": (NESTED, BOUNDED, {"policy_keys": ["seen"], "value_keys": ["wind"]}),
}


def make(case, *, recurrent=False, normalize=False):
    obs_spec, action_spec, options = CASES[case]
    own = {k: v for k, v in options.items() if k in ("distribution_cls", "clip_actions")}
    config = {k: v for k, v in options.items() if k not in own}
    discrete = action_spec is not BOUNDED and specs.kind(action_spec) is not specs.Unbounded
    models = (DiscreteLSTM, ContinuousLSTM) if recurrent else (DiscreteMLP, ContinuousMLP)
    config |= {"hidden_size": 8} if recurrent else {"hiddens": (8, 8)}
    torch.manual_seed(3)
    model = models[not discrete](obs_spec, action_spec, **config)
    policy = (RecurrentPolicy if recurrent else Policy)(model, normalize_observations=normalize, **own)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return policy


def same(one, other):
    """Whether two steps are the same, in bits and in form."""
    for mine, theirs in zip(one, other, strict=True):
        if isinstance(mine, TensorDict):
            assert mine.batch_size == theirs.batch_size
            assert set(mine.keys(True, True)) == set(theirs.keys(True, True))
            assert all(torch.equal(mine[key], theirs[key]) for key in mine.keys(True, True))
        elif mine is None:
            assert theirs is None
        else:
            assert (mine.dtype, mine.shape, mine.requires_grad) == (theirs.dtype, theirs.shape, False)
            assert torch.equal(mine, theirs)
    return True


def both(policy, obs, state, *, deterministic=False):
    """Return what `act` and `sample` do, from one random state."""
    found = []
    for method in (policy.act, policy.sample):
        torch.manual_seed(5)
        found.append(method(obs, state, deterministic=deterministic))
        found.append(torch.rand(1).item())
    assert found[1] == found[3]
    return found[0], found[2]


def settle(policy):
    """Act until it is recorded."""
    obs = policy.observation_spec.rand((1,))
    for _ in range(10):
        policy.act(obs, deterministic=True)
    return obs


def is_recorded(policy):
    return bool(policy._single._recorded)


REMEMBERED = ("several choices", "masked", "keys")


@pytest.mark.parametrize(
    ("case", "recurrent"), [*((case, False) for case in CASES), *((case, True) for case in REMEMBERED)]
)
def test_it_is_what_is_done_with_many(case, recurrent):
    policy = make(case, recurrent=recurrent, normalize=case not in ("one choice", "real"))
    if policy.normalizer is not None:
        policy.normalizer.update(policy.observation_spec.rand((20,)))
    state = policy.initial_state(1)
    for t in range(14):
        obs = policy.observation_spec.rand((1,))
        one, other = both(policy, obs, state, deterministic=t % 2 == 0)
        assert same(one, other)
        state = one.state
    assert len(policy._single._recorded) == 2


@pytest.mark.parametrize("recurrent", [False, True])
def test_without_what_only_values_need(recurrent):
    policy = make("keys", recurrent=recurrent)
    obs, state = settle(policy).exclude("wind"), policy.initial_state(1)
    for _ in range(3):
        step = policy.act(obs, state, deterministic=True)
        sampled = policy.sample(obs, state, deterministic=True)
        assert step.values is None
        assert same(step, sampled)
        state = step.state
    assert len(policy._single._recorded) == 2


def replace_layer(policy):
    policy.model.policy[0] = nn.Linear(3, 8)


def replace_parameter(policy):
    policy.model.value[0].weight = nn.Parameter(torch.randn(8, 3))


def hook_a_layer(policy):
    policy.model.policy[0].register_forward_hook(lambda layer, inputs, output: 2 * output)


def hook_the_model(policy):
    policy.model.register_forward_pre_hook(lambda model, inputs: (inputs[0] + 1,))


def own_forward(policy):
    policy.model.encoder.forward = lambda obs: obs.flip(-1)


def train(policy):
    with torch.no_grad():
        policy.model.policy[0].weight.mul_(1.5)


def set_data(policy):
    policy.model.policy[0].weight.data = torch.randn(8, 3)


def see_more(policy):
    policy.normalizer.update(5 + torch.randn(9, 3))


def load(policy):
    policy.load_state_dict(make("clipped", normalize=True).state_dict(), assign=True)
    with torch.no_grad():
        policy.model.policy[0].bias.add_(1)


def another_distribution(policy):
    policy.distribution_cls = type("Own", (), {"__new__": lambda cls, *given: Normal(*given)})


CHANGES = [
    replace_layer,
    replace_parameter,
    hook_a_layer,
    hook_the_model,
    own_forward,
    train,
    set_data,
    see_more,
    load,
    another_distribution,
    lambda policy: policy.clip_actions(False),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changes_are_followed(change):
    policy = make("clipped", normalize=True)
    obs = 3 * settle(policy)
    before = policy.act(obs)
    assert is_recorded(policy)
    torch.manual_seed(5)
    change(policy)
    one, other = both(policy, obs, None)
    assert same(one, other)
    assert not torch.equal(before.values, one.values) or not torch.equal(before.actions, one.actions)


@pytest.mark.parametrize("change", [hook_a_layer, hook_the_model, own_forward, another_distribution])
def test_code_of_users_is_run_each_time(change):
    policy = make("clipped")
    change(policy)
    settle(policy)
    assert not is_recorded(policy)


def test_hooks_of_all_modules_are_run():
    policy, calls = make("real"), []
    obs = settle(policy)
    handle = nn.modules.module.register_module_forward_hook(lambda *given: calls.append(1))
    try:
        policy.act(obs)
    finally:
        handle.remove()
    assert calls


def test_autocast_is_heeded():
    policy = make("real")
    obs = settle(policy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one, other = both(policy, obs, None, deterministic=True)
    assert same(one, other)
    assert not torch.equal(one.values, policy.act(obs).values)


def test_several_rows_are_run_as_they_are():
    policy = make("real")
    for _ in range(10):
        policy.act(torch.randn(2, 3))
    assert not is_recorded(policy)


def test_what_does_not_fit_is_said_as_before():
    policy = make("real")
    settle(policy)
    for wrong in (torch.zeros(1, 4), torch.zeros(1, 3, dtype=torch.float64), torch.zeros(3)):
        with pytest.raises(ValueError, match=r"^obs "):
            policy.act(wrong)


def test_copies_and_files_begin_without_recordings():
    policy = make("real")
    obs = settle(policy)
    names = list(policy.state_dict())
    for other in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert not is_recorded(other)
        assert list(other.state_dict()) == names
        with torch.no_grad():
            other.model.policy[0].weight.mul_(2)
        assert same(*both(other, obs, None))
        assert not torch.equal(other.act(obs, deterministic=True).actions, policy.act(obs).actions)
