"""Environments of Brax and MuJoCo Playground by name, as one compiled program over all simulations."""

from .by_name import make_brax as make_brax
from .by_name import make_playground as make_playground
