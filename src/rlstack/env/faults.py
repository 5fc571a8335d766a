"""What an environment raises, as errors of its own kind."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..common.errors import EnvError, NonFiniteError, told


def unstable(row: int, name: str, where: str) -> NonFiniteError:
    """Return the error for a simulation that MuJoCo has found unstable.

    Args:
        row: Which environment.
        name: Of the class.
        where: In what it has found it, `qacc[0]` for example.
    """
    return NonFiniteError(
        f"environment {row} of {name} is unstable: MuJoCo found NaN, infinity or a huge number in {where}; "
        "take a smaller timestep, or bound what acts on it"
    )


@contextmanager
def faults_of(where: str) -> Iterator[None]:
    """Name the place in whatever an environment raises.

    Raises:
        EnvError: With that.
        NonFiniteError: If an environment raises it: it has found NaN or infinity itself, and says where.
    """
    try:
        yield
    except (EnvError, NonFiniteError):
        raise
    except Exception as error:
        raise EnvError(f"{where} raised {told(error)}") from error
