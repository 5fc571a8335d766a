"""Loops over updates: what is added to statistics, and `done`."""

import contextlib
import gc
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from rlstack import RlstackError, Trainer
from rlstack.conditions import Condition, HitsLowerBound, HitsUpperBound, Plateaus, StopsIncreasing
from rlstack.env import DiscreteDummyEnv
from tests.helpers import SMALL, Counting, parameters

CONFIG = {"num_envs": 4, "horizon": 4, "device": "cpu", "seed": 0, "model_config": SMALL}
WRONG = r"stats\['my/score'\] is a tensor of shape \[2\]"


SUSPENDED = """
from rlstack import Trainer
from rlstack.env import DiscreteDummyEnv
config = {"num_envs": 4, "horizon": 4, "device": "cpu", "model_config": {"hiddens": [8]}}
loop = Trainer(DiscreteDummyEnv, algorithm_config=config, run_dir="run").updates()
next(loop)
next(loop)["my/score"] = 4.0
"""


def make(run_dir=None, env_cls=DiscreteDummyEnv, *, config=None, **options):
    return Trainer(
        env_cls, algorithm_config={**CONFIG, **(config or {})}, run_dir=run_dir, track=False, **options
    )


def after(updates):
    return HitsUpperBound("algorithm/steps", updates)


def rows(run_dir):
    return [json.loads(line)["metrics"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def scores(run_dir):
    return [row.get("my/score") for row in rows(run_dir)]


def stats_of(run_dir, name):
    checkpoints = run_dir / "checkpoints"
    place = checkpoints / (checkpoints / name).read_text().strip() if name in ("best", "latest") else None
    return json.loads(((place or checkpoints / name) / "manifest.json").read_text())["info"]["stats"]


class TestEntries:
    def test_they_reach_records_checkpoints_and_conditions(self, tmp_path):
        options = {"every_updates": 1, "best": "my/score"}
        trainer = make(tmp_path, checkpoint_config=options)
        said = [1.0, 5.0, 2.0, 9.0]
        with trainer:
            for stats in trainer.updates(stop_conditions=[HitsUpperBound("my/score", 9)]):
                stats["my/score"] = said[trainer.steps - 1]
        assert trainer.steps == 4
        assert scores(tmp_path) == said
        assert stats_of(tmp_path, "best")["my/score"] == 9
        assert stats_of(tmp_path, "latest")["my/score"] == 9

    def test_the_best_checkpoint_is_that_of_the_entry(self, tmp_path):
        with make(tmp_path, checkpoint_config={"every_updates": 1, "best": "my/score"}) as trainer:
            for stats in trainer.updates(stop_conditions=[after(4)]):
                stats["my/score"] = float(trainer.steps == 2)
        assert stats_of(tmp_path, "best")["algorithm/steps"] == 2

    def test_mlflow_has_them(self, tracked):
        trainer = Trainer(DiscreteDummyEnv, algorithm_config=CONFIG)
        for stats in trainer.updates(stop_conditions=[after(3)]):
            stats["my/score"] = 2 * trainer.steps
        history = tracked.get_metric_history(trainer.tracker.run_id, "my/score")
        assert [(m.step, m.value) for m in history] == [(16, 2), (32, 4), (48, 6)]
        assert tracked.get_run(trainer.tracker.run_id).info.status == "FINISHED"

    @pytest.mark.parametrize("value", [3, np.float64(3), np.int32(3), torch.tensor(3), torch.tensor(3.0)])
    def test_numbers_of_any_kind(self, value, tmp_path):
        with make(tmp_path) as trainer:
            for stats in trainer.updates(stop_conditions=[after(1)]):
                stats["my/score"] = value
        assert scores(tmp_path) == [3.0]
        assert type(stats["my/score"]) is float

    @pytest.mark.parametrize(
        ("entry", "words"),
        [
            ({"my/score": torch.zeros(2)}, WRONG),
            ({"my/score": None}, r"stats\['my/score'\] is None, expected a number"),
            ({"my score?": 1.0}, r"stats\['my score\?'\] is no name that MLflow takes"),
            ({7: 1.0}, r"stats\[7\] is of type int, expected str"),
        ],
    )
    def test_what_is_no_number_is_named_and_the_update_kept(self, entry, words, tmp_path):
        def train():
            for stats in trainer.updates():
                stats["other"] = 1.0
                stats.update(entry)

        with make(tmp_path) as trainer:
            with pytest.raises(RlstackError, match=words) as error:
                train()
            assert isinstance(error.value, ValueError)
            assert [row["other"] for row in rows(tmp_path)] == [1.0]
            assert stats_of(tmp_path, "latest")["other"] == 1.0
            # It goes on.
            assert trainer.step()["algorithm/steps"] == 2
        assert len(rows(tmp_path)) == 2

    def test_nan_is_none_for_now(self, tmp_path):
        condition = StopsIncreasing("my/score", patience=2)
        with make(tmp_path, stop_conditions=[condition]) as trainer:
            for stats in trainer.updates():
                stats["my/score"] = 1.0 if trainer.steps % 3 == 1 else math.nan
        # 1 at updates 1, 4 and 7: twice in a row no better.
        assert trainer.steps == 7
        assert scores(tmp_path) == [1.0, None, None, 1.0, None, None, 1.0]

    def test_evaluations_are_there_already(self):
        trainer = make()
        for stats in trainer.updates(steps_per_eval=2, stop_conditions=[HitsUpperBound("my/score", 1)]):
            stats["my/score"] = float("eval/returns/mean" in stats)
        assert trainer.steps == 2


class TestLeaving:
    @pytest.mark.parametrize("way", ["break", "raise", "close", "throw", "Ctrl-C", "SIGTERM", "delete"])
    def test_the_last_update_is_recorded_whatever_ends_the_loop(self, way, tmp_path):
        trainer = make(tmp_path)
        with contextlib.suppress(ZeroDivisionError):
            loop = trainer.updates()
            for stats in loop:
                stats["my/score"] = float(trainer.steps)
                if trainer.steps < 3:
                    continue
                if way == "break":
                    break
                if way == "raise":
                    raise ZeroDivisionError
                if way == "close":
                    loop.close()
                if way == "throw":
                    loop.throw(ZeroDivisionError())
                if way == "Ctrl-C":
                    os.kill(os.getpid(), signal.SIGINT)
                if way == "SIGTERM":
                    os.kill(os.getpid(), signal.SIGTERM)
                if way == "delete":
                    break
        del loop
        gc.collect()
        assert trainer.steps == 3
        assert scores(tmp_path) == [1, 2, 3]
        if way != "throw":
            assert stats_of(tmp_path, "latest")["my/score"] == 3
        assert trainer.interrupted == {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}.get(way)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        trainer.close()
        assert scores(tmp_path) == [1, 2, 3]

    def test_a_second_ctrl_c_in_the_loop_is_the_callers(self, tmp_path):
        def train():
            for stats in trainer.updates():
                stats["my/score"] = 1.0
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

        trainer = make(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            train()
        assert scores(tmp_path) == [1]
        assert stats_of(tmp_path, "latest")["my/score"] == 1
        trainer.close()

    @pytest.mark.parametrize(
        ("way", "status"), [("break", "FINISHED"), ("on", "FINISHED"), ("stop", "KILLED")]
    )
    def test_mlflow_is_told_how_it_ended(self, way, status, monkeypatch):
        trainer, said = make(stop_conditions=[after(2)]), []
        monkeypatch.setattr(trainer.tracker, "close", said.append)
        for _ in trainer.updates():
            if way == "break":
                break
            if way == "stop":
                os.kill(os.getpid(), signal.SIGINT)
        assert said == [status]

    def test_a_signal_for_a_checkpoint_waits_for_the_entry(self, tmp_path):
        with make(tmp_path, checkpoint_config={"every_seconds": None}) as trainer:
            for stats in trainer.updates(stop_conditions=[after(3)]):
                if trainer.steps == 2:
                    os.kill(os.getpid(), signal.SIGUSR1)
                stats["my/score"] = float(trainer.steps)
        assert stats_of(tmp_path, "ckpt-000000002")["my/score"] == 2


class TestInTheLoop:
    def test_a_checkpoint_by_hand_has_the_entry_and_its_row(self, tmp_path):
        with make(tmp_path) as trainer:
            loop = trainer.updates()
            next(loop)["my/score"] = 4.0
            trainer.save()
            # As after a crash: nobody goes on with this loop.
            assert scores(tmp_path) == [4.0]
            assert stats_of(tmp_path, "latest")["my/score"] == 4.0
            loop.close()
            assert scores(tmp_path) == [4.0]

    def test_steps_between_are_recorded_in_their_order(self, tmp_path):
        with make(tmp_path) as trainer:
            for stats in trainer.updates(stop_conditions=[after(3)]):
                stats["my/score"] = float(trainer.steps)
                trainer.step()
        assert [row["algorithm/steps"] for row in rows(tmp_path)] == [1, 2, 3, 4]
        assert scores(tmp_path) == [1, None, 3, None]

    def test_closing_records_what_is_open(self, tmp_path):
        trainer = make(tmp_path, checkpoint_config={"every_updates": 1})
        loop = trainer.updates()
        next(loop)["my/score"] = 4.0
        trainer.close()
        assert scores(tmp_path) == [4.0]
        assert stats_of(tmp_path, "latest")["my/score"] == 4.0
        loop.close()
        assert scores(tmp_path) == [4.0]

    def test_a_process_that_ends_in_it_has_recorded_all(self, tracked, tmp_path):
        command = [sys.executable, "-c", SUSPENDED]
        done = subprocess.run(command, timeout=120, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert scores(tmp_path / "run") == [None, 4.0]
        assert stats_of(tmp_path / "run", "latest")["my/score"] == 4.0
        [run] = tracked.search_runs(["0"], order_by=["attributes.start_time DESC"], max_results=1)
        assert [m.value for m in tracked.get_metric_history(run.info.run_id, "my/score")] == [4.0]
        assert run.info.status == "FINISHED"

    def test_the_first_run_that_the_loop_begins_is_its_own(self, tracked):
        import mlflow

        trainer = Trainer(DiscreteDummyEnv, algorithm_config=CONFIG)
        for _ in trainer.updates(stop_conditions=[after(1)]):
            with mlflow.start_run() as own:
                pass
        assert trainer.tracker.run_id != own.info.run_id

    def test_loading_in_the_loop_takes_its_row_back(self, tmp_path):
        with make(tmp_path / "other") as other:
            other.step()
            where = other.save()
        with make(tmp_path / "run") as trainer:
            for stats in trainer.updates(stop_conditions=[after(4)]):
                stats["my/score"] = 1.0
                if trainer.steps == 3 and trainer.collects == 3:
                    trainer.load(where)
                    break
        assert [row["algorithm/steps"] for row in rows(tmp_path / "run")] == [1]

    def test_random_numbers_drawn_in_it_are_part_of_the_run(self, tmp_path):
        def train(trainer, until):
            for stats in trainer.updates(stop_conditions=[after(until)]):
                stats["my/score"] = torch.rand(())
            return parameters(trainer.algorithm)

        with make(tmp_path / "whole") as trainer:
            whole = train(trainer, 6)
        with make(tmp_path / "run", checkpoint_config={"every_updates": 2}) as trainer:
            train(trainer, 4)
        with Trainer.resume(tmp_path / "run", track=False) as trainer:
            assert torch.equal(train(trainer, 6), whole)
        assert scores(tmp_path / "run") == scores(tmp_path / "whole")


class Asks(Condition):
    """Counts the updates it is asked about."""

    def __init__(self):
        self.asked = []

    def __call__(self, stats):
        self.asked.append(stats["algorithm/steps"])
        return len(self.asked) >= 3


class TestDone:
    def test_a_loop_of_steps(self):
        trainer = make(stop_conditions=[after(3)])
        said = []
        while not trainer.done:
            said.append(trainer.step()["algorithm/steps"])
        assert said == [1, 2, 3]

    def test_conditions_are_asked_about_an_update_once(self):
        condition = Asks()
        trainer = make(stop_conditions=[condition])
        assert not trainer.done
        for _ in range(2):
            trainer.step()
            assert [trainer.done for _ in range(3)] == [False] * 3
        trainer.step()
        assert trainer.done
        assert condition.asked == [1, 2, 3]

    def test_it_is_so_after_a_run(self):
        condition = Asks()
        trainer = make(stop_conditions=[condition])
        trainer.run()
        assert trainer.done
        assert condition.asked == [1, 2, 3]
        trainer.step()
        assert trainer.done

    def test_without_conditions_it_never_is(self):
        trainer = make()
        trainer.step()
        assert trainer.done is False

    def test_what_is_added_to_its_statistics_counts(self):
        trainer = make(stop_conditions=[HitsUpperBound("my/score", 2)])
        while not trainer.done:
            stats = trainer.step()
            stats["my/score"] = trainer.steps
        assert trainer.steps == 2

    def test_a_resumed_run_that_was_over_is(self, tmp_path):
        with make(tmp_path, stop_conditions=[after(2)]) as trainer:
            trainer.run()
        with Trainer.resume(tmp_path, track=False, stop_conditions=[after(2)]) as trainer:
            assert trainer.done
        with Trainer.resume(tmp_path, track=False, stop_conditions=[after(3)]) as trainer:
            assert not trainer.done

    def test_an_unknown_statistic_is_named(self):
        trainer = make(stop_conditions=[HitsUpperBound("retruns/mean", 2)])
        trainer.step()
        with pytest.raises(ValueError, match="retruns/mean is not a statistic: did you mean returns/mean"):
            _ = trainer.done


class TestStatisticsThatMayBeMissing:
    @pytest.mark.parametrize("loop", ["updates", "step"])
    def test_a_resumed_run_may_have_new_ones(self, loop, tmp_path):
        with make(tmp_path) as trainer:
            trainer.step()
            trainer.save()
        conditions = [HitsUpperBound("my/score", 3)]
        with Trainer.resume(tmp_path, track=False, stop_conditions=conditions) as trainer:
            if loop == "updates":
                for stats in trainer.updates():
                    stats["my/score"] = float(trainer.steps)
            while not trainer.done:
                stats = trainer.step()
                stats["my/score"] = float(trainer.steps)
            assert trainer.steps == 3

    def test_but_none_that_never_come(self, tmp_path):
        with make(tmp_path) as trainer:
            trainer.step()
            trainer.save()
        with Trainer.resume(tmp_path, track=False) as trainer:
            with pytest.raises(ValueError, match="my/score is not a statistic"):
                trainer.run(stop_conditions=[HitsUpperBound("my/score", 3)])
            assert trainer.steps == 2

    def test_what_was_no_number_is_none_in_a_resumed_run(self, tmp_path):
        with make(tmp_path) as trainer:
            for stats in trainer.updates(stop_conditions=[after(1)]):
                stats["my/score"] = math.nan
        conditions = [HitsUpperBound("my/score", 3), after(1)]
        with Trainer.resume(tmp_path, track=False, stop_conditions=conditions) as trainer:
            assert trainer.run() == {}

    @pytest.mark.parametrize("key", ["returns/mean", "lengths/mean"])
    def test_conditions_skip_updates_in_which_no_episode_ended(self, key, tmp_path):
        # The shortest episode of Counting has three steps, the longest six.
        condition = HitsUpperBound(f"episodes/{key}", 3)
        config = {"horizon": 2, "horizons_per_env_reset": -1}
        with make(tmp_path, Counting, config=config, stop_conditions=[condition]) as trainer:
            stats = trainer.run()
        assert stats["algorithm/steps"] == 2
        assert stats["episodes/count"] == 2
        assert [f"episodes/{key}" in row for row in rows(tmp_path)] == [False, True]

    def test_streaks_go_on_over_them(self):
        config = {"horizon": 1, "num_envs": 1, "horizons_per_env_reset": -1}
        trainer = make(None, Counting, config=config)
        stats = trainer.run(stop_conditions=[Plateaus("episodes/returns/mean", patience=2)])
        # An episode every three steps, each with the return 3.
        assert stats["algorithm/steps"] == 9

    def test_the_best_checkpoint_is_one_with_an_episode(self, tmp_path):
        options = {"every_updates": 1, "best": "episodes/returns/mean"}
        config = {"horizon": 1, "num_envs": 1, "horizons_per_env_reset": -1}
        with make(tmp_path, Counting, config=config, checkpoint_config=options) as trainer:
            trainer.run(stop_conditions=[after(5)])
        assert stats_of(tmp_path, "best")["algorithm/steps"] == 3

    @pytest.mark.parametrize(
        ("env_cls", "key"),
        [
            (DiscreteDummyEnv, "episodes/returns/mean"),
            (Counting, "episodes/return/mean"),
            (Counting, "episodes/lengths/std"),
        ],
    )
    def test_there_are_no_others(self, env_cls, key):
        with pytest.raises(ValueError, match=f"{re.escape(key)} is not a statistic"):
            make(None, env_cls).run(stop_conditions=[HitsLowerBound(key, -1e9), after(2)])


def test_nothing_is_said_of_ordinary_loops(caplog, tmp_path):
    caplog.set_level(logging.WARNING)
    with make(tmp_path) as trainer:
        for stats in trainer.updates(stop_conditions=[after(2)]):
            stats["my/score"] = 1
    assert caplog.records == []
