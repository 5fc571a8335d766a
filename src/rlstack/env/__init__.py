"""Environments: what a policy learns to act in."""

from importlib import import_module
from typing import TYPE_CHECKING

from .base import Env as Env
from .base import EnvError as EnvError
from .classic import CartPole as CartPole
from .classic import MountainCar as MountainCar
from .classic import Pendulum as Pendulum
from .dummy import ContinuousDummyEnv as ContinuousDummyEnv
from .dummy import DiscreteDummyEnv as DiscreteDummyEnv

if TYPE_CHECKING:
    from .check import EnvChecks as EnvChecks
    from .check import check_env as check_env


def __getattr__(name: str) -> object:
    # The checker needs what is built upon environments.
    if name in ("EnvChecks", "check_env"):
        return getattr(import_module(".check", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
