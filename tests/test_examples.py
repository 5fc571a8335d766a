"""The examples run, and show what they say they show."""

import json
import runpy
from pathlib import Path

import pytest
import torch

from rlstack.specs import Composite, Unbounded

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


SMALL = {
    "num_envs": 16,
    "horizon": 4,
    "horizons_per_env_reset": -1,
    "sgd_minibatch_size": None,
    "seed": 0,
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) <= 150


def test_action_mask(capsys):
    path = EXAMPLES[0].with_name("action_mask.py")
    assert len(path.read_text().splitlines()) <= 40
    names = runpy.run_path(str(path), run_name="__main__")
    waits = float(capsys.readouterr().out.split()[3].rstrip(","))
    # The best order's expected sum is 5, that of any order 7.5.
    assert 4.8 < waits < 5.3
    jobs = names["algo"].collector.buffer.drawn.squeeze(-1)
    assert torch.equal(jobs.sort(0).values, torch.arange(6).unsqueeze(1).expand(6, 256))


@pytest.mark.slow
def test_hidden_velocity(capsys):
    names = runpy.run_path(str(EXAMPLES[0].with_name("hidden_velocity.py")))
    blind, sighted = names["main"](30)
    # Blind policies overshoot for good; 30 updates are enough to see the difference.
    assert sighted < 0.6 * blind
    assert "Mean distance to the target" in capsys.readouterr().out


def test_asymmetric_critic(monkeypatch, tmp_path):
    path = EXAMPLES[0].with_name("asymmetric_critic.py").resolve()
    assert len(path.read_text().splitlines()) <= 40
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(path))
    assert names["algo"].policy.acting_spec == Composite(place=Unbounded((1,)))
    assert names["step"].values is None
    # Who does nothing drifts 10 away.
    assert names["place"].abs().max() < 0.5


def test_quadrotor_is_an_environment_that_flies():
    from rlstack.env import check_env

    quadrotor = runpy.run_path(str(EXAMPLES[0].with_name("quadrotor.py")))["Quadrotor"]
    assert [finding.said for finding in check_env(quadrotor).findings if finding.level != "ok"] == []
    env = quadrotor(4)
    env.reset()
    env.position, env.velocity, env.spin = torch.zeros(3, 4, 3)
    for _ in range(10):
        # A quarter of the weight each keeps it where it is.
        assert torch.equal(env.step(torch.ones(4, 4))["rewards"], torch.ones(4, 1))
    more = torch.tensor(
        [[1.5, 1.5, 1.5, 1.5], [0.5, 0.5, 0.5, 0.5], [1.5, 1.5, 0.5, 0.5], [0.5, 1.5, 1.5, 0.5]]
    )
    for _ in range(5):
        out = env.step(more)
    axes = env.rotation
    assert torch.allclose(axes.mT @ axes, torch.eye(3).expand(4, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(axes), torch.ones(4))
    assert env.position[0, 2] > 0 > env.position[1, 2]
    # Those with more thrust on one side roll and pitch, and slide to where their tops point.
    assert axes[2, 1, 2] < -0.1 < axes[3, 0, 2]
    assert env.position[2, 1] < 0 < env.position[3, 0]
    assert (out["rewards"] < 1).all()


def test_quadrotor(capsys):
    quadrotor = runpy.run_path(str(EXAMPLES[0].with_name("quadrotor.py")))
    results = quadrotor["main"](2, num_envs=16, horizon=4, sgd_minibatch_size=None)
    assert list(results) == [1, 8]
    assert all(0 < reward < 1 for both in results.values() for reward in both)
    printed = capsys.readouterr().out
    assert printed.count("monitors/bootstrap_gap") == 4
    assert printed.count("over 300 steps") == 2


@pytest.mark.slow
def test_quadrotor_hovers_if_it_is_not_reset_after_every_horizon(caplog):
    main = runpy.run_path(str(EXAMPLES[0].with_name("quadrotor.py")))["main"]
    results = main()
    assert results[1][1] < 0.2 < 0.8 < results[8][1]
    [said] = [entry.getMessage() for entry in caplog.records]
    assert "set horizons_per_env_reset=8" in said


@pytest.fixture
def beside(monkeypatch):
    """Let examples import each other, as where they are started."""
    monkeypatch.syspath_prepend(str(EXAMPLES[0].parent))
    return EXAMPLES[0].parent


@pytest.fixture
def curriculum(beside, monkeypatch, tracked):
    """Return what runs the example with a few quadrotors, and returns what it leaves."""
    monkeypatch.setattr("quadrotor.OPTIONS", SMALL)
    path = beside / "curriculum.py"
    assert len(path.read_text().splitlines()) <= 40
    return lambda name="__main__": runpy.run_path(str(path), run_name=name)


def test_curriculum(curriculum, monkeypatch, tmp_path, capsys):
    import quadrotor

    from rlstack import Trainer
    from rlstack.env import check_env

    def at_rest(env, **config):
        env.position, env.velocity, env.spin = torch.zeros(3, env.num_envs, 3)
        env.rotation = torch.eye(3).repeat(env.num_envs, 1, 1)
        return env._obs()

    checked = check_env(curriculum("curriculum")["Loaded"], config={"spread": 0.3})
    assert [finding.said for finding in checked.findings if finding.level == "fault"] == []
    # All are near enough, as no time passes: the range widens after each update.
    monkeypatch.setattr(quadrotor.Quadrotor, "reset", at_rest)
    monkeypatch.setattr(quadrotor, "STEP", 0.0)
    names = curriculum()
    loaded, trainer = names["Loaded"], names["trainer"]
    lines = (tmp_path / "curriculum" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line)["metrics"] for line in lines]
    assert [round(row["env/spread"], 4) for row in rows] == [round(0.05 * n, 4) for n in range(11)]
    assert [row["env/resets"] for row in rows] == [16, *[0] * 10]
    assert capsys.readouterr().out.count("100% near, masses 1 ±") == 11
    mass = trainer.algorithm.env.mass
    assert 0.05 < (mass - 1).abs().max() <= 0.5
    with Trainer.resume("curriculum", env_cls=loaded, track=False) as again:
        assert torch.equal(again.algorithm.env.mass, mass)
        stats = again.step()
        assert (stats["env/spread"], stats["env/resets"]) == (0.5, 0)


def test_curriculum_waits_until_it_is_mastered(curriculum, monkeypatch, capsys):
    from rlstack.conditions import HitsUpperBound

    few = lambda key, bound: HitsUpperBound("algorithm/steps", 3)  # noqa: E731
    monkeypatch.setattr("rlstack.conditions.HitsUpperBound", few)
    trainer = curriculum()["trainer"]
    assert trainer.steps == 3
    assert float(trainer.algorithm.env.spread) == 0
    assert capsys.readouterr().out.count("masses 1 ± 0.00") == 3


@pytest.mark.parametrize(("share", "updates"), [(0.0, 1), (1.01, 3)])
def test_success_rate(share, updates, beside, tracked, capsys):
    trainer = runpy.run_path(str(beside / "success_rate.py"))["main"](share, updates=3, **SMALL)
    assert trainer.steps == updates
    history = tracked.get_metric_history(trainer.tracker.run_id, "env/success")
    assert len(history) == updates
    assert all(0 <= entry.value <= 1 for entry in history)
    assert f"succeed after {updates} updates" in capsys.readouterr().out
