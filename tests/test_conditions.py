import time

import pytest

from rlstack.conditions import (
    And,
    HitsLowerBound,
    HitsUpperBound,
    Or,
    Plateaus,
    StopsDecreasing,
    StopsIncreasing,
    TimesOut,
)


def trace(condition, values):
    return [condition({"x": value}) for value in values]


@pytest.mark.parametrize(
    ("condition", "values", "expected"),
    [
        (HitsLowerBound("x", 1.0), [2, 1, 0, 2], [0, 1, 1, 0]),
        (HitsUpperBound("x", 1.0), [0, 1, 2, 0], [0, 1, 1, 0]),
        (Plateaus("x", patience=2, rtol=0.1), [10, 10.9, 9.1, 20, 20, 20], [0, 0, 1, 0, 0, 1]),
        (Plateaus("x", patience=3, rtol=0.05), [10, 10.4, 10.8, 11.2], [0, 0, 0, 0]),
        (Plateaus("x", patience=1), [0.0, 0.0], [0, 1]),
        (StopsDecreasing("x", patience=2), [5, 4, 4, 5, 3, 3], [0, 0, 0, 1, 0, 0]),
        (StopsIncreasing("x", patience=2), [5, 6, 6, 5, 7, 7], [0, 0, 0, 1, 0, 0]),
        (And(HitsUpperBound("x", 1), HitsLowerBound("x", 2)), [0, 1, 2, 3], [0, 1, 1, 0]),
        (Or(HitsUpperBound("x", 2), HitsLowerBound("x", 1)), [0, 1.5, 2], [1, 0, 1]),
        (Or(), [1], [0]),
        (And([HitsUpperBound("x", 1), HitsLowerBound("x", 2)]), [0, 1, 2, 3], [0, 1, 1, 0]),
        (Or((HitsUpperBound("x", 2), HitsLowerBound("x", 1))), [0, 1.5, 2], [1, 0, 1]),
        (Or([]), [1], [0]),
    ],
)
def test_table(condition, values, expected):
    assert trace(condition, values) == [bool(e) for e in expected]


def test_a_drifting_statistic_does_not_plateau():
    assert not any(trace(Plateaus("x", patience=5, rtol=0.01), [1.008**k for k in range(100)]))


def test_every_condition_of_a_group_sees_every_update():
    group = Or(HitsUpperBound("x", 5), StopsIncreasing("x", patience=2))
    assert trace(group, [9, 1, 1]) == [True, False, True]


@pytest.mark.parametrize(
    "condition", [HitsLowerBound("eval/y", 0), HitsUpperBound("eval/y", 0), Plateaus("eval/y")]
)
def test_a_missing_evaluation_changes_nothing(condition):
    assert trace(condition, [1.0] * 10) == [False] * 10


def test_a_streak_survives_updates_without_the_statistic():
    condition = StopsIncreasing("eval/x", patience=2)
    assert [condition(stats) for stats in ({"eval/x": 1}, {}, {"eval/x": 1}, {}, {"eval/x": 1})] == [
        False, False, False, False, True,
    ]  # fmt: skip


def test_reset_forgets():
    condition = And(Plateaus("x", patience=1))
    trace(condition, [1, 1])
    condition.reset()
    assert trace(condition, [1]) == [False]


def test_times_out():
    condition = TimesOut(0.05)
    assert not condition({})
    time.sleep(0.06)
    assert condition({})
    condition.reset()
    assert not condition({})


def test_patience_must_be_positive():
    with pytest.raises(ValueError, match="patience is 0"):
        Plateaus("x", patience=0)


def test_groups_take_conditions_only():
    with pytest.raises(TypeError, match="derive it from Condition"):
        Or(lambda stats: True)
    with pytest.raises(TypeError, match="derive it from Condition"):
        And([HitsUpperBound("x", 1), "x"])
    with pytest.raises(TypeError, match="is not a stop condition"):
        And([HitsUpperBound("x", 1)], TimesOut(1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: HitsUpperBound("x", "60"), "bound is '60', expected a number"),
        (lambda: HitsLowerBound("x", True), "bound is True, expected a number"),
        (lambda: HitsLowerBound("x", float("nan")), "bound is nan, expected a number"),
        (lambda: HitsLowerBound(1.0, "x"), "key is 1.0, expected the name of a statistic"),
        (lambda: Plateaus("x", patience=True), "patience is True, expected a number"),
        (lambda: StopsDecreasing("x", patience="3"), "patience is '3', expected a number"),
        (lambda: StopsIncreasing("x", patience=2.5), "patience is 2.5, expected a whole number"),
        (lambda: Plateaus("x", rtol=None), "rtol is None, expected a number"),
        (lambda: TimesOut("60"), "seconds is '60', expected a number"),
    ],
)
def test_arguments_of_another_type_are_named(make, words):
    with pytest.raises(TypeError, match=words):
        make()


@pytest.mark.parametrize("cls", [Plateaus, StopsDecreasing, lambda key: HitsLowerBound(key, 0)])
def test_a_mistyped_statistic_is_named(cls):
    with pytest.raises(ValueError, match="return/mean is not a statistic: did you mean returns/mean"):
        cls("return/mean")({"returns/mean": 1.0, "returns/std": 2.0})
