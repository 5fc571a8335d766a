"""What an environment raises, as errors of its own kind."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..common.errors import EnvError, NonFiniteError, told


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
