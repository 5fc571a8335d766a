"""Who may write into a run directory: one process, and in it one trainer, the last one that asked."""

import gc
import os
import shutil
import sys
import threading

import pytest

from rlstack import Trainer
from rlstack.common.errors import HparamsError, RunDirError
from rlstack.conditions import HitsUpperBound
from rlstack.env import DiscreteDummyEnv
from rlstack.runs import checkpoint
from rlstack.runs.run_dir import locked
from rlstack.tracking.journal import JOURNAL, read_rows

from ..helpers import SMALL, parameters

CONFIG = {"num_envs": 4, "horizon": 4, "device": "cpu", "seed": 0, "model_config": SMALL}


def make(run_dir, env_cls=DiscreteDummyEnv, **options):
    return Trainer(env_cls, algorithm_config=CONFIG, run_dir=run_dir, track=False, **options)


def steps_in(run_dir):
    return [row.step for row in read_rows(run_dir / JOURNAL)]


class TestTakingOver:
    def test_a_trainer_that_has_learned_nothing_makes_way(self, tmp_path):
        old = make(tmp_path / "run")
        new = make(tmp_path / "run")
        new.step()
        for use in (old.step, old.run, old.save, lambda: next(old.updates())):
            with pytest.raises(RunDirError, match="was taken over by another trainer of this process"):
                use()
        old.close()
        new.step()
        new.close()
        assert steps_in(tmp_path / "run") == [16, 32]

    def test_a_new_run_does_not_take_the_place_of_what_was_learned(self, tmp_path):
        old = make(tmp_path / "run")
        old.step()
        with pytest.raises(RunDirError, match=r"at update 1: use Trainer\.resume"):
            make(tmp_path / "run")
        old.step()
        old.close()

    def test_resuming_takes_over_with_nothing_lost(self, tmp_path):
        old = make(tmp_path / "run")
        for _ in range(3):
            old.step()
        new = Trainer.resume(tmp_path / "run", track=False)
        assert new.steps == 3
        assert (parameters(new.algorithm) == parameters(old.algorithm)).all()
        with pytest.raises(RunDirError, match="taken over"):
            old.load(checkpoint.numbered(tmp_path / "run" / "checkpoints")[0])
        new.step()
        new.close()
        assert steps_in(tmp_path / "run") == [16, 32, 48, 64]
        # The old one can still be looked at, and saved elsewhere.
        assert old.eval()
        assert old.save(tmp_path / "other").name == "ckpt-000000003"

    def test_a_cell_may_be_run_again_and_again(self, tmp_path):
        trainer = make(tmp_path / "run")
        trainer.run(stop_conditions=[HitsUpperBound("algorithm/steps", 2)])
        for number in range(3, 6):
            trainer = Trainer.resume(tmp_path / "run", track=False)
            trainer.run(stop_conditions=[HitsUpperBound("algorithm/steps", number)])
            assert trainer.steps == number
        trainer.close()

    def test_after_an_error_whose_traceback_is_kept(self, tmp_path):
        class Stops(DiscreteDummyEnv):
            def step(self, action):
                self.count = getattr(self, "count", 0) + 1
                if self.count == 10:
                    raise RuntimeError("stuck")
                return super().step(action)

        def cell():
            trainer = make(tmp_path / "run", Stops)
            for _ in trainer.updates():
                pass

        with pytest.raises(ValueError, match="stuck") as kept:
            cell()
        trainer = Trainer.resume(tmp_path / "run", env_cls=DiscreteDummyEnv, track=False)
        assert kept
        assert trainer.steps == 2
        trainer.close()

    def test_after_an_error_in_the_loop_around_it(self, tmp_path):
        def cell(trainer):
            for stats in trainer.updates():
                if stats["algorithm/steps"] == 2:
                    raise ZeroDivisionError

        old = make(tmp_path / "run")
        with pytest.raises(ZeroDivisionError) as kept:
            cell(old)
        with Trainer.resume(tmp_path / "run", track=False) as trainer:
            assert kept
            assert trainer.steps == 2

    def test_half_an_update_is_not_saved(self, tmp_path, monkeypatch):
        old = make(tmp_path / "run", checkpoint_config={"every_updates": 1})
        old.step()
        learner = old.algorithm.learner

        def summary(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr(learner, "summary", summary)
        with pytest.raises(KeyboardInterrupt):
            old.step()
        before = parameters(old.algorithm)
        with Trainer.resume(tmp_path / "run", track=False) as new:
            assert new.steps == 1
            assert not (parameters(new.algorithm) == before).all()

    def test_what_can_not_be_saved_stays_unless_it_is_given_up(self, tmp_path, monkeypatch):
        old = make(tmp_path / "run", checkpoint_config={"every_updates": 2})
        for _ in range(3):
            old.step()

        def full(*args):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "write", full)
            with pytest.raises(RunDirError, match=r"can't save its update 3 \(OSError.*No space.*close\(\)"):
                Trainer.resume(tmp_path / "run", track=False)
            old.step()
            old.close()
        with Trainer.resume(tmp_path / "run", track=False) as new:
            assert new.steps == 2

    @pytest.mark.parametrize("used", [True, False])
    def test_a_trainer_nobody_can_reach_any_more(self, tmp_path, used):
        trainer = make(tmp_path / "run")
        if used:
            trainer.step()
            trainer.save()
        trainer.me = trainer
        gc.disable()
        try:
            del trainer
            trainer = Trainer.resume(tmp_path / "run", track=False) if used else make(tmp_path / "run")
        finally:
            gc.enable()
        assert trainer.steps == used
        trainer.step()
        trainer.close()
        assert steps_in(tmp_path / "run") == ([16, 32] if used else [16])

    def test_what_could_not_be_made_keeps_nothing(self, tmp_path):
        make(tmp_path / "run").close()
        for _ in range(2):
            with pytest.raises(HparamsError, match="keep"):
                make(tmp_path / "run", checkpoint_config={"keep": 0})
        with pytest.raises(ValueError, match="no sound checkpoint") as kept:
            Trainer.resume(tmp_path / "run", track=False)
        make(tmp_path / "run").close()
        assert kept

    def test_a_directory_that_was_removed(self, tmp_path):
        old = make(tmp_path / "run")
        old.step()
        shutil.rmtree(tmp_path / "run")
        new = make(tmp_path / "run")
        new.step()
        with pytest.raises(RunDirError, match="was removed, and is another trainer's now"):
            old.step()
        new.step()
        old.close()
        new.close()
        assert steps_in(tmp_path / "run") == [16, 32]


class TestAtWork:
    def test_a_suspended_loop_is_not_taken_over(self, tmp_path):
        old = make(tmp_path / "run")
        loop = old.updates()
        next(loop)
        for other in (make, lambda path: Trainer.resume(path, track=False)):
            with pytest.raises(RunDirError, match="in the middle of run, updates or step"):
                other(tmp_path / "run")
        assert next(loop)["algorithm/steps"] == 2
        loop.close()
        with Trainer.resume(tmp_path / "run", track=False) as new:
            assert new.steps == 2

    def test_but_it_may_be_closed(self, tmp_path):
        old = make(tmp_path / "run", checkpoint_config={"every_updates": 1})
        loop = old.updates()
        next(loop)
        old.close()
        with Trainer.resume(tmp_path / "run", track=False) as new:
            with pytest.raises(RunDirError, match="was closed by this trainer"):
                next(loop)
            new.step()
        assert steps_in(tmp_path / "run") == [16, 32]

    def test_nor_is_a_run_in_another_thread(self, tmp_path):
        begun, go_on = threading.Event(), threading.Event()

        class Waits(DiscreteDummyEnv):
            def step(self, action):
                begun.set()
                go_on.wait(60)
                return super().step(action)

        old = make(tmp_path / "run", Waits)
        thread = threading.Thread(target=old.step)
        thread.start()
        begun.wait(60)
        with pytest.raises(RunDirError, match="in the middle of run"):
            make(tmp_path / "run")
        go_on.set()
        thread.join(60)
        assert old.steps == 1
        old.close()

    def test_commands_do_not_take_over(self, tmp_path):
        trainer = make(tmp_path / "run")
        refused = pytest.raises(RunDirError, match=r"another trainer of this process: close\(\)")
        with refused, locked(tmp_path / "run"):
            pass
        trainer.close()
        with locked(tmp_path / "run"):
            pass


class TestClosing:
    def test_in_a_with_block(self, tmp_path):
        with make(tmp_path / "run") as trainer:
            trainer.step()
            trainer.save()
        with pytest.raises(RunDirError, match=r"was closed by this trainer: go on with Trainer\.resume"):
            trainer.step()
        Trainer.resume(tmp_path / "run", track=False).close()

    @pytest.mark.parametrize(
        ("fault", "status"),
        [(None, None), (ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED")],
    )
    def test_mlflow_is_told_how_the_block_ended(self, fault, status, monkeypatch):
        trainer, said = make(None), []
        monkeypatch.setattr(trainer.tracker, "close", said.append)
        try:
            with trainer:
                if fault is not None:
                    raise fault
        except (ZeroDivisionError, KeyboardInterrupt):
            pass
        assert said == [status]

    def test_one_without_a_directory_goes_on(self):
        trainer = make(None)
        trainer.step()
        trainer.close()
        assert trainer.step()["algorithm/steps"] == 2


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize("kept", [True, False])
def test_a_forked_process_leaves_the_trainer_alone(tmp_path, kept):
    trainer = make(tmp_path / "run" if kept else None)
    trainer.step()
    loop = trainer.updates()
    next(loop)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        said = []
        uses = [trainer.step, trainer.run, lambda: next(loop)]
        if kept:
            uses += [trainer.save, lambda: trainer.load(tmp_path / "none"), lambda: make(tmp_path / "run")]
        for use in uses:
            try:
                use()
                said.append("went on")
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
        trainer.close()
        loop.close()
        del trainer, loop
        os.write(write, "\n".join(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read().splitlines()
    os.waitpid(child, 0)
    refused = f"RuntimeError: this trainer is that of process {os.getpid()}"
    assert [line.startswith(refused) for line in said[:3]] == [True] * 3, said
    if kept:
        assert said[3].startswith(refused)
        assert said[4].startswith("CheckpointError")
        assert said[5].endswith("is in use by another trainer")
    # The parent goes on, with the directory still its own.
    next(loop)
    loop.close()
    trainer.step()
    assert trainer.steps == 4
    trainer.close()
    if kept:
        assert steps_in(tmp_path / "run") == [16, 32, 48, 64]
