import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlstack.schedulers import InterpScheduler, StepScheduler, scheduler

SCHEDULE = [(100, 1.0), (200, 3.0), (400, 0.0)]


@pytest.mark.parametrize(
    ("env_steps", "step", "interp"),
    [
        (0, 1, 1),
        (100, 1, 1),
        (150, 1, 2),
        (199, 1, 2.98),
        (200, 3, 3),
        (300, 3, 1.5),
        (400, 0, 0),
        (10**9, 0, 0),
    ],
)
def test_table(env_steps, step, interp):
    assert StepScheduler(SCHEDULE)(env_steps) == step
    assert InterpScheduler(SCHEDULE)(env_steps) == pytest.approx(interp)


@given(st.integers(0, 1000))
def test_interpolation_stays_between_its_entries(env_steps):
    assert 0 <= InterpScheduler(SCHEDULE)(env_steps) <= 3


@pytest.mark.parametrize("kind", ["step", "interp"])
def test_without_a_schedule_the_value_is_constant(kind):
    assert scheduler(0.3, None, kind)(12345) == 0.3
    assert scheduler(0.3, SCHEDULE, kind)(400) == 0


@pytest.mark.parametrize("schedule", [[], [(1,)], [(1, 2, 3)], [(5, 1.0), (5, 2.0)], [(5, 1.0), (4, 2.0)]])
def test_bad_schedules(schedule):
    with pytest.raises(ValueError):
        StepScheduler(schedule)
