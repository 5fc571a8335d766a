"""A sweep on disk: no trial is lost, and none is tried twice, whatever becomes of the processes."""

import contextlib
import os
import signal
import time
from collections import Counter

import pytest

from rlstack.common.errors import HparamsError, StoppedError, TrialError
from rlstack.sweeps import study
from rlstack.sweeps.options import SweepConfig
from rlstack.sweeps.study import Sweep
from rlstack.sweeps.summary import importances, rows, spread, write_table

SEARCH = {"optimizer_config.lr": {"low": 0.0, "high": 1.0}, "model_config.hiddens": [[8], [8, 8]]}


def config(trials=4, **changes):
    return SweepConfig(**{"search": SEARCH, "trials": trials, "max_updates": 5, **changes})


def sweep(directory, *args, **changes):
    found = Sweep(directory, config(*args, **changes))
    found.reserve()
    return found


def value_of(attempt):
    """Return how good a point is: the higher the learning rate, the better."""
    return attempt.values["optimizer_config"]["lr"]


def work(sweep, run=value_of, is_over=lambda: False):
    """Return the trials that attempts have been made at."""
    said = []
    sweep.work(run, is_over=is_over, said=said.append)
    return said


def in_a_child(job):
    """Run a job in a forked process, which ends with it."""
    if (child := os.fork()) == 0:
        try:
            job()
        finally:
            os._exit(0)
    return child


def states(sweep):
    return Counter(row.state for row in rows(sweep))


def test_as_many_trials_as_are_asked_for(tmp_path):
    first = sweep(tmp_path)
    assert work(first) == [0, 1, 2, 3]
    # A point is nested as hyperparameters are set, and its lists are lists.
    [best, *rest] = rows(first)
    assert best.values["optimizer_config"]["lr"] == best.value > max(row.value for row in rest)
    assert best.values["model_config"]["hiddens"] in ([8], [8, 8])
    assert work(sweep(tmp_path)) == []
    # More of them is more of the same sweep.
    assert work(sweep(tmp_path, 6)) == [4, 5]
    assert len({row.value for row in rows(sweep(tmp_path, 6))}) == 6


def test_lower_is_better_if_it_is_to_be(tmp_path):
    found = sweep(tmp_path, direction="minimize")
    work(found)
    values = [row.value for row in rows(found)]
    assert values == sorted(values)


def test_what_is_tried_depends_on_seeds_and_trials_before(tmp_path):
    sampler = {"TPESampler": {"n_startup_trials": 2}}
    # The first one is stopped in between: random numbers don't begin anew.
    work(sweep(tmp_path / "0", 5, sampler=sampler), is_over=iter([False, False, False, True]).__next__)
    points = []
    for name, seed in (("0", 0), ("1", 0), ("2", 1)):
        found = sweep(tmp_path / name, 5, sampler=sampler, seed=seed)
        work(found)
        points.append({row.trial: row.params for row in rows(found)})
    assert points[0] == points[1] != points[2]


def test_pruned_trials(tmp_path):
    found = sweep(tmp_path, 8, pruner={"ThresholdPruner": {"lower": 0.5}})

    def run(attempt):
        return None if attempt.report(0, value_of(attempt)) else 1 + value_of(attempt)

    work(found, run)
    ends = [(row.state, row.value) for row in rows(found)]
    assert {state for state, _ in ends} == {"complete", "pruned"}
    assert all((value > 1.5) if state == "complete" else value < 0.5 for state, value in ends)


def test_failed_trials_are_not_tried_again(tmp_path):
    def run(attempt):
        if attempt.number == 1:
            raise TrialError("the learning rate is too low")
        return value_of(attempt)

    assert work(sweep(tmp_path), run) == [0, 1, 2, 3]
    found = sweep(tmp_path)
    assert work(found) == []
    [failed] = [row for row in rows(found) if row.state == "failed"]
    assert (failed.trial, failed.fault) == (1, "the learning rate is too low")
    assert failed == rows(found)[-1]


@pytest.mark.parametrize("error", [StoppedError, ValueError])
def test_an_interrupted_trial_goes_on(error, tmp_path):
    points = []

    def run(attempt):
        points.append((attempt.number, attempt.values))
        attempt.keep(3, 0.25)
        attempt.report(0, 0.5)
        if len(points) == 2:
            raise error
        return value_of(attempt)

    # Who is asked to stop does so, and faults are seen.
    with pytest.raises(error) if error is ValueError else contextlib.nullcontext():
        work(sweep(tmp_path), run)
    found = sweep(tmp_path)
    assert states(found) == {"complete": 1, "interrupted": 1, "waiting": 2}
    seeds = []
    again = work(found, lambda attempt: seeds.append(dict(attempt.seeds)) or run(attempt))
    assert again == [2, 3, 1]
    # With the same values, and what is known of it.
    assert points[1] == points[-1]
    assert seeds == [{}, {}, {"3": 0.25}]
    assert states(found) == {"complete": 4}
    [row] = [row for row in rows(found) if row.trial == 1]
    assert (row.attempts, row.seeds) == (2, {3: 0.25})


@pytest.mark.parametrize("moment", ["before", "after a part", "at the end"])
def test_a_killed_process_leaves_no_trial_behind(moment, tmp_path):
    sweep(tmp_path)

    def run(attempt):
        if attempt.number == 1 and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        attempt.report(0, 0.5)
        if attempt.number == 1 and moment == "after a part":
            os.kill(os.getpid(), signal.SIGKILL)
        return value_of(attempt)

    def job():
        said = lambda trial: os.kill(os.getpid(), signal.SIGKILL) if trial == 1 else None  # noqa: E731
        Sweep(tmp_path, config()).work(run, is_over=lambda: False, said=said)

    child = in_a_child(job)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    found = sweep(tmp_path)
    # At once: nobody waits for a heartbeat.
    start = time.monotonic()
    again = work(found)
    assert sorted(again) == ([2, 3] if moment == "at the end" else [1, 2, 3])
    assert time.monotonic() - start < study._HEARTBEAT
    assert states(found) == {"complete": 4}
    assert [row.attempts for row in sorted(rows(found), key=lambda row: row.trial)][1] == (
        1 if moment == "at the end" else 2
    )


def test_killed_where_optuna_forgets(tmp_path, monkeypatch):
    """Between a trial's turn and its first heartbeat, and between its end and its being made again."""
    import optuna

    sweep(tmp_path)

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr("optuna.study._optimize.get_heartbeat_thread", die)
        child = in_a_child(lambda: work(Sweep(tmp_path, config())))
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    with monkeypatch.context() as patch:
        patch.setattr(optuna.storages.RetryHeartbeatStaleTrialCallback, "__call__", die)
        child = in_a_child(lambda: work(Sweep(tmp_path, config())))
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    found = sweep(tmp_path)
    assert sorted(work(found)) == [0, 1, 2, 3]
    assert states(found) == {"complete": 4}


def test_many_processes_try_each_trial_once(tmp_path):
    sweep(tmp_path, 9)

    def run(attempt):
        with (tmp_path / "log").open("a") as log:
            log.write(f"{attempt.number}\n")
        time.sleep(0.05)
        return value_of(attempt)

    children = [in_a_child(lambda: work(Sweep(tmp_path, config(9)), run)) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == [*range(9)]
    assert states(sweep(tmp_path, 9)) == {"complete": 9}


def test_who_waits_takes_over_what_is_killed(tmp_path):
    sweep(tmp_path, 1)

    def stay(attempt):
        (tmp_path / "begun").touch()
        time.sleep(60)

    child = in_a_child(lambda: work(Sweep(tmp_path, config(1)), stay))
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    looks = []

    def is_over():
        looks.append(1)
        if len(looks) == 2:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        return False

    assert work(sweep(tmp_path, 1), is_over=is_over) == [0]
    assert len(looks) > 2


def test_a_process_that_was_stopped_lets_go(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "_HEARTBEAT", 1)
    monkeypatch.setattr(study, "_GRACE", 2)
    found = sweep(tmp_path, 1)

    def slow(attempt):
        (tmp_path / "begun").touch()
        for part in range(200):
            if attempt.report(part, 0.0):
                (tmp_path / "end").write_text(f"{attempt.lost}")
                return None
            time.sleep(0.1)
        return 0.0

    child = in_a_child(lambda: work(Sweep(tmp_path, config(1)), slow, is_over=(tmp_path / "end").exists))
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    time.sleep(0.3)
    os.kill(child, signal.SIGSTOP)
    failed = lambda: [trial.state.name for trial in found.trials()] == ["FAIL"]  # noqa: E731
    deadline = time.monotonic() + 60

    def is_over():
        assert time.monotonic() < deadline
        if failed() and not (tmp_path / "woken").exists():
            # Its trial isn't tried by anybody else as long as it is there.
            assert not found._settle()[0]
            (tmp_path / "woken").touch()
            os.kill(child, signal.SIGCONT)
        return False

    assert work(found, is_over=is_over) == [0]
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "end").read_text() == "True"
    [row] = rows(found)
    assert (row.state, row.attempts) == ("complete", 2)
    assert row.value > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pruner": {"MedianPruner": {"n_warmup": 1}}}, "MedianPruner: did you mean n_warmup_steps?"),
        ({"pruner": {"PercentilePruner": {}}}, "sweep.pruner.PercentilePruner: .*percentile"),
        (
            {"sampler": {"TPESampler": {"n_startups": 1}}},
            "TPESampler.n_startups is not an option",
        ),
    ],
)
def test_pruners_and_samplers_that_cannot_be(changes, message, tmp_path):
    with pytest.raises(HparamsError, match=message):
        sweep(tmp_path, **changes)


def test_what_mattered(tmp_path):
    found = sweep(tmp_path, 8, sampler={"RandomSampler": {}})
    assert importances(found) == {}
    work(found)
    shares = importances(found)
    assert next(iter(shares)) == "optimizer_config.lr"
    assert sum(shares.values()) == pytest.approx(1)


def test_the_table_is_a_file(tmp_path):
    found = sweep(tmp_path, 2, seeds=[4, 6])

    def run(attempt):
        if attempt.number == 1:
            raise TrialError('a, "b"')
        for seed in (4, 6):
            attempt.keep(seed, seed / 2)
        return 2.5

    work(found, run)
    write_table(rows(found), found.config, tmp_path / "trials.csv")
    header, first, second = (tmp_path / "trials.csv").read_text().splitlines()
    assert header.startswith("trial,state,returns/mean,seed 4,seed 6,optimizer_config.lr,")
    assert first.startswith("0,complete,2.5,2.0,3.0,0.")
    assert second.endswith(',1,"a, ""b"""')


def test_the_spread_over_seeds():
    assert spread([1.0, 3.0]) == pytest.approx(2**0.5)
    assert spread([1.0]) != spread([1.0])
