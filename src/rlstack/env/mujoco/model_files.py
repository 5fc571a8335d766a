"""Models from files: of the user, and of packages that have them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...common.errors import EnvError, told
from ..simulators import needed
from .simulation import INSTALL

_log = logging.getLogger(__name__)


def read_model(mjcf: str, what: str, *, level: int = logging.WARNING) -> Any:
    """Return MuJoCo's mjModel.

    Args:
        mjcf: Path of an MJCF file, or its text.
        what: For what it is, for errors.
        level: How loudly to hand on what MuJoCo warns of.

    Raises:
        EnvError: If MuJoCo is missing, or refuses the model.
    """
    mujoco = needed("mujoco", INSTALL, what)
    is_text = mjcf.lstrip().startswith("<")
    if not is_text and not Path(mjcf).is_file():
        raise EnvError(f"the model of {what} is {mjcf}, and there is no such file")
    with warnings_logged(mujoco, what, level):
        try:
            return mujoco.MjModel.from_xml_string(mjcf) if is_text else mujoco.MjModel.from_xml_path(mjcf)
        except ValueError as error:
            raise EnvError(f"MuJoCo refuses the model of {what}: {told(error)}") from None


def packaged_model(package: str, path: str, what: str) -> Any:
    """Return MuJoCo's mjModel from a file of another package.

    Args:
        package: Its name.
        path: Of the file within it.
        what: For what it is, for errors.

    Raises:
        EnvError: If MuJoCo or that package is missing.
    """
    needed("mujoco", INSTALL, what)
    file = Path(needed(package, INSTALL, what).__path__[0]) / path
    # Who uses the file can't change it.
    return read_model(str(file), what, level=logging.DEBUG)


@contextmanager
def warnings_logged(mujoco: Any, what: str, level: int) -> Iterator[None]:
    """Log what MuJoCo warns of; by itself it prints that, and writes it to a file where one is.

    Args:
        mujoco: The package.
        what: Whose model is read.
        level: How loudly.
    """
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: _log.log(level, "the model of %s: %s", what, text))
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
