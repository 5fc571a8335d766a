"""Nested values become JSON and tensors, and come back the same."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict

from rlstack.common.serialization import pack, unpack

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
KEYS = st.text() | st.integers() | st.tuples(st.integers(), st.text())
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner)
)


def there_and_back(tree):
    packed, tensors = pack(tree, "tree")
    return unpack(json.loads(json.dumps(packed, allow_nan=False)), tensors)


@given(TREES)
def test_plain_values_come_back(tree):
    back = there_and_back(tree)
    assert back == tree
    assert repr(back) == repr(tree)


def test_tensors_and_arrays_come_back():
    shared = torch.arange(6.0).view(2, 3)
    tree = {
        "a": shared,
        "b": [shared[0], torch.tensor(True), torch.zeros(0, 3)],
        0: (torch.tensor(2**60), np.arange(3, dtype=np.uint32), np.float64(0.1), np.True_),
        "c": TensorDict({"d": torch.randn(2, 1, dtype=torch.bfloat16)}, 2),
    }
    back = there_and_back(tree)
    assert torch.equal(back["a"], shared)
    assert all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(back["b"], tree["b"], strict=True))
    assert back[0][0] == 2**60
    assert np.array_equal(back[0][1], tree[0][1])
    assert back[0][1].dtype == np.uint32
    assert back[0][2:] == (0.1, True)
    assert torch.equal(back["c"]["d"], tree["c"]["d"])
    back["a"][0, 0] = 7
    assert shared[0, 0] == 0


def test_numbers_that_json_lacks_come_back():
    back = there_and_back([math.nan, math.inf, -math.inf, -0.0])
    assert math.isnan(back[0])
    assert back[1:3] == [math.inf, -math.inf]
    assert math.copysign(1, back[3]) == -1


def test_names_that_meet_are_told_apart():
    tree = {"a.b": torch.tensor(1), "a": {"b": torch.tensor(2)}}
    back = there_and_back(tree)
    assert back["a.b"] == 1
    assert back["a"]["b"] == 2


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", print, torch.float32, 1j])
def test_what_no_file_can_hold_is_named(value):
    with pytest.raises(TypeError, match=rf"^optimizer\.state\.0 is a {type(value).__name__}, which"):
        pack({"state": [value]}, "optimizer")


@pytest.mark.parametrize(
    "packed",
    [
        {"tensor": "x"},
        {"tensor": 1},
        {"float": "1"},
        {"dict": [[1]]},
        {"dict": [[[], 1]]},
        {"tuple": 3},
        {"f": 1},
    ],
    ids=str,
)
def test_what_pack_never_says_is_refused(packed):
    with pytest.raises(ValueError, match="is no"):
        unpack([packed], {})
