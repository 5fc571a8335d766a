"""Policies: a model and an action distribution."""

from .policy import Policy as Policy
from .policy import RecurrentPolicy as RecurrentPolicy
