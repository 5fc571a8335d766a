import pytest
import torch
from tensordict import TensorDict

from rlstack import specs
from rlstack.models import ContinuousLSTM, ContinuousMLP, DiscreteLSTM, DiscreteMLP
from rlstack.models.encoder import ObservationEncoder

LINE = specs.Unbounded((1,))
DISCRETE = specs.Categorical(2, shape=(1,))
REAL = specs.Unbounded((2,))
ACTIONS = {
    "categorical": (specs.Categorical(3, shape=(2,)), {"logits": (2, 3)}),
    "multi": (specs.MultiCategorical([2, 3]), {"logits": (5,)}),
    "one hot": (specs.OneHot(3, shape=(2, 3)), {"logits": (2, 3)}),
    "binary": (specs.Binary(4), {"logits": (4,)}),
    "unbounded": (specs.Unbounded((2, 2)), {"mean": (2, 2), "log_std": (2, 2)}),
    "bounded": (specs.Bounded(-1.0, 1.0, (3,)), {"mean": (3,), "log_std": (3,)}),
}
OBSERVATIONS = specs.Composite(
    a=specs.Categorical(4, shape=(2,)),
    b=specs.Composite(c=specs.MultiCategorical([2, 3]), d=specs.Unbounded((2, 3))),
    e=specs.Binary(2),
    f=specs.OneHot(3),
    g=specs.Bounded(-1.0, 1.0, (1,), dtype=torch.float64),
)


def num_parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_default_sizes():
    assert num_parameters(DiscreteMLP(LINE, DISCRETE)) == 133_379
    assert num_parameters(DiscreteLSTM(LINE, DISCRETE)) == 265_987


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation_spec", [LINE, OBSERVATIONS], ids=["tensor", "composite"])
class TestShapes:
    def test_mlp(self, action, observation_spec):
        action_spec, expected = ACTIONS[action]
        cls = DiscreteMLP if "logits" in expected else ContinuousMLP
        model = cls(observation_spec, action_spec, hiddens=(7, 5), activation_fn="tanh")
        features, values = model(observation_spec.expand(6, *observation_spec.shape).rand())
        assert features.batch_size == (6,)
        assert {key: tuple(value.shape[1:]) for key, value in features.items()} == expected
        assert values.shape == (6, 1)

    def test_lstm(self, action, observation_spec):
        action_spec, expected = ACTIONS[action]
        cls = DiscreteLSTM if "logits" in expected else ContinuousLSTM
        model = cls(observation_spec, action_spec, hidden_size=7, num_layers=2)
        obs = observation_spec.expand(6, 4, *observation_spec.shape).rand()
        features, values, state = model(obs, specs.zeros(model.state_spec, (6,), torch.device("cpu")))
        assert features.batch_size == (6, 4)
        assert {key: tuple(value.shape[2:]) for key, value in features.items()} == expected
        assert values.shape == (6, 4, 1)
        assert specs.mismatch(state, model.state_spec, 6, "state") is None


def test_lstm_in_one_go_is_lstm_step_by_step():
    model = ContinuousLSTM(LINE, specs.Unbounded((1,)), hidden_size=8, num_layers=2)
    obs = torch.randn(3, 5, 1)
    state = specs.zeros(model.state_spec, (3,), torch.device("cpu"))
    _, whole, last = model(obs, state)
    for t in range(5):
        _, values, state = model(obs[:, t : t + 1], state)
        assert torch.allclose(values[:, 0], whole[:, t], atol=1e-6)
    assert torch.allclose(state["cell"], last["cell"], atol=1e-6)


def test_encoder():
    encoder = ObservationEncoder(OBSERVATIONS)
    obs = TensorDict(
        {
            "a": torch.tensor([[3, 0]]),
            "b": {"c": torch.tensor([[1, 2]]), "d": torch.arange(6.0).view(1, 2, 3)},
            "e": torch.tensor([[1, 0]], dtype=torch.int8),
            "f": torch.tensor([[False, True, False]]),
            "g": torch.tensor([[0.5]], dtype=torch.float64),
        },
        [1],
    )
    expected = [0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1, 2, 3, 4, 5, 1, 0, 0, 1, 0, 0.5]
    assert encoder(obs).tolist() == [expected]
    assert encoder.size == len(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiscreteMLP(LINE, DISCRETE, activation_fn="rely"), "did you mean relu"),
        (lambda: DiscreteMLP(LINE, DISCRETE, hiddens=[]), "at least one positive whole number"),
        (
            lambda: DiscreteMLP(LINE, DISCRETE, value_hiddens=[0]),
            "value_hiddens is .0., expected at least one",
        ),
        (lambda: DiscreteMLP(LINE, DISCRETE, layer_norm=1), "layer_norm is 1, expected True or False"),
        (
            lambda: ContinuousMLP(LINE, REAL, log_std_init=None),
            "log_std_init is None, expected a finite number",
        ),
        (lambda: ContinuousMLP(LINE, REAL, min_log_std="a"), "min_log_std is 'a', expected a finite number"),
        (
            lambda: ContinuousLSTM(LINE, REAL, min_log_std=1),
            "min_log_std is 1, expected at most log_std_init, 0",
        ),
        (lambda: ContinuousMLP(LINE, REAL, max_log_std=-1.0), "-1.0, expected at least log_std_init, 0"),
        (
            lambda: DiscreteMLP(LINE, specs.Unbounded((1,))),
            "expected Categorical, MultiCategorical, OneHot or Binary",
        ),
        (lambda: ContinuousLSTM(LINE, DISCRETE), "expected floating Unbounded or Bounded"),
    ],
)
def test_refusals(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def log_std_of(model, obs):
    if isinstance(model, ContinuousMLP):
        return model(obs)[0]["log_std"]
    state = specs.zeros(model.state_spec, (len(obs),), torch.device("cpu"))
    return model(obs.unsqueeze(1), state)[0]["log_std"].squeeze(1)


@pytest.mark.parametrize("cls", [ContinuousMLP, ContinuousLSTM])
def test_log_std_begins_where_it_is_told_and_stays_within_its_bounds(cls):
    model = cls(LINE, REAL, log_std_init=-2, min_log_std=-2.5, max_log_std=-1)
    obs = torch.randn(3, 1)
    assert torch.equal(log_std_of(model, obs), torch.full((3, 2), -2.0))
    [parameter] = [value for name, value in model.named_parameters() if name.endswith("log_std")]
    parameter.data.copy_(torch.tensor([-3.0, -0.5]))
    assert torch.equal(log_std_of(model, obs), torch.tensor([[-2.5, -1.0]]).expand(3, 2))


def test_the_value_network_has_layers_of_its_own():
    model = DiscreteMLP(LINE, DISCRETE, hiddens=[4, 3], value_hiddens=[7])
    policy, value = (
        [layer.out_features for layer in net.modules() if isinstance(layer, torch.nn.Linear)]
        for net in (model.policy, model.value)
    )
    assert (policy, value) == ([4, 3, 2], [7, 1])


def test_layers_are_normalized_before_they_are_activated():
    model = ContinuousMLP(LINE, REAL, hiddens=[4, 3], activation_fn="tanh", layer_norm=True)
    obs = torch.randn(5, 1)
    hidden = obs
    for linear in (model.value[0], model.value[3]):
        hidden = torch.nn.functional.layer_norm(linear(hidden), [linear.out_features]).tanh()
    torch.testing.assert_close(model(obs)[1], model.value[6](hidden))
    assert [type(layer).__name__ for layer in model.policy[:3]] == ["Linear", "LayerNorm", "Tanh"]


def test_options_at_their_defaults_leave_the_config_as_it_was():
    options = {"value_hiddens": None, "layer_norm": False, "log_std_init": 0, "min_log_std": None}
    assert [*ContinuousMLP(LINE, REAL, **options).config] == ["hiddens", "activation_fn"]
    config = ContinuousMLP(LINE, REAL, max_log_std=0.0, value_hiddens=[3]).config
    assert (config["max_log_std"], config["value_hiddens"]) == (0.0, [3])
    assert [*ContinuousLSTM(LINE, REAL).config] == ["hidden_size", "num_layers"]
