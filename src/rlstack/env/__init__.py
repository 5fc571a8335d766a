"""Environments: what a policy learns to act in."""

from importlib import import_module
from typing import TYPE_CHECKING

from ..common.errors import EnvError as EnvError
from .base import Env as Env
from .classic import CartPole as CartPole
from .classic import MountainCar as MountainCar
from .classic import Pendulum as Pendulum
from .dummy import ContinuousDummyEnv as ContinuousDummyEnv
from .dummy import DiscreteDummyEnv as DiscreteDummyEnv
from .episodic import AcrobotV1 as AcrobotV1
from .episodic import CartPoleV1 as CartPoleV1

if TYPE_CHECKING:
    from ..env_check.report import EnvChecks as EnvChecks
    from ..env_check.report import check_env as check_env


def __getattr__(name: str) -> object:
    # The checker needs what is built upon environments.
    if name in ("EnvChecks", "check_env"):
        return getattr(import_module("..env_check.report", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
