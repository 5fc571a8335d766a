"""The documented uses at their default sizes: `make test-slow`."""

import os
import signal

import pytest
import torch

from rlstack import Algorithm, RecurrentAlgorithm, SquashedNormal, Trainer
from rlstack.conditions import Condition, Plateaus
from rlstack.env import ContinuousDummyEnv, DiscreteDummyEnv

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
MEMORY = {
    "optimizer_cls": torch.optim.SGD,
    "accumulate_grads": True,
    "enable_amp": True,
    "sgd_minibatch_size": 8192,
}
USES = {
    "default": (Algorithm, DiscreteDummyEnv, {}),
    "squashed": (
        Algorithm,
        ContinuousDummyEnv,
        {"distribution_cls": SquashedNormal, "gae_lambda": 0.99, "gamma": 0.99},
    ),
    "recurrent": (RecurrentAlgorithm, DiscreteDummyEnv, {}),
    "memory": (Algorithm, DiscreteDummyEnv, MEMORY),
}
DEVICES = ["cpu", "auto", *(["cuda"] if torch.cuda.is_available() else [])]
EACH = pytest.mark.parametrize(("use", "device"), [(use, device) for use in USES for device in DEVICES])


@EACH
def test_algorithm(use, device):
    algorithm_cls, env_cls, hyperparameters = USES[use]
    algorithm = algorithm_cls(env_cls, **hyperparameters, device=device)
    assert algorithm.collect()["env/steps"] == 8192 * 32
    assert algorithm.step()["monitors/grad_norm"] > 0


class Interrupts(Condition):
    def __call__(self, stats):
        os.kill(os.getpid(), signal.SIGINT)
        return False


@EACH
def test_trainer_is_endless_until_interrupted(use, device, tracked):
    algorithm_cls, env_cls, hyperparameters = USES[use]
    trainer = Trainer(
        env_cls, algorithm_cls=algorithm_cls, algorithm_config={**hyperparameters, "device": device}
    )
    stats = trainer.run(stop_conditions=[Interrupts()])
    assert trainer.interrupted
    assert stats["algorithm/steps"] == 1


def test_stop_condition(tracked):
    trainer = Trainer(DiscreteDummyEnv, stop_conditions=[Plateaus("returns/mean", rtol=0.05)])
    stats = trainer.run()
    assert not trainer.interrupted
    assert 5 < stats["algorithm/steps"] < 200
