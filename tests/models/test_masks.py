import re

import pytest
import torch
from tensordict import TensorDict

from rlstack import specs
from rlstack.models import ContinuousMLP, DiscreteLSTM, DiscreteMLP, Model
from rlstack.models.masks import ActionMask
from rlstack.policies import Policy, RecurrentPolicy
from rlstack.policies.check import check_policy
from rlstack.tracking.mlflow_model import Acting, _example

SPECS = {
    "one": (specs.Categorical(4, shape=(1,)), (1, 4)),
    "two": (specs.Categorical(3, shape=(2,)), (2, 3)),
    "several": (specs.MultiCategorical([2, 3]), (5,)),
    "one hot": (specs.OneHot(4), (4,)),
}


def observed(shape, **options):
    mask = specs.Binary(shape=shape, **{"dtype": torch.bool, **options})
    return specs.Composite(place=specs.Unbounded((2,)), may=specs.Composite(act=mask))


def masked(kind, cls=DiscreteMLP, **options):
    action_spec, shape = SPECS[kind]
    small = {"hidden_size": 8} if cls is DiscreteLSTM else {"hiddens": [8]}
    model = cls(observed(shape, **options), action_spec, **small, action_mask_key="may.act")
    # Far from all the same.
    for parameter in model.policy.parameters():
        parameter.data.mul_(5)
    return (RecurrentPolicy if cls is DiscreteLSTM else Policy)(model, normalize_observations=True)


def observations(policy, rows, share=0.5):
    spec = policy.observation_spec["may", "act"]
    allowed = torch.rand(rows, *spec.shape) < share
    place = torch.randn(rows, 2)
    return TensorDict({"place": place, "may": {"act": allowed.to(spec.dtype)}}, rows)


def forbidden(policy, obs, actions):
    """Whether a forbidden choice was made where there is an allowed one, [rows]."""
    allowed = obs["may", "act"].bool()
    spec = policy.action_spec
    if specs.kind(spec) is specs.MultiCategorical:
        parts, chosen = allowed.split(spec.nvec.tolist(), -1), actions.unbind(-1)
    elif specs.kind(spec) is specs.OneHot:
        parts, chosen = [allowed], [actions.int().argmax(-1)]
    else:
        parts, chosen = allowed.unbind(1), actions.unbind(-1)
    bad = [
        part.any(-1) & ~part.gather(-1, choice.unsqueeze(-1)).squeeze(-1)
        for part, choice in zip(parts, chosen, strict=True)
    ]
    return torch.stack(bad).any(0)


@pytest.mark.parametrize("cls", [DiscreteMLP, DiscreteLSTM])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int8])
@pytest.mark.parametrize("kind", SPECS)
def test_what_is_forbidden_is_never_done(kind, dtype, cls, tmp_path):
    policy = masked(kind, cls, dtype=dtype)
    check_policy(policy)
    obs = observations(policy, 10_000)
    step = policy.act(obs)
    assert not forbidden(policy, obs, step.actions).any()
    best = policy.act(obs, deterministic=True).actions
    assert not forbidden(policy, obs, best).any()
    # It would be without the mask.
    free = obs.clone()
    free["may", "act"].fill_(1)
    assert forbidden(policy, obs, policy.act(free, deterministic=True).actions).any()
    policy.save(tmp_path / "policy")
    again = type(policy).load(tmp_path / "policy")
    assert torch.equal(again.act(obs, deterministic=True).actions, best)


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize("cls", [DiscreteMLP, DiscreteLSTM])
def test_what_is_exported_does_nothing_forbidden(cls):
    policy = masked("several", cls).eval()
    acting = Acting(policy)
    inputs = _example(policy)
    rows = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    program = torch.export.export(acting, inputs, dynamic_shapes=rows).module()
    obs = observations(policy, 500)
    given = {"obs.place": obs["place"], "obs.may.act": obs["may", "act"]}
    state = policy.initial_state(500)
    if state is not None:
        given |= {f"state.{name}": part for name, part in state.items()}
    outputs = program(*(given[name] for name in acting.inputs))
    actions = outputs["action"]
    assert torch.equal(actions, policy.act(obs, deterministic=True).actions)
    assert not forbidden(policy, obs, actions).any()


def test_probabilities_by_hand():
    policy = masked("one")
    with torch.no_grad():
        policy.model.policy[-1].linear.weight.zero_()
        policy.model.policy[-1].linear.bias.copy_(torch.tensor([1.0, 3.0, 100.0, 4.0]).log())
    obs = observations(policy, 1)
    obs["may", "act"] = torch.tensor([[[True, True, False, True]]])

    def said(action):
        return policy.evaluate(obs.unsqueeze(1), torch.tensor([[action]]), None)

    for action, probability in ((0, 1 / 8), (1, 3 / 8), (3, 4 / 8)):
        assert said(action).logp.exp().item() == pytest.approx(probability, rel=1e-5)
    assert said(2).logp.item() == -torch.inf
    nats = -sum(p * torch.tensor(p).log().item() for p in (1 / 8, 3 / 8, 4 / 8))
    assert said(0).entropy.item() == pytest.approx(nats, rel=1e-5)
    evaluation = said(1)
    (evaluation.logp + evaluation.entropy).sum().backward()
    gradient = policy.model.policy[-1].linear.bias.grad
    assert gradient[2] == 0
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0.1


def test_the_networks_and_the_normalizer_do_not_see_the_mask():
    policy = masked("one", dtype=torch.float32)
    obs = observations(policy, 100, share=0.3)
    free = obs.clone()
    free["may", "act"].fill_(1)
    assert torch.equal(policy.act(obs).values, policy.act(free).values)
    assert policy.model.encoder.size == 2
    policy.normalizer.update(obs)
    assert len(policy.normalizer.moments) == 1
    assert torch.equal(policy.normalize(obs)["may", "act"], obs["may", "act"])


def test_where_nothing_is_allowed_everything_is():
    mask = ActionMask("may.act", observed((5,)), specs.MultiCategorical([2, 3]))
    given = torch.tensor([[1, 0, 0, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]).bool()
    obs = TensorDict({"may": {"act": given}}, 3)
    assert mask.is_stuck(obs).tolist() == [False, True, True]
    assert mask.allowed(obs).int().tolist() == [[1, 0, 0, 1, 1], [1, 1, 0, 1, 0], [1, 1, 1, 1, 1]]
    two = ActionMask("may.act", observed((2, 2)), specs.Categorical(2, shape=(2,)))
    given = torch.tensor([[[1, 0], [0, 0]], [[1, 0], [0, 1]]]).bool()
    assert two.is_stuck(TensorDict({"may": {"act": given}}, 2)).tolist() == [True, False]


class Own(Model):
    """A model of one's own, which names the mask and does nothing else about it."""

    action_mask_key = "may.act"

    def __init__(self, observation_spec, action_spec, /, shape=(1, 4)):
        super().__init__(observation_spec, action_spec, shape=shape)
        self.linear, self.shape = torch.nn.Linear(2, 5), shape

    def forward(self, obs):
        logits, values = self.linear(obs["place"]).split([4, 1], -1)
        return TensorDict({"logits": logits.unflatten(-1, self.shape)}, len(values)), values


def test_a_model_of_ones_own():
    policy = Policy(Own(observed((1, 4)), SPECS["one"][0]))
    check_policy(policy)
    obs = observations(policy, 10_000)
    assert not forbidden(policy, obs, policy.act(obs).actions).any()


def test_logits_of_another_shape_are_named():
    policy = Policy(Own(observed((1, 4)), SPECS["one"][0], shape=(4,)))
    message = r"the feature logits of Own is a tensor of shape \[2, 4\], expected .* shape \[2, 1, 4\]"
    with pytest.raises(ValueError, match=message):
        check_policy(policy)


@pytest.mark.parametrize(
    ("observation_spec", "action_spec", "key", "message"),
    [
        (observed((1, 4)), SPECS["one"][0], "may.at", "did you mean may.act?"),
        (observed((1, 4)), SPECS["one"][0], "may", "expected a leaf of a Composite observation_spec"),
        (specs.Unbounded((4,)), SPECS["one"][0], "", "expected a leaf of a Composite observation_spec"),
        (observed((4,)), SPECS["one"][0], "may.act", "expected Binary(shape=[1, 4], dtype=torch.bool)"),
        (observed((1, 4)), SPECS["one"][0], "place", "obs.place is Unbounded of torch.float32"),
        (observed((4,)), specs.Binary(4), "may.act", "expected Categorical, MultiCategorical or OneHot"),
        (
            specs.Composite(act=specs.Binary(shape=(1, 4))),
            SPECS["one"][0],
            "act",
            "is the whole observation, expected another leaf",
        ),
    ],
)
def test_what_is_no_mask(observation_spec, action_spec, key, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        DiscreteMLP(observation_spec, action_spec, action_mask_key=key)


def test_real_actions_have_no_mask():
    with pytest.raises(TypeError, match="action_mask_key"):
        ContinuousMLP(observed((1, 4)), specs.Unbounded((1,)), action_mask_key="may.act")
