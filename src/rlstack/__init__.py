"""Minimal PyTorch PPO for highly parallel, infinite-horizon environments.

Names are loaded when they are first used: importing rlstack itself loads neither torch nor mlflow.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from .algorithm import Algorithm as Algorithm
    from .algorithm import RecurrentAlgorithm as RecurrentAlgorithm
    from .data import NonFiniteError as NonFiniteError
    from .distributions import Categorical as Categorical
    from .distributions import Distribution as Distribution
    from .distributions import Normal as Normal
    from .distributions import SquashedNormal as SquashedNormal
    from .env import Env as Env
    from .env import EnvError as EnvError
    from .hparams import Hparams as Hparams
    from .hparams import HparamsError as HparamsError
    from .hparams import RecurrentHparams as RecurrentHparams
    from .keywords import HparamsDict as HparamsDict
    from .keywords import RecurrentHparamsDict as RecurrentHparamsDict
    from .models import Model as Model
    from .models import RecurrentModel as RecurrentModel
    from .policies import Policy as Policy
    from .policies import RecurrentPolicy as RecurrentPolicy
    from .policy_file import PolicyFileError as PolicyFileError
    from .trainer import Trainer as Trainer

_HOME = {
    "Algorithm": "algorithm",
    "RecurrentAlgorithm": "algorithm",
    "NonFiniteError": "data",
    "Categorical": "distributions",
    "Distribution": "distributions",
    "Normal": "distributions",
    "SquashedNormal": "distributions",
    "Env": "env",
    "EnvError": "env",
    "Hparams": "hparams",
    "HparamsDict": "keywords",
    "HparamsError": "hparams",
    "Model": "models",
    "RecurrentModel": "models",
    "Policy": "policies",
    "PolicyFileError": "policy_file",
    "RecurrentHparams": "hparams",
    "RecurrentHparamsDict": "keywords",
    "RecurrentPolicy": "policies",
    "Trainer": "trainer",
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
