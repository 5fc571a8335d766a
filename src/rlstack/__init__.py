"""Minimal PyTorch PPO for highly parallel, infinite-horizon environments.

Names are loaded when they are first used: importing rlstack itself loads neither torch nor mlflow.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from .algorithm import Algorithm as Algorithm
    from .algorithm import RecurrentAlgorithm as RecurrentAlgorithm
    from .common.errors import EnvError as EnvError
    from .common.errors import ExportError as ExportError
    from .common.errors import HparamsError as HparamsError
    from .common.errors import NonFiniteError as NonFiniteError
    from .common.errors import PolicyFileError as PolicyFileError
    from .common.errors import RlstackError as RlstackError
    from .distributions import Bernoulli as Bernoulli
    from .distributions import Categorical as Categorical
    from .distributions import Distribution as Distribution
    from .distributions import Normal as Normal
    from .distributions import OneHotCategorical as OneHotCategorical
    from .distributions import SquashedNormal as SquashedNormal
    from .env.base import Env as Env
    from .hparams import Hparams as Hparams
    from .hparams import RecurrentHparams as RecurrentHparams
    from .keywords import HparamsDict as HparamsDict
    from .keywords import RecurrentHparamsDict as RecurrentHparamsDict
    from .models.base import Model as Model
    from .models.base import RecurrentModel as RecurrentModel
    from .policies.policy import Policy as Policy
    from .policies.policy import RecurrentPolicy as RecurrentPolicy
    from .runs.options import CheckpointConfig as CheckpointConfig
    from .training.trainer import Trainer as Trainer

_HOME = {
    "Algorithm": "algorithm",
    "RecurrentAlgorithm": "algorithm",
    "NonFiniteError": "common.errors",
    "CheckpointConfig": "runs.options",
    "Bernoulli": "distributions",
    "Categorical": "distributions",
    "Distribution": "distributions",
    "Normal": "distributions",
    "OneHotCategorical": "distributions",
    "SquashedNormal": "distributions",
    "Env": "env.base",
    "EnvError": "common.errors",
    "ExportError": "common.errors",
    "Hparams": "hparams",
    "HparamsDict": "keywords",
    "HparamsError": "common.errors",
    "Model": "models.base",
    "RecurrentModel": "models.base",
    "Policy": "policies.policy",
    "PolicyFileError": "common.errors",
    "RecurrentHparams": "hparams",
    "RecurrentHparamsDict": "keywords",
    "RecurrentPolicy": "policies.policy",
    "RlstackError": "common.errors",
    "Trainer": "training.trainer",
}
"""The module of each public name."""

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("rlstack")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
