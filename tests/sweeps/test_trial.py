"""What a trial reports, and when it stops."""

import math
import time

import pytest

from rlstack.common.errors import ConfigError, EnvError, RunDirError, StatisticError, StoppedError, TrialError
from rlstack.sweeps.options import SweepConfig
from rlstack.sweeps.trial import Reports, run_dir_of, run_trial
from rlstack.tracking.journal import JOURNAL, Journal
from rlstack.tracking.metric_rows import MetricRow

CONFIG = SweepConfig(search={"gamma": [0.9]}, max_updates=8, reports=4, metric="score", seeds=[3, 5])


def stats(updates, score, **more):
    return {"env/total_steps": 10.0 * updates, "algorithm/steps": float(updates), "score": score, **more}


def test_parts_are_means(tmp_path):
    said = []
    reports = Reports(CONFIG, tmp_path / JOURNAL, lambda *part: said.append(part), first=4)
    reports.reset()
    assert reports.value is None
    for updates in range(1, 8):
        assert not reports(stats(updates, float(updates) if updates != 3 else math.nan))
    assert said == [(4, 1.5), (5, 4.0), (6, 5.5)]
    # Of a part that is cut off what there is.
    assert reports.value == 7.0
    reports(stats(8, 9.0))
    assert said[3:] == [(7, 8.0)]
    assert reports.value == 8.0


def test_a_large_update_is_several_parts_and_one_report(tmp_path):
    said = []
    reports = Reports(CONFIG, tmp_path / JOURNAL, lambda *part: said.append(part), first=0)
    for updates in (3, 20):
        reports(stats(updates, 1.0))
    assert [number for number, _ in said] == [0, 3]


def test_parts_without_a_number_are_not_reported(tmp_path):
    said = []
    reports = Reports(CONFIG, tmp_path / JOURNAL, lambda *part: said.append(part), first=0)
    for updates in range(1, 9):
        reports(stats(updates, 2.0 if updates == 5 else math.nan))
    assert said == [(2, 2.0)]
    assert reports.value == 2.0


def test_it_stops_when_it_is_told_to(tmp_path):
    reports = Reports(CONFIG, tmp_path / JOURNAL, lambda number, _: number == 1, first=0)
    assert [reports(stats(updates, 1.0)) for updates in range(1, 5)] == [False, False, False, True]


def test_a_run_that_goes_on_has_its_journal(tmp_path):
    journal, said = Journal(tmp_path / JOURNAL), []
    for updates in range(1, 4):
        journal.append(MetricRow(time.time_ns() // 10**6, 10 * updates, stats(updates, float(updates))))
    reports = Reports(CONFIG, tmp_path / JOURNAL, lambda *part: said.append(part), first=0)
    for _ in range(2):
        reports.reset()
        # The last update is shown again.
        reports(stats(3, 3.0))
        reports(stats(4, 4.0))
        assert reports.value == 3.5
    assert said == [(0, 1.5), (1, 3.5)] * 2


def test_a_statistic_that_there_never_is(tmp_path):
    with pytest.raises(StatisticError, match="score is not a statistic: did you mean scores"):
        Reports(CONFIG, tmp_path / JOURNAL, lambda *_: False, first=0)(
            {"env/total_steps": 1.0, "algorithm/steps": 1.0, "scores": 2.0}
        )


class FakeAttempt:
    """What a trial asks of an attempt."""

    number, pruned, lost = 7, False, False

    def __init__(self, seeds=()):
        self.values, self.seeds, self.parts = {"gamma": 0.9}, dict(seeds), []

    def report(self, step, value):
        self.parts.append(step)
        self.pruned = value < 0
        return self.pruned

    def keep(self, seed, value):
        self.seeds[str(seed)] = value


def trains(scores, trained, *, interrupted=False):
    """Return what trains with seeds, and whose scores these are."""

    def train(values, run_dir, conditions):
        trained.append((values, run_dir.name))
        for condition in conditions:
            condition.reset()
        for updates in range(1, 9):
            asked = [condition(stats(updates, scores[values["seed"]])) for condition in conditions]
            if any(asked):
                break
        return interrupted

    return train


def test_a_trial_is_a_run_for_each_seed(tmp_path):
    attempt, trained = FakeAttempt(), []
    assert run_trial(attempt, CONFIG, tmp_path, trains({3: 1.0, 5: 2.0}, trained)) == 1.5
    assert attempt.parts == [*range(8)]
    assert trained == [({"gamma": 0.9, "seed": seed}, f"trial-7-seed-{seed}") for seed in (3, 5)]
    assert run_dir_of(tmp_path, 7, 5).parent == tmp_path


def test_seeds_that_were_trained_are_not_trained_again(tmp_path):
    attempt, trained = FakeAttempt({"3": 4.0}), []
    assert run_trial(attempt, CONFIG, tmp_path, trains({5: 2.0}, trained)) == 3.0
    assert [values["seed"] for values, _ in trained] == [5]


def test_a_pruned_trial_ends(tmp_path):
    attempt, trained = FakeAttempt(), []
    assert run_trial(attempt, CONFIG, tmp_path, trains({3: -1.0}, trained)) is None
    assert attempt.parts == [0]
    assert attempt.seeds == {}


def test_an_interrupted_trial(tmp_path):
    with pytest.raises(StoppedError):
        run_trial(FakeAttempt(), CONFIG, tmp_path, trains({3: 1.0}, [], interrupted=True))


def test_a_trial_without_a_value(tmp_path):
    with pytest.raises(TrialError, match="score was there after no update"):
        run_trial(FakeAttempt(), CONFIG, tmp_path, trains({3: math.nan}, []))


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (EnvError("x"), TrialError),
        (RuntimeError("x"), TrialError),
        (RunDirError("x"), RunDirError),
        (StatisticError("x"), ConfigError),
        (OSError("x"), OSError),
    ],
)
def test_what_is_the_trial_s_fault_and_what_is_not(error, raised, tmp_path):
    def train(values, run_dir, conditions):
        raise error

    with pytest.raises(raised, match="x"):
        run_trial(FakeAttempt(), CONFIG, tmp_path, train)
