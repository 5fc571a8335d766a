import contextlib
import os
import shutil
import signal
import threading

import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from rlstack import Algorithm
from rlstack.env import ContinuousDummyEnv, DiscreteDummyEnv
from rlstack.env_check import report
from rlstack.ppo import precision

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_LOGGING_LEVEL"] = "WARNING"
# Two test processes share two cores, with the processes that they start.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
# A shell ignores the one for what it runs in the background, nohup the other, and so would trainings.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# What a check finds doesn't depend on for how long it measures speed.
report._TIMED = 0.02
# How long an example takes says nothing where other processes work too.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


@pytest.fixture(scope="session", autouse=True)
def _machine_code(tmp_path_factory, worker_id):
    """Compile what numba keeps on disk: no test is the first on this machine, which a warning would say."""
    directory = tmp_path_factory.getbasetemp()
    with FileLock((directory if worker_id == "master" else directory.parent) / "machine-code.lock"):
        for env_cls in (DiscreteDummyEnv, ContinuousDummyEnv):
            algorithm = Algorithm(env_cls, num_envs=4, horizon=4, model_config={"hiddens": [8]}, device="cpu")
            for _ in range(2):
                algorithm.collect()
                algorithm.step()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _sent(monkeypatch):
    """Send what trainers have left, as the end of a process does: the next test has other settings."""
    yield
    for thread in threading.enumerate():
        if thread.name == "rlstack-mlflow":
            thread._target.__self__.close()


@pytest.fixture
def float64():
    """Make float64 torch's default dtype for one test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def half(monkeypatch):
    """Compute in 16 bits where that is asked for, even if this CPU emulates it; return whether it needn't."""
    native = precision.has_half()
    monkeypatch.setattr(precision, "has_half", lambda: True)
    return native


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory, worker_id):
    """A real MLflow SQLite store of this test process; MLflow makes its tables once for all of them."""
    import mlflow

    directory = tmp_path_factory.mktemp("mlflow")
    # Test processes share the directory above their own.
    shared = tmp_path_factory.getbasetemp().parent if worker_id != "master" else directory
    with FileLock(shared / "tables.lock"):
        if not (shared / "tables.db").exists():
            # Models are kept below the directory in which the store is made.
            with contextlib.chdir(shared):
                mlflow.MlflowClient(f"sqlite:///{shared}/tables.new").search_experiments()
            (shared / "tables.new").rename(shared / "tables.db")
    shutil.copy(shared / "tables.db", directory / "mlflow.db")
    return f"sqlite:///{directory}/mlflow.db"


@pytest.fixture
def tracked(mlflow_uri, tmp_path, monkeypatch):
    """Work in an empty directory, with MLflow's settings pointing to the store; return its client."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    return mlflow.MlflowClient(mlflow_uri)
