"""What is wrong with a horizon, in words."""

from ..common.errors import EnvError, NonFiniteError
from ..common.types import OBS, REWARDS
from .reward_watch import when
from .rollout_buffer import RolloutBuffer


def horizon_error(buffer: RolloutBuffer, env: str) -> NonFiniteError | EnvError | None:
    """Return an error that names what is wrong with a whole horizon, if anything is.

    Args:
        buffer: Where the horizon is.
        env: Name of the environment.
    """
    return nonfinite_error(buffer, env) or range_error(buffer, env) or mask_error(buffer, env)


def cause_of(fault: BaseException, buffer: RolloutBuffer, env: str) -> NonFiniteError | EnvError | None:
    """Return an error that names what an environment's own error is the echo of, if that is known.

    Args:
        fault: What was raised.
        buffer: Where the horizon is, as far as it came.
        env: Name of the environment.
    """
    if not isinstance(fault, EnvError):
        return None
    return nonfinite_error(buffer, env) or mask_error(buffer, env)


def nonfinite_error(buffer: RolloutBuffer, env: str) -> NonFiniteError | None:
    """Return an error that names the first number in a buffer that isn't finite, if there is one.

    Args:
        buffer: Where the horizon is.
        env: Name of the environment.
    """
    fault = buffer.first_nonfinite()
    if fault is None:
        return None
    name, step, index = fault
    source, advice = env, "look for a division by zero or an overflow there"
    if name.split(".")[0] not in (OBS, REWARDS):
        source, advice = "the policy", "look at what its model does with the observation"
    return NonFiniteError(
        f"{name} of environment {index} from {source} is NaN or infinite {when(step)}: {advice}"
    )


def range_error(buffer: RolloutBuffer, env: str) -> EnvError | None:
    """Return an error that names the first discrete observation out of its range, if there is one.

    Args:
        buffer: Where the horizon is.
        env: Name of the environment.
    """
    fault = buffer.first_out_of_range()
    if fault is None:
        return None
    name, step, index = fault
    return EnvError(
        f"{name} of environment {index} from {env} is not one of its spec's values "
        f"{when(step)}: they are whole numbers that count from 0, and a OneHot has a single 1"
    )


def mask_error(buffer: RolloutBuffer, env: str) -> EnvError | None:
    """Return an error that names the first observation that allows no action, if there is one.

    Args:
        buffer: Where the horizon is.
        env: Name of the environment.
    """
    mask = buffer.action_mask
    if mask is None or not len(where := buffer.stuck(mask).nonzero()):
        return None
    name, (step, index) = ".".join((OBS, *mask.path)), where[0].tolist()
    return EnvError(
        f"{name} of environment {index} from {env} allows no action {when(step)}: let it be True for at "
        "least one choice of each action, or end the episode"
    )
