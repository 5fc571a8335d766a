"""Policies as MLflow models, loaded again where pickle is not allowed."""

import os
import subprocess
import sys

import mlflow
import numpy as np
import pytest
import torch
from proofs import envs
from tensordict import TensorDict

from rlstack import Algorithm, RecurrentAlgorithm, Trainer
from rlstack.common.errors import TrackingError
from rlstack.conditions import HitsUpperBound
from rlstack.env import CartPole, ContinuousDummyEnv, DiscreteDummyEnv, Pendulum
from rlstack.export.tensors import apart, together
from rlstack.specs import Composite, Unbounded
from rlstack.tracking.mlflow_model import log_policy

from ..helpers import SEEN, SMALL, Veiled

CONFIG = {"num_envs": 8, "horizon": 8, "device": "cpu", "seed": 0}


def trained(env_cls, cls=Algorithm, **changes):
    small = {"hidden_size": 8} if cls is RecurrentAlgorithm else SMALL
    algorithm = cls(env_cls, **{**CONFIG, "model_config": small, **changes})
    algorithm.collect()
    algorithm.step()
    return algorithm


class OddNames(envs.Sound):
    """Its observations have names that aren't any in Python."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.observation_spec = Composite({"joint-pos": Unbounded((2,)), "class": Unbounded((1,))})

    def observe(self):
        parts = {"joint-pos": torch.randn(self.num_envs, 2), "class": torch.randn(self.num_envs, 1)}
        return TensorDict(parts, batch_size=self.num_envs)


LOAD = """
import sys, mlflow, numpy
for line in sys.stdin:
    uri, inputs, outputs = line.split()
    model = mlflow.pytorch.load_model(uri)
    import torch
    given = [torch.from_numpy(part) for part in numpy.load(inputs).values()]
    made = model(*given)
    made = [made] if isinstance(made, torch.Tensor) else list(made)
    numpy.savez(outputs, *[part.detach().numpy() for part in made])
    print("done without rlstack" if "rlstack" not in sys.modules else "done with rlstack", flush=True)
"""


@pytest.fixture(scope="module")
def loader(mlflow_uri):
    """Return a function that lets a process without rlstack load a model and call it."""
    environment = {
        **os.environ,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_TRACKING_URI": mlflow_uri,
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", LOAD], env=environment, **pipes)

    def load(uri, inputs, outputs):
        print(uri, inputs, outputs, file=process.stdin, flush=True)
        said = process.stdout.readline()
        assert said == "done without rlstack\n"

    yield load
    process.stdin.close()
    process.wait(30)


@pytest.mark.parametrize(
    ("env_cls", "cls", "changes"),
    [
        (CartPole, Algorithm, {}),
        (Pendulum, Algorithm, {"normalize_observations": True}),
        (DiscreteDummyEnv, RecurrentAlgorithm, {}),
        (type("Nested", (envs.Sound,), {"nested": True}), Algorithm, {}),
        (OddNames, Algorithm, {}),
        (Veiled, Algorithm, {"normalize_observations": True, "model_config": {**SMALL, "policy_keys": SEEN}}),
        (Veiled, RecurrentAlgorithm, {"model_config": {"hidden_size": 8, "policy_keys": SEEN}}),
    ],
)
def test_loaded_without_pickle_it_acts_as_the_policy(env_cls, cls, changes, tracked, tmp_path, loader):
    algorithm = trained(env_cls, cls, **changes)
    policy = algorithm.policy
    with mlflow.start_run() as run:
        pass
    uri = log_policy(policy, run.info.run_id)
    [model] = tracked.search_logged_models(
        [run.info.experiment_id], filter_string=f"source_run_id='{run.info.run_id}'"
    )
    assert (model.name, model.model_uri) == ("policy", uri)
    assert tracked.get_run(run.info.run_id).info.status == "FINISHED"
    parts = apart(policy.acting_spec, algorithm.collector.buffer.obs[-1][:5])
    obs, state = together(policy.acting_spec, parts, 5), policy.initial_state(5)
    parts += [] if state is None else apart(policy.state_spec, state)
    signature = mlflow.models.get_model_info(uri).signature
    assert [spec.shape[1:] for spec in signature.inputs.inputs] == [tuple(part.shape[1:]) for part in parts]
    inputs, outputs = tmp_path / "inputs.npz", tmp_path / "outputs.npz"
    np.savez(inputs, *[part.numpy() for part in parts])
    loader(uri, inputs, outputs)
    made = [torch.from_numpy(part) for part in np.load(outputs).values()]
    step = policy.act(obs, state, deterministic=True)
    expected = apart(policy.action_spec, step.actions)
    expected += [] if state is None else apart(policy.state_spec, step.state)
    for one, other in zip(made, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_the_signature_names_what_acting_needs(tracked):
    model_config = {**SMALL, "policy_keys": SEEN, "value_keys": ["wind"]}
    policy = trained(Veiled, model_config=model_config).policy
    with mlflow.start_run() as run:
        pass
    uri = log_policy(policy, run.info.run_id)
    names = [spec.name for spec in mlflow.models.get_model_info(uri).signature.inputs.inputs]
    assert names == ["obs.place", "obs.inner.turn"]


def test_any_number_of_rows_goes_in_as_an_array(tracked):
    policy = trained(ContinuousDummyEnv).policy
    with mlflow.start_run() as run:
        pass
    model = mlflow.pyfunc.load_model(log_policy(policy, run.info.run_id))
    for rows in (1, 2, 7):
        obs = torch.randn(rows, 1)
        expected = policy.act(obs, deterministic=True).actions
        torch.testing.assert_close(torch.from_numpy(model.predict(obs.numpy())), expected)


def test_what_is_missing_is_said(tracked, monkeypatch):
    trainer = Trainer(DiscreteDummyEnv, algorithm_config={**CONFIG, "model_config": SMALL})
    trainer.run(stop_conditions=[HitsUpperBound("algorithm/steps", 1)])
    monkeypatch.setattr("rlstack.tracking.mlflow_model.find_spec", lambda name: None)
    with pytest.raises(TrackingError, match=r"pip install 'rlstack\[mlflow\]'"):
        log_policy(trainer.algorithm.policy, trainer.tracker.run_id)


def test_what_cannot_be_exported_is_said(tracked):
    class Jumping(torch.nn.Module):
        def forward(self, obs):
            return obs if obs.sum().item() > 0 else -obs

    policy = trained(DiscreteDummyEnv).policy
    policy.model.encoder = Jumping()
    with mlflow.start_run() as run:
        pass
    with pytest.raises(TrackingError, match=r"\w+: "):
        log_policy(policy, run.info.run_id)
    assert tracked.get_run(run.info.run_id).info.status == "FINISHED"
