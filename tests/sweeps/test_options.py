"""What a sweep's file may say."""

import pytest

from rlstack.common.errors import HparamsError
from rlstack.common.nested import flatten, unflatten
from rlstack.sweeps.options import Choices, Range, SweepConfig

GOOD = {"search": {"gamma": {"low": 0.9, "high": 0.99}}, "max_updates": 5}


def test_dimensions():
    search = {
        "optimizer_config.lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "num_sgd_iters": {"low": 1, "high": 8},
        "env_config.length": {"low": 0.5, "high": 1, "step": 0.1},
        "model_config.hiddens": [[8], [8, 8], None, "x"],
    }
    found = SweepConfig(**{**GOOD, "search": search}).dimensions()
    assert found["optimizer_config.lr"] == Range(low=1e-4, high=1e-2, log=True)
    assert found["num_sgd_iters"].is_integer
    assert not found["env_config.length"].is_integer
    choices = found["model_config.hiddens"]
    assert isinstance(choices, Choices)
    assert choices.labels == {"[8]": [8], "[8, 8]": [8, 8], None: None, "x": "x"}


def test_budget():
    assert SweepConfig(**GOOD).budget == ("algorithm/steps", 5)
    steps = {"search": GOOD["search"], "max_env_steps": 100}
    assert SweepConfig(**steps).budget == ("env/total_steps", 100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"serch": {}}, "serch is not a key of sweep: did you mean search?"),
        ({"trials": 0}, "trials is 0, expected a number at least 1"),
        ({"direction": "up"}, "direction is 'up', expected 'maximize' or 'minimize'"),
        ({"max_env_steps": 100}, "one of max_env_steps and max_updates"),
        ({"max_updates": None}, "one of max_env_steps and max_updates"),
        ({"seeds": []}, r"seeds is \[\], expected one or more"),
        ({"seeds": [1, 1]}, "expected one or more, each once"),
        ({"search": {}}, "search is empty"),
        ({"search": {"gamma": 0.9}}, "search.gamma is 0.9, expected {low: "),
        ({"search": {"gamma": {"low": 0.9}}}, "search.gamma is .*, expected {low: "),
        ({"search": {"gamma": []}}, "or a list of values"),
        ({"search": {"ga mma": [1]}}, "search.ga mma is not the name of a hyperparameter"),
        ({"search": {"gamma": {"low": "a", "high": 1}}}, "search.gamma.low is 'a', expected a number"),
        ({"search": {"gamma": {"low": 0.1, "high": 1, "log": 1}}}, "log is 1, expected true or false"),
        ({"search": {"gamma": {"low": 1, "high": 1}}}, "from 1 to 1, expected low below high"),
        ({"search": {"gamma": {"low": 0, "high": 1, "log": True}}}, "expected low above 0 and no step"),
        ({"search": {"gamma": {"low": 0, "high": 1, "step": 0}}}, "step is 0, expected more than 0"),
        ({"pruner": {"MedianPrunr": {}}}, "pruner is MedianPrunr: did you mean MedianPruner?"),
        ({"sampler": {}}, "sampler is {}, expected one name with arguments"),
        ({"sampler": {"TPESampler": 3}}, "expected one name with arguments"),
    ],
)
def test_mistakes(changes, message):
    with pytest.raises(HparamsError, match=message):
        SweepConfig(**{**GOOD, **changes}).check()


def test_nested_values_are_flat_ones_and_back():
    nested = {"a": 1, "b": {"c": [2], "d": {"e": None}}}
    assert unflatten(flatten(nested)) == nested
