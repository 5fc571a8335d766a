"""What environments measure themselves, and options that change without a reset."""

import json
import logging
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm, EnvError, Trainer
from rlstack.conditions import HitsUpperBound
from rlstack.env import Env, EnvChecks, check_env
from rlstack.runs.evaluate import evaluate
from rlstack.specs import Categorical, Unbounded

from ..helpers import SMALL
from ..standin import StandIn, record

CONFIG = {"num_envs": 4, "horizon": 4, "device": "cpu", "seed": 0, "model_config": SMALL}
OWN = {"env/steps", "env/resets"}


class Measures(Env):
    """Adds what it is told to a level in each step, and says how far that is."""

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec = Unbounded((1,))
        self.action_spec = Categorical(2, shape=(1,))
        self.level = torch.zeros(num_envs, 1)
        self.gain = torch.tensor(float(self.config.get("gain", 1.0)))
        self.resets, self.handed = 0, []

    def reset(self, *, config=None):
        self.resets += 1
        if config:
            self.gain = torch.tensor(float(config["gain"]))
        self.level = torch.zeros(self.num_envs, 1)
        return self.level

    def step(self, action):
        self.level = self.level + self.gain
        return TensorDict({"obs": self.level, "rewards": -self.level.abs()}, self.num_envs)

    def metrics(self):
        return {"level": self.level.mean(), "gain": float(self.gain), "share/high": (self.level > 6).any()}

    def state_dict(self):
        return {"level": self.level}

    def load_state_dict(self, state):
        self.level = state["level"].clone()


class Changes(Measures):
    """Takes options without a reset."""

    def set_config(self, config):
        if config.get("gain") == 13:
            raise RuntimeError("unlucky")
        self.handed.append(config)
        self.gain = torch.tensor(float(config.get("gain", 1.0)))


class Says(Measures):
    """Says what it is told to say."""

    said: object = None

    def metrics(self):
        return self.said


def own(stats):
    return {key: value for key, value in stats.items() if key.startswith("env/") and key not in OWN}


def saying(what):
    return type("Says", (Says,), {"said": what})


class TestMetrics:
    def test_they_are_statistics_of_each_horizon(self):
        algorithm = Algorithm(Measures, **CONFIG, horizons_per_env_reset=2)
        for level in (4.0, 8.0, 4.0):
            stats = algorithm.collect()
            assert own(stats) == {"env/level": level, "env/gain": 1.0, "env/share/high": float(level > 6)}
            assert all(type(value) is float for value in stats.values())

    def test_evaluations_have_those_of_their_own_environments(self):
        algorithm = Algorithm(Measures, **CONFIG)
        algorithm.collect()
        assert own(algorithm.eval(env_config={"gain": 3.0}))["env/level"] == 12
        assert own(algorithm.collect())["env/level"] == 4

    def test_training_is_steered_by_them(self, tmp_path):
        config = {**CONFIG, "horizons_per_env_reset": -1}
        options = {"every_updates": 1, "best": "env/level", "best_is": "lowest"}
        where = {"run_dir": tmp_path / "run", "checkpoint_config": options, "track": False}
        with Trainer(Measures, algorithm_config=config, **where) as trainer:
            stats = trainer.run(stop_conditions=[HitsUpperBound("env/level", 12)])
            assert stats["algorithm/steps"] == 3
            stats = trainer.run(steps_per_eval=1, stop_conditions=[HitsUpperBound("eval/env/level", 4)])
            assert (stats["algorithm/steps"], stats["eval/env/level"], stats["env/level"]) == (4, 4, 16)
            with pytest.raises(ValueError, match="env/levle is not a statistic: did you mean env/level"):
                trainer.run(stop_conditions=[HitsUpperBound("env/levle", 1)])
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["metrics"]["env/level"] for line in lines] == [4, 8, 12, 16, 20]
        best = (tmp_path / "run" / "checkpoints" / "best").read_text().strip()
        assert best == "ckpt-000000001"

    def test_a_checkpoint_is_judged_with_them(self, tmp_path):
        with Trainer(Measures, algorithm_config=CONFIG, run_dir=tmp_path / "run", track=False) as trainer:
            trainer.step()
            trainer.save()
        how = {"env_config": {"gain": 2.0}, "num_envs": 3, "steps": 5, "seed": 0, "device": "cpu"}
        assert own(evaluate(tmp_path / "run", env_cls=Measures, **how)) == {
            "env/level": 10.0,
            "env/gain": 2.0,
            "env/share/high": 1.0,
        }

    def test_all_are_read_back_at_once(self, monkeypatch):
        from rlstack.common import metrics

        asked = []
        monkeypatch.setattr(
            "rlstack.ppo.collector.read_back", lambda v: asked.append(v) or metrics.read_back(v)
        )
        stats = Algorithm(Measures, **CONFIG).collect()
        [read] = asked
        assert {*own(stats)} < {*read}

    @pytest.mark.parametrize("value", [2, 2.0, np.float32(2), torch.tensor(2), torch.tensor(2.0).half()])
    def test_numbers_of_any_kind(self, value):
        assert own(Algorithm(saying({"x": value}), **CONFIG).collect()) == {"env/x": 2.0}

    @pytest.mark.parametrize("value", [True, np.bool_(1), torch.tensor(True)])
    def test_truth_is_a_number(self, value):
        assert own(Algorithm(saying({"x": value}), **CONFIG).collect()) == {"env/x": 1.0}

    def test_gradients_are_left_out(self):
        value = torch.ones((), requires_grad=True) * 3
        assert own(Algorithm(saying({"x": value}), **CONFIG).collect()) == {"env/x": 3.0}

    def test_what_is_no_number_yet_never_stops_training(self):
        algorithm = Algorithm(saying({"x": math.nan, "y": torch.tensor(math.inf)}), **CONFIG)
        stats = own(algorithm.collect())
        assert math.isnan(stats["env/x"])
        assert stats["env/y"] == math.inf
        algorithm.step()

    @pytest.mark.parametrize(
        ("said", "words"),
        [
            (None, "Says.metrics returned a NoneType, expected numbers by name"),
            ([1.0], "Says.metrics returned a list, expected numbers by name"),
            ({1: 1.0}, "Says.metrics: the name 1 is of type int, expected str"),
            ({"a?": 1.0}, r"Says.metrics: the name 'env/a\?' is no name that MLflow takes: use letters"),
            ({"": 1.0}, "the name 'env/' is no name that MLflow takes"),
            ({"../a": 1.0}, r"the name 'env/\.\./a' is no name"),
            ({"a" * 250: 1.0}, "has 254 characters, MLflow takes 250"),
            ({"steps": 1.0}, "env/steps is a statistic of rlstack's own: take another name than steps"),
            ({"resets": 1.0}, "env/resets is a statistic of rlstack's own"),
            ({"total_steps": 1.0}, "env/total_steps is a statistic of rlstack's own"),
            (
                {"x": torch.zeros(4)},
                r"Says.metrics: x is a tensor of shape \[4\] and dtype torch.float32, exp",
            ),
            (
                {"x": torch.tensor(1j)},
                "x is a tensor of shape .* and dtype torch.complex64, expected a number",
            ),
            ({"x": "high"}, "Says.metrics: x is 'high', expected a number"),
            ({"x": {"y": 1.0}}, "x is {'y': 1.0}, expected a number"),
        ],
    )
    def test_faults_are_named(self, said, words):
        algorithm = Algorithm(saying(said), **CONFIG)
        with pytest.raises(EnvError, match=words):
            algorithm.collect()

    def test_the_checker_names_them(self):
        [fault] = [f for f in check_env(saying({"x": torch.zeros(4)})).findings if f.name == "metrics"]
        assert (fault.level, fault.said[:34]) == ("fault", "Says.metrics: x is a tensor of sha")

    def test_what_it_raises_is_the_environments_and_the_horizon_is_dropped(self):
        class Raises(Measures):
            def metrics(self):
                if self.resets == 1:
                    raise KeyError("level")
                return {}

        algorithm = Algorithm(Raises, **CONFIG, horizons_per_env_reset=-1)
        with pytest.raises(EnvError, match=r"Raises\.metrics raised KeyError: 'level'"):
            algorithm.collect()
        assert algorithm.collect()["env/resets"] == 4

    def test_an_attribute_of_that_name_is_none(self):
        class Holds(Measures):
            metrics: ClassVar = {"level": 1.0}

        assert own(Algorithm(Holds, **CONFIG).collect()) == {}
        said = [f.said for f in check_env(Holds).findings if f.name == "metrics"]
        assert said == ["Holds.metrics is a dict, which nothing reads: make it a method that returns them"]

    def test_recordings_replay_what_they_read(self):
        class Counts(Measures):
            """Counts in place, and begins anew when it is asked."""

            def __init__(self, num_envs, /, **options):
                super().__init__(num_envs, **options)
                self.high = torch.zeros(())
                del self.resets

            def reset(self, *, config=None):
                self.level = torch.zeros(self.num_envs, 1)
                return self.level

            def step(self, action):
                out = super().step(action)
                self.high += action.float().mean()
                return out

            def metrics(self):
                said = {"high": self.high.clone(), "level": self.level.mean()}
                self.high = torch.zeros(())
                return said

        options = {**CONFIG, "horizons_per_env_reset": 3, "accumulate_grads": True}
        recorded, eager = record(Algorithm, Counts, **options), Algorithm(Counts, **options)
        histories = []
        for algorithm in (recorded, eager):
            torch.manual_seed(1)
            history = []
            for _ in range(8):
                history.append(own(algorithm.collect()))
                algorithm.step()
            histories.append(history)
        assert recorded.engine.startswith("graph")
        assert StandIn.replays > 8
        assert histories[0] == histories[1]
        assert [stats["env/level"] for stats in histories[0]] == [4, 8, 12, 4, 8, 12, 4, 8]
        assert len({stats["env/high"] for stats in histories[0]}) > 4


class TestState:
    def test_there_may_be_none_before_the_first_reset(self, tmp_path):
        class Late(Measures):
            """Its state begins with a reset."""

            def __init__(self, num_envs, /, **options):
                super().__init__(num_envs, **options)
                del self.level

        config = {**CONFIG, "horizons_per_env_reset": -1}
        with Trainer(Late, algorithm_config=config, run_dir=tmp_path / "run", track=False) as trainer:
            trainer.step()
            trainer.save()
        for levels in (8, 12):
            with Trainer.resume(tmp_path / "run", env_cls=Late, track=False) as trainer:
                stats = trainer.step()
                assert (stats["env/level"], stats["env/resets"]) == (levels, 0)
                trainer.save()


class TestSetConfig:
    def handed(self, configs, env_cls=Changes, **options):
        algorithm = Algorithm(env_cls, **CONFIG, **options)
        history = [algorithm.collect(env_config=config) for config in configs]
        return algorithm, [(s["env/resets"], s["env/level"]) for s in history]

    @pytest.mark.parametrize("every", [-1, 8])
    def test_options_change_without_a_reset(self, every):
        configs = [{"gain": 2.0}, None, {"gain": 3.0}, {"gain": 3.0}, {"gain": 1.0}]
        algorithm, history = self.handed(configs, horizons_per_env_reset=every)
        assert history == [(4, 8), (0, 16), (0, 28), (0, 40), (0, 44)]
        # The first one came with the reset, and what is the same isn't handed over again.
        assert algorithm.env.handed == [{"gain": 3.0}, {"gain": 1.0}]

    def test_the_options_it_was_made_with_are_no_change(self):
        configs = [None, {"gain": 2.0}, {"gain": 2.0}]
        algorithm, history = self.handed(configs, env_config={"gain": 2.0}, horizons_per_env_reset=-1)
        assert history == [(4, 8), (0, 16), (0, 24)]
        assert algorithm.env.handed == []

    def test_where_a_reset_is_due_that_brings_them(self):
        configs = [None, {"gain": 2.0}, None]
        algorithm, history = self.handed(configs, horizons_per_env_reset=1)
        assert history == [(4, 4), (4, 8), (4, 8)]
        assert algorithm.env.handed == []

    def test_without_the_method_a_reset_brings_them(self):
        configs = [None, {"gain": 2.0}, {"gain": 2.0}]
        assert self.handed(configs, Measures, horizons_per_env_reset=-1)[1] == [(4, 4), (4, 8), (0, 16)]
        assert self.handed(configs, Measures, horizons_per_env_reset=2)[1] == [(4, 4), (0, 8), (4, 8)]

    def test_what_it_raises_is_named_and_a_reset_puts_it_right(self):
        algorithm, _ = self.handed([{"gain": 2.0}], horizons_per_env_reset=-1)
        with pytest.raises(EnvError, match=r"Changes\.set_config raised RuntimeError: unlucky"):
            algorithm.collect(env_config={"gain": 13.0})
        stats = algorithm.collect()
        assert (stats["env/resets"], stats["env/level"]) == (4, 8)

    def test_a_resumed_run_has_them_before_its_state(self, tmp_path, caplog):
        config = {**CONFIG, "horizons_per_env_reset": -1}

        class Loads(Changes):
            def load_state_dict(self, state):
                self.found = float(self.gain)
                super().load_state_dict(state)

        def levels(trainer, times):
            return [trainer.step()["env/level"] for _ in range(times)]

        with Trainer(Loads, algorithm_config=config, run_dir=tmp_path / "run", track=False) as trainer:
            trainer.step()
            trainer.step(env_config={"gain": 3.0})
            trainer.save()
            after = levels(trainer, 2)
        caplog.set_level(logging.WARNING)
        with Trainer.resume(tmp_path / "run", env_cls=Loads, track=False) as trainer:
            assert trainer.algorithm.env.found == 3.0
            assert levels(trainer, 2) == after == [28, 40]
            assert trainer.algorithm.env.resets == 0
            # The same as in the checkpoint is no change.
            trainer.step(env_config={"gain": 3.0})
            assert trainer.algorithm.env.handed == [{"gain": 3.0}]
        assert caplog.records == []

    def test_a_checkpoint_from_before_the_change_takes_it_back(self, tmp_path):
        config = {**CONFIG, "horizons_per_env_reset": -1, "env_config": {"gain": 2.0}}
        with Trainer(Changes, algorithm_config=config, track=False) as trainer:
            trainer.step()
            trainer.save(tmp_path / "before")
            trainer.step(env_config={"gain": 5.0})
            trainer.load(next((tmp_path / "before").glob("ckpt-*")))
            assert trainer.step()["env/level"] == 16

    def test_the_checker_tries_it(self):
        assert [f.said for f in check_env(Changes, config={"gain": 2.0}).findings if f.level == "fault"] == []

        class Late(Changes):
            def set_config(self, config):
                self.started = self.started + 1

            def reset(self, *, config=None):
                self.started = 0
                return super().reset(config=config)

        [fault] = check_env(Late, config={"gain": 2.0}).faults
        assert fault.startswith("Late.set_config raised AttributeError")


class TestChecksOfMeasures(EnvChecks):
    env_cls = Measures


class TestChecksOfChanges(EnvChecks):
    env_cls = Changes
    env_config: ClassVar = {"gain": 2.0}
