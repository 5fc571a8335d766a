"""YAML by strict rules; classes by name, of the right kind."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlstack.common.errors import ConfigError
from rlstack.env import CartPole
from rlstack.models import DiscreteMLP
from rlstack.runs.class_paths import find_class, find_classes
from rlstack.runs.yaml_format import dump, parse

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]))
VALUES = st.recursive(
    SCALARS
    | TEXTS
    | st.sampled_from(["on", "1e-3", "010", "1_0", "~", "yes", "1:30", "2020-01-01", "=", "<<"]),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)


@settings(max_examples=50)
@given(st.dictionaries(TEXTS, VALUES))
def test_what_is_written_is_read(values):
    assert parse(dump(values), "x.yaml") == values


@settings(max_examples=50)
@given(st.dictionaries(TEXTS, VALUES))
def test_json_is_yaml(values):
    assert parse(json.dumps(values), "x.json") == values


def test_values_mean_what_they_look_like():
    text = (
        "a: 1e-3\nb: on\nc: 010\nd: true\ne: 1_000\nf: null\ng: .5\nh: 1:30\ni: 2020-01-01\nj: -3\nk:\nl: 1."
    )
    assert parse(text, "x") == {
        "a": 1e-3,
        "b": "on",
        "c": "010",
        "d": True,
        "e": 1000,
        "f": None,
        "g": 0.5,
        "h": "1:30",
        "i": "2020-01-01",
        "j": -3,
        "k": None,
        "l": 1.0,
    }
    assert type(parse("x: 3", "x")["x"]) is int
    assert not math.isnan(parse("x: 1e400", "x")["x"])
    assert parse(dump({"x": [math.inf, -math.inf, ".inf"]}), "x")["x"] == [math.inf, -math.inf, ".inf"]
    assert math.isnan(parse(dump({"x": math.nan}), "x")["x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", r"x\.yaml: line 2: a is given twice"),
        ("a: {b: 1, b: 2}", r"x\.yaml: line 1: b is given twice"),
        ('{"a": {"b": 1, "b": 2}}', r"x\.yaml: b is given twice"),
        ("1: 2", r"x\.yaml: line 1: 1 is a int, expected a name"),
        ("- 1", "holds a list, expected names with values"),
        ("", "holds a NoneType, expected names"),
        ("a: !!python/object/apply:os.system ['true']", "is not YAML: could not determine a constructor"),
        ("a: !!python/name:os.system", "is not YAML"),
        ("a: &x [1]\nb: *x", "there is an alias in line 2"),
        ("a: [", "is not YAML"),
        ("a: b: c", "is not YAML"),
        ("a: " + 5000 * "[", "more than any run has, from line 1 on"),
        ("a:\n" + 20_000 * "- 1\n", "more than any run has"),
        ("a: \x00", "is not YAML"),
        ("<<: {a: 1}", "line 1"),
    ],
)
def test_wrong_files_get_one_line(text, message):
    if text.startswith("<<"):
        assert parse(text, "x.yaml") == {"<<": {"a": 1}}
        return
    with pytest.raises(ConfigError, match=message) as caught:
        parse(text, "x.yaml")
    assert len(str(caught.value).splitlines()) == 1


def test_classes_are_found_by_name():
    assert find_class("rlstack.env.CartPole", "env") is CartPole
    assert find_class("rlstack.env:CartPole", "env") is CartPole
    found = find_classes({"optimizer_cls": "torch.optim.AdamW", "model_cls": None, "horizon": 3})
    assert found == {"optimizer_cls": torch.optim.AdamW, "model_cls": None, "horizon": 3}
    assert find_class("rlstack.models.DiscreteMLP", "model_cls") is DiscreteMLP


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("os.system", "env", "env is os.system, expected a class derived from rlstack.env.base.Env"),
        ("subprocess.Popen", "env", "expected a class derived from"),
        ("torch.optim.Adam", "model_cls", "expected a class derived from torch.nn"),
        ("torch.optim.Adamm", "optimizer_cls", "torch.optim has no Adamm: did you mean Adam"),
        ("torsh.optim.Adam", "optimizer_cls", "there is no module torsh"),
        ("Adam", "optimizer_cls", "expected the name of a class"),
        ("../x.Adam", "optimizer_cls", "expected the name of a class"),
        ({"a": 1}, "optimizer_cls", "expected the name of a class"),
    ],
)
def test_other_names_are_refused(name, option, message):
    with pytest.raises(ConfigError, match=message):
        find_class(name, option)
