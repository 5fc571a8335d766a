"""What is wrong with a horizon, in words."""

from ..common.errors import EnvError, NonFiniteError
from ..common.types import OBS, REWARDS
from .reward_watch import when
from .rollout_buffer import RolloutBuffer


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
