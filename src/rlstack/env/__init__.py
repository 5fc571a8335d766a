"""Environments: what a policy learns to act in."""

from .base import Env as Env
from .base import EnvError as EnvError
from .classic import CartPole as CartPole
from .classic import MountainCar as MountainCar
from .classic import Pendulum as Pendulum
from .dummy import ContinuousDummyEnv as ContinuousDummyEnv
from .dummy import DiscreteDummyEnv as DiscreteDummyEnv
