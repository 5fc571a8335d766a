"""What a trainer tells of its training."""

import matplotlib.image
import pytest

from rlstack import RecurrentAlgorithm, Trainer
from rlstack.common.errors import RunDirError
from rlstack.conditions import HitsUpperBound, TimesOut
from rlstack.env import DiscreteDummyEnv

CONFIG = {"num_envs": 4, "horizon": 8, "device": "cpu", "engine": "eager", "model_config": {"hiddens": [8]}}
SAID = """\
Trainer(
  Algorithm(
    DiscreteDummyEnv: 4 environments, horizon 8, reset every 8 steps
    DiscreteMLP with {size} parameters, actions Categorical
    eager on cpu
  )
  {updates} updates, {steps} environment steps; {where}
  until {until}
)"""


def make(run_dir=None, **options):
    return Trainer(DiscreteDummyEnv, algorithm_config=CONFIG, run_dir=run_dir, track=False, **options)


def test_what_is_shown_of_a_trainer(tmp_path):
    trainer = make(tmp_path / "run", stop_conditions=[HitsUpperBound("algorithm/steps", 2), TimesOut(60)])
    size = sum(parameter.numel() for parameter in trainer.algorithm.policy.parameters())
    until = "Or(HitsUpperBound(key='algorithm/steps', bound=2), TimesOut(seconds=60))"
    said = {"size": size, "where": f"in {tmp_path / 'run'}", "until": until}
    assert repr(trainer) == SAID.format(updates=0, steps=0, **said)
    trainer.run()
    assert repr(trainer) == SAID.format(updates=2, steps=64, **said)
    trainer.close()


def test_what_is_shown_where_nothing_is_kept_and_nothing_ends_it():
    said = repr(make()).splitlines()
    assert said[-3:] == ["  0 updates, 0 environment steps; nothing is kept", "  until it is stopped", ")"]


def test_what_is_shown_of_an_algorithm():
    algorithm = RecurrentAlgorithm(
        DiscreteDummyEnv, num_envs=2048, horizon=4, horizons_per_env_reset=-1, device="cpu"
    )
    first, second, *_ = repr(algorithm).splitlines()
    assert first == "RecurrentAlgorithm("
    assert second == "  DiscreteDummyEnv: 2,048 environments, horizon 4, reset once"


def test_it_draws_its_run(tmp_path):
    with make(tmp_path / "run") as trainer:
        with pytest.raises(RunDirError, match="nothing to draw before the first update"):
            trainer.plot()
        trainer.run(stop_conditions=[HitsUpperBound("algorithm/steps", 3)])
        assert trainer.plot() == tmp_path / "run" / "learning_curve.png"
        picture = matplotlib.image.imread(trainer.plot())
        assert picture.min() < picture.max()
        assert trainer.plot(tmp_path / "curve.svg", title="mine") == tmp_path / "curve.svg"
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_without_a_run_directory_there_is_nothing_to_draw():
    with pytest.raises(RunDirError, match="give the trainer a run_dir"):
        make().plot()


def test_progress_is_shown_when_asked_for(capsys):
    trainer = make()
    stop = [HitsUpperBound("algorithm/steps", 2)]
    stats = trainer.run(stop_conditions=stop, progress=True)
    assert stats["algorithm/steps"] == 2
    said = capsys.readouterr().out
    assert said.startswith("DiscreteDummyEnv  update 2  64 steps  ")
    trainer.run(stop_conditions=[HitsUpperBound("algorithm/steps", 4)])
    assert capsys.readouterr().out == ""
