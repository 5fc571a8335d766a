"""What ranks say to each other, and how one is named that says nothing any more."""

import os
import signal

import pytest
import torch

from rlstack import Algorithm, EnvError, NonFiniteError, Trainer
from rlstack.common.errors import RankError
from rlstack.distributed.ranks import ALONE, join
from rlstack.env import CartPole
from rlstack.ppo.estimates import Moments, merged, moments
from rlstack.ppo.pooling import merge_stats
from rlstack.runs import checkpoint

from .processes import in_ranks

SMALL = {"num_envs": 8, "horizon": 4, "model_config": {"hiddens": [8]}, "device": "cpu", "seed": 0}


def test_a_process_without_a_launcher_is_alone(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert join() is ALONE
    assert (ALONE.many, ALONE.index, ALONE.count) == (False, 0, 1)
    assert Algorithm(CartPole, **SMALL).collector.pool is None


def test_moments_of_parts_are_those_of_the_whole():
    values, counted = (
        torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * 3 + 1e4,
        torch.ones(3, 50),
    )
    counted[2] = 0
    counted[0, 7:] = 0
    parts = [moments(row, keep.bool()) for row, keep in zip(values, counted, strict=True)]
    got = merged(Moments(*(torch.stack(column) for column in zip(*parts, strict=True))))
    assert [float(each) for each in got] == pytest.approx(
        [float(each) for each in moments(values, counted.bool())], rel=1e-12
    )


def test_statistics_count_as_what_they_are_of():
    reads = [
        {"rewards/mean": 1.0, "rewards/max": 2.0, "rewards/min": 0.0, "rewards/std": 0.0, "rows": 10.0},
        {"rewards/mean": 4.0, "rewards/max": 5.0, "rewards/min": 3.0, "rewards/std": 0.0, "rows": 30.0},
    ]
    for read, episodes in zip(reads, (0.0, 4.0), strict=True):
        length = float("nan") if not episodes else 9.0
        read |= {"episodes/count": episodes, "episodes/lengths/mean": length, "env/height": episodes}
    got = merge_stats(reads, 8)
    assert got["rewards/mean"] == 3.25
    assert got["rewards/std"] == pytest.approx((10 * 2.25**2 + 30 * 0.75**2) ** 0.5 / 40**0.5)
    assert (got["rewards/min"], got["rewards/max"]) == (0.0, 5.0)
    assert (got["episodes/count"], got["episodes/lengths/mean"], got["env/height"]) == (4.0, 9.0, 2.0)


def say(rank):
    ranks = join()
    words = {"rank": rank, "text": "x" * (rank * 20_000), "none": float("inf")}
    said = ranks.exchange("test", words, torch.arange(3.0) + rank)
    gradient, losses = torch.full((4,), float(rank)), torch.tensor([float(rank)])
    ranks.average([gradient, losses], torch.tensor(1.0 + 2 * rank))
    parameters = [torch.full((2, 2), float(rank)), torch.tensor([rank])]
    ranks.take_from_first(parameters)
    gathered = ranks.gather("test", torch.tensor([[rank, 2.0]]))
    return (
        [(each.words["rank"], len(each.words["text"]), each.numbers.tolist()) for each in said],
        gradient.tolist() + losses.tolist(),
        [each.flatten().tolist() for each in parameters],
        gathered.tolist(),
    )


def test_words_numbers_and_gradients_reach_all():
    results = in_ranks(say)
    said = [(0, 0, [0.0, 1.0, 2.0]), (1, 20_000, [1.0, 2.0, 3.0])]
    for result in results:
        assert isinstance(result, tuple), result
        assert result == (said, [0.75] * 5, [[0.0] * 4, [0.0]], [[[0.0, 2.0]], [[1.0, 2.0]]])


class Failing(CartPole):
    """Does on rank 1, in its third horizon, what `fault` says."""

    horizons, fault = 0, ""

    def reset(self, *, config=None):
        type(self).horizons += 1
        return super().reset(config=config)

    def step(self, action):
        out = super().step(action)
        if join().index == 1 and self.horizons == 3:
            match self.fault:
                case "raises":
                    raise OSError("no such simulation")
                case "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "nan":
                    out["rewards"] = out["rewards"] * float("nan")
        return out


def meet(rank, fault):
    """Return how an update that meets a fault of rank 1 ends on every rank."""
    Failing.horizons, Failing.fault = 0, fault
    algorithm = Algorithm(Failing, **SMALL)
    before = None
    try:
        for _ in range(4):
            algorithm.collect()
            if fault == "other parameters" and rank == 1 and Failing.horizons == 2:
                with torch.no_grad():
                    algorithm.learner.parameters[0][0] += 1
            if fault == "other calls" and rank == 1 and Failing.horizons == 2:
                algorithm.collect()
            algorithm.step()
            before = torch.cat([each.flatten() for each in algorithm.policy.parameters()]).tolist()
    except (RankError, EnvError, NonFiniteError) as error:
        if isinstance(error, NonFiniteError):
            # Nobody has learned from it, and all go on.
            algorithm.collect()
            algorithm.step()
            before = torch.cat([each.flatten() for each in algorithm.policy.parameters()]).tolist()
        return type(error).__name__, str(error), before
    return None


def test_a_rank_that_fails_is_quoted():
    first, second = in_ranks(meet, "raises")
    assert first[0] == "RankError"
    assert "rank 1 (host " in first[1]
    assert "failed after update 2: EnvError" in first[1]
    assert "no such simulation" in first[1]
    assert second[0] == "EnvError"


def test_a_rank_that_is_killed_is_named():
    first, second = in_ranks(meet, "killed")
    assert second == "the process has ended"
    assert first[0] == "RankError"
    assert "rank 1 (host " in first[1]
    assert "is dead or stopped" in first[1]
    assert "the last update that it told of was " in first[1]


def test_nobody_learns_from_a_horizon_that_is_not_sound_on_one_rank():
    first, second = in_ranks(meet, "nan")
    assert first[0] == second[0] == "NonFiniteError"
    assert first[1].startswith("on rank 1: ")
    assert first[2] == second[2]


def test_ranks_with_other_parameters_are_named():
    for result in in_ranks(meet, "other parameters"):
        assert result[0] == "RankError"
        assert "the parameters of rank 1 are not those of rank 0" in result[1]


def test_a_rank_that_makes_other_calls_is_named():
    for result in in_ranks(meet, "other calls"):
        assert result[0] == "RankError"
        assert "all ranks must make the same calls" in result[1]


def differ(rank):
    try:
        Algorithm(CartPole, **{**SMALL, "gamma": (0.9, 0.95)[rank]})
    except RankError as error:
        return str(error)
    return ""


def test_ranks_with_other_hyperparameters_are_named():
    assert in_ranks(differ) == [
        "gamma is 0.95 on rank 1 and 0.9 on rank 0: give all ranks the same",
        "gamma is 0.9 on rank 0 and 0.95 on rank 1: give all ranks the same",
    ]


def run(rank, directory, updates, resume=False):
    """Train for some updates in a run directory; return where that ended."""
    if resume:
        trainer = Trainer.resume(directory, track=False)
    else:
        config = {**SMALL, "normalize_observations": True, "horizons_per_env_reset": 3}
        trainer = Trainer(
            CartPole,
            algorithm_config=config,
            run_dir=directory,
            checkpoint_config={"every_updates": 1},
            track=False,
        )
    with trainer:
        while trainer.steps < updates:
            last = trainer.step()
        state = trainer.algorithm.state_dict()
        numbers = [*state["policy"].values(), state["collector"]["obs"], state["random"]["torch"]]
        return trainer.steps, last["env/total_steps"], [each.tolist() for each in numbers]


def test_a_run_of_two_ranks_goes_on_where_it_ended(tmp_path):
    whole = in_ranks(run, str(tmp_path / "whole"), 4)
    assert isinstance(whole[0], tuple), whole
    assert in_ranks(run, str(tmp_path / "parts"), 2)[0][0] == 2
    parts = in_ranks(run, str(tmp_path / "parts"), 4, True)
    assert parts == whole
    assert whole[0][1] == 4 * 4 * 8 * 2
    # Each has its own environments, all have one policy.
    assert whole[0][2][:-2] == whole[1][2][:-2]
    assert whole[0][2][-2] != whole[1][2][-2]
    [last] = checkpoint.numbered(tmp_path / "whole" / "checkpoints")[:1]
    assert {*checkpoint.manifest(last)["files"]} == {
        "model.safetensors",
        "optimizer.safetensors",
        "state.safetensors",
        "state-1.safetensors",
    }


def test_another_number_of_ranks_goes_on_with_what_was_learned(tmp_path, caplog):
    directory = tmp_path / "run"
    before = in_ranks(run, str(directory), 2)
    trainer = Trainer.resume(directory, track=False)
    assert "the number of ranks (it has 2, here there are 1) is not that of" in caplog.text
    policy = [each.tolist() for each in trainer.algorithm.state_dict()["policy"].values()]
    assert policy == before[0][2][:-2]
    assert trainer.step()["env/total_steps"] == 2 * 4 * 8 * 2 + 4 * 8
    trainer.close()
