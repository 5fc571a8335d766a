"""The program of a worker process: it makes its part of the simulations, and steps them when told to.

It is run as a script and imports nothing of rlstack: such a process is there at once and takes little memory.
`worker_processes` starts it, and says what it is asked.
"""

import importlib.util
import mmap
import os
import pickle
import sys
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

STEP = b"step"
"""What is sent for a step, and answered by nothing at all."""

_PATIENCE = 1.0
"""How long to wait for the next message until looking whether the parent is still there, s."""


class _Served:
    """A part of the simulations, and who asks for it.

    Args:
        connection: To the parent.
        memory: The file in memory that both share.
    """

    def __init__(self, connection: Connection, memory: int) -> None:
        self._connection, self._memory = connection, memory
        self._part: Any = None
        start: dict[str, Any] = pickle.loads(connection.recv_bytes())
        self._parent: int = start.pop("parent")
        sys.path[:] = start.pop("path")
        self._start = start

    def run(self) -> None:
        """Answer until there is nobody left who asks."""
        self._answer(self._make)
        while True:
            while not self._connection.poll(_PATIENCE):
                # A process that was forked from the parent may hold the other end open.
                if os.getppid() != self._parent:
                    return
            message = self._connection.recv_bytes()
            if message == STEP:
                self._answer(self._step)
            else:
                name, args = pickle.loads(message)
                self._answer(self._share if name == "share" else getattr(self._part, name), *args)

    def _answer(self, asked: Any, *args: Any) -> None:
        try:
            said = asked(*args)
            answer = b"" if said is None else pickle.dumps((True, said))
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            answer = pickle.dumps((False, (text, getattr(self._part, "row", None), traceback.format_exc())))
        self._connection.send_bytes(answer)

    def _make(self) -> Any:
        """Make the part of the simulations, and return what it says of itself."""
        file: str = self._start.pop("file")
        spec = importlib.util.spec_from_file_location(Path(file).stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module.__name__] = module
        spec.loader.exec_module(module)
        self._rows = slice(*self._start.pop("rows"))
        self._part = module.make(range(self._rows.start, self._rows.stop), **self._start.pop("arguments"))
        return self._part.describe()

    def _share(self, size: int, layout: Mapping[str, tuple[str, tuple[int, ...], int]]) -> None:
        """Hand the part its rows of the arrays in shared memory."""
        import numpy as np

        memory = mmap.mmap(self._memory, size)
        arrays = {
            name: np.ndarray(shape, dtype, memory, offset)[self._rows]
            for name, (dtype, shape, offset) in layout.items()
        }
        self._part.share(arrays)

    def _step(self) -> None:
        self._part.step()


def main() -> None:
    """Serve the parent whose two descriptors are the arguments, until it is gone."""
    # As many processes as cores: threads of their own would only be in each other's way.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    try:
        _Served(Connection(int(sys.argv[1])), int(sys.argv[2])).run()
    except (EOFError, ConnectionError):
        # The parent has gone, or wants no more.
        sys.exit()


if __name__ == "__main__":
    main()
