import numpy as np
import pytest
import torch
from tensordict import TensorDict

from rlstack import spec_json, specs

ALL = [
    specs.Unbounded((2, 3)),
    specs.Unbounded((1,), dtype=torch.int64),
    specs.Bounded(-1.0, 2.0, (3,)),
    specs.Bounded(
        torch.tensor([-1.0, -torch.inf]), torch.tensor([torch.inf, 2.0]), (2,), dtype=torch.float64
    ),
    specs.Categorical(4, shape=(1,)),
    specs.Categorical(4, shape=(2, 3), dtype=torch.int32),
    specs.MultiCategorical([2, 5]),
    specs.Binary(3),
    specs.OneHot(4),
    specs.Composite(a=specs.Unbounded((2,)), b=specs.Composite(c=specs.Categorical(3, shape=(1,)))),
]
NESTED = ALL[-1]


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: type(spec).__name__)
def test_json_gives_the_same_spec(spec):
    copy = spec_json.from_json(spec_json.to_json(spec))
    assert copy == spec
    assert copy.shape == spec.shape


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        '{"type": "os.system"}',
        '{"type": "Unbounded", "shape": [2], "dtype": "load"}',
        "null",
        "}",
    ],
)
def test_other_json_is_refused(text):
    with pytest.raises(ValueError):
        spec_json.from_json(text)


@pytest.mark.parametrize("spec", [*ALL], ids=lambda spec: type(spec).__name__)
def test_zeros_fit_their_spec(spec):
    batch = specs.zeros(spec, (5,), torch.device("cpu"))
    assert specs.mismatch(batch, spec, 5, "obs") is None


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (specs.Categorical(2), ValueError, "use shape=\\(1,\\)"),
        (specs.Composite(a=specs.Unbounded(())), ValueError, "observation_spec.a"),
        ("Box", TypeError, "is a str, expected a spec"),
        (None, TypeError, "rlstack.specs"),
    ],
)
def test_check_spec(spec, error, message):
    with pytest.raises(error, match=message):
        specs.check_spec(spec, "observation_spec")


@pytest.mark.parametrize(
    ("value", "spec", "words"),
    [
        (torch.zeros(4), specs.Unbounded((1,)), ["shape [4], expected [4, 1]", "unsqueeze"]),
        (torch.zeros(3, 1), specs.Unbounded((1,)), ["shape [3, 1], expected [4, 1]"]),
        (torch.zeros(2, 4), specs.Unbounded((2,)), ["transpose"]),
        (torch.zeros(8), specs.Unbounded((2,)), ["reshape"]),
        (torch.zeros(4, 1).double(), specs.Unbounded((1,)), ["float64", "expected torch.float32", ".to("]),
        (np.zeros((4, 1)), specs.Unbounded((1,)), ["numpy.ndarray", "torch.as_tensor"]),
        (torch.zeros(4, 1), NESTED, ["expected a TensorDict"]),
        (TensorDict({"a": torch.zeros(4, 2)}, [4]), NESTED, ["keys ['a'], expected ['a', 'b']"]),
        (TensorDict({"a": torch.zeros(3, 2)}, [3]), NESTED, ["batch size [3], expected [4]"]),
        (
            TensorDict({"a": torch.zeros(4, 2), "b": {"c": torch.zeros(4, 1)}}, [4]),
            NESTED,
            ["obs.b.c has dtype torch.float32, expected torch.int64"],
        ),
    ],
)
def test_mismatch_says_got_expected_and_fix(value, spec, words):
    sentence = specs.mismatch(value, spec, 4, "obs")
    assert sentence.startswith("obs")
    for word in words:
        assert word in sentence


def test_zeros_of_a_spec_are_those_of_a_row():
    row = TensorDict({"a": torch.ones(2), "b": {"c": torch.ones(1, dtype=torch.int64)}}, [])
    for form in (NESTED, row):
        made = specs.zeros(form, (5, 3), torch.device("cpu"))
        assert {name: (tuple(leaf.shape), leaf.dtype) for name, leaf in specs.named(made, "obs")} == {
            "obs.a": ((5, 3, 2), torch.float32),
            "obs.b.c": ((5, 3, 1), torch.int64),
        }
        assert not any(leaf.any() for _, leaf in specs.named(made))
    assert specs.zeros(torch.ones(2, dtype=torch.int32), (3,), torch.device("cpu")).tolist() == [[0, 0]] * 3


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(4, 1), "a tensor of shape [4, 1]"),
        (TensorDict({}, [4]), "a TensorDict with batch_size=[4]"),
        ((1, 2), "a tuple of 2"),
        ([1, 2], "a list"),
        (np.zeros(3), "a numpy.ndarray"),
    ],
)
def test_values_are_described_in_one_way(value, said):
    assert specs.describe(value) == said
