"""Stands in for mujoco: a state is an array."""

import enum

__version__ = "4.0.0"


class mjtState(enum.IntEnum):  # noqa: N801 (mujoco's name)
    mjSTATE_INTEGRATION = 1  # noqa: N815


def mj_stateSize(model, which):  # noqa: N802
    return model.size


def mj_getState(model, data, state, which):  # noqa: N802
    state[:] = data.numbers


def mj_setState(model, data, state, which):  # noqa: N802
    data.numbers[:] = state
    data.is_fresh = False


def mj_step1(model, data):
    data.is_fresh = True
