"""Simulators of the form that rsl_rl takes, VecEnv: mjlab, Isaac Lab, Genesis, Playground and others."""

from .simulator import from_vec_env as from_vec_env
