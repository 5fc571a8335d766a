"""Hyperparameters as texts: one for each value, whatever way it came."""

import enum
import functools
import math

import numpy as np
import pytest
import torch

from rlstack.common.nested import same
from rlstack.ppo.params import texts
from rlstack.runs.yaml_format import dump, parse


class Number(enum.IntEnum):
    ONE = 1


class Text(enum.StrEnum):
    B = "b"


def test_texts_are_one_level_of_dotted_names():
    flat = texts({"a": {"b": 1, "c": {"d": [2]}}, "cls": torch.optim.Adam, "none": None})
    assert flat == {"a.b": "1", "a.c.d": "[2]", "cls": "torch.optim.adam.Adam", "none": "None"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((256, 256), "[256, 256]"),
        ([(0, 0.1), (100, 1e-5)], "[[0, 0.1], [100, 1e-05]]"),
        (("a", Text.B, None, True), "['a', 'b', None, True]"),
        ([torch.nn.Tanh], "[torch.nn.modules.activation.Tanh]"),
        ([{"a": (1,)}], "[{'a': [1]}]"),
        (1.0, "1.0"),
        (True, "True"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
        (np.float64(1.5), "1.5"),
        (np.int64(3), "3"),
        (np.bool_(True), "True"),
        (np.str_("x"), "x"),
        (Number.ONE, "1"),
        (Text.B, "b"),
        (10**30, str(10**30)),
    ],
)
def test_a_value_has_the_same_text_after_it_was_in_a_file(value, text):
    assert texts({"a": value}) == {"a": text}
    again = parse(dump({"a": value}), "config.yaml")
    assert texts(again) == {"a": text} or text == "[torch.nn.modules.activation.Tanh]"


def nothing():
    """Do nothing."""


class Thing:
    pass


@pytest.mark.parametrize("value", [nothing, Thing(), Thing().__init__, functools.partial(nothing), [nothing]])
def test_no_text_has_an_address(value):
    assert " at 0x" not in texts({"a": value})["a"]
    assert texts({"a": nothing}) == {"a": "tests.ppo.test_params.nothing"}


def test_sets_have_the_same_text_in_every_process():
    assert texts({"a": set("zxyw"), "b": {2, 1}}) == {"a": "{'w', 'x', 'y', 'z'}", "b": "{1, 2}"}


@pytest.mark.parametrize(
    ("one", "other", "are"),
    [
        ("(256, 256)", "[256, 256]", True),
        ("1", "1.0", True),
        ("[[0, 1], [5, 0.1]]", "[(0.0, 1.0), (5, 1e-1)]", True),
        ("{'a': (1,)}", "{'a': [1.0]}", True),
        ("True", "1", False),
        ("[True]", "[1]", False),
        ("1", "2", False),
        ("1", "x", False),
        ("None", "0", False),
        ("[" * 5000, "[" * 5001, False),
        ("a.b.C", "a.b.D", False),
    ],
)
def test_texts_of_one_value(one, other, are):
    assert same(one, other) is are
    assert same(other, one) is are
    assert same(one, one)
