"""A notebook in a real Jupyter kernel: it trains, its cells are run again, interrupted and gone on with."""

import re
import threading
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

EXAMPLE = Path(__file__).parents[2] / "examples" / "first_steps.ipynb"
SETTINGS = """
import logging
import rlstack
from rlstack.conditions import HitsUpperBound
from rlstack.env import DiscreteDummyEnv

config = dict(num_envs=16, horizon=8, seed=0, model_config=dict(hiddens=[8]))
where = "run of {test}"
options = dict(algorithm_config=config, run_dir=where, track=False)

def until(updates):
    return [HitsUpperBound("algorithm/steps", updates)]
"""
MAKE = "trainer = rlstack.Trainer(DiscreteDummyEnv, **options)"
RESUME = "trainer = rlstack.Trainer.resume(where, track=False)"


class Notebook:
    def __init__(self, client):
        self.client = client

    def run(self, source):
        """Run a cell, a new one as when one runs it again; return what it shows."""
        cell = nbformat.v4.new_code_cell(source)
        self.client.nb.cells.append(cell)
        self.client.execute_cell(cell, len(self.client.nb.cells) - 1)
        return "".join(
            out.get("text", "") or out.get("data", {}).get("text/plain", "") for out in cell.outputs
        )

    def error(self, source):
        """Run a cell that fails; return what it says."""
        with pytest.raises(CellExecutionError) as error:
            self.run(source)
        return re.sub(r"\x1b\[[\d;]*m", "", str(error.value))

    def interrupt_after(self, seconds):
        """Press the stop button in a while, as Jupyter does: by a signal to the kernel."""

        def press():
            time.sleep(seconds)
            self.client.km.provisioner.process.send_signal(2)

        threading.Thread(target=press).start()


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    client = NotebookClient(nbformat.v4.new_notebook(), timeout=120, kernel_name="python3")
    with client.setup_kernel(cwd=str(tmp_path_factory.mktemp("notebook"))):
        yield client


@pytest.fixture
def notebook(kernel, request):
    found = Notebook(kernel)
    found.run(SETTINGS.format(test=request.node.name))
    return found


def test_cells_are_run_again_and_again(notebook):
    notebook.run(MAKE)
    # Nothing is learned yet: the same cell makes the same trainer anew.
    notebook.run(MAKE)
    assert notebook.run('trainer.run(stop_conditions=until(3))["algorithm/steps"]') == "3.0"
    # Now something is, which the cell would throw away.
    assert "at update 3: use Trainer.resume or another directory, or close() it" in notebook.error(MAKE)
    assert notebook.run("trainer.steps") == "3"
    for _ in range(2):
        notebook.run("earlier = trainer\n" + RESUME)
        assert notebook.run("trainer.steps") == "3"
    assert "was taken over by another trainer of this process" in notebook.error("earlier.step()")
    assert notebook.run('trainer.run(stop_conditions=until(5))["algorithm/steps"]') == "5.0"


def test_an_interrupted_cell_ends_quietly_and_is_gone_on_with(notebook):
    notebook.run(MAKE)
    notebook.interrupt_after(1.0)
    assert notebook.run("last = trainer.run(); trainer.interrupted, last == {}") == "(2, False)"
    # The kernel is as it was: what is not a training can be interrupted, too.
    notebook.interrupt_after(0.5)
    assert "KeyboardInterrupt" in notebook.error("import time; time.sleep(60)")
    notebook.run("at = trainer.steps\n" + RESUME)
    assert notebook.run("trainer.steps == at > 0") == "True"
    assert notebook.run('trainer.run(stop_conditions=until(at + 2))["algorithm/steps"] == at + 2') == "True"


def test_an_error_in_a_cell_leaves_a_run_that_goes_on(notebook):
    loop = """
for stats in rlstack.Trainer(DiscreteDummyEnv, **options).updates():
    if stats["algorithm/steps"] == 4:
        raise RuntimeError("a mistake in the cell")
"""
    # Jupyter keeps the traceback, and with it the loop and its trainer.
    assert "a mistake in the cell" in notebook.error(loop)
    notebook.run(RESUME)
    assert notebook.run("trainer.steps") == "4"
    assert notebook.run('trainer.run(stop_conditions=until(6))["algorithm/steps"]') == "6.0"


def test_progress_is_a_line_that_changes(notebook):
    notebook.run(MAKE)
    said = notebook.run("stats = trainer.run(stop_conditions=until(30), progress=True)")
    # One line, as it was in the end.
    assert re.fullmatch(r"DiscreteDummyEnv  100%  update 30  3,840 steps  .* s", said)
    assert notebook.run("trainer").startswith("Trainer(\n  Algorithm(\n    DiscreteDummyEnv: 16 environments")
    notebook.run("trainer.close()")


def test_the_example(tmp_path):
    client = NotebookClient(nbformat.read(EXAMPLE, as_version=4), timeout=120, kernel_name="python3")
    client.execute(cwd=str(tmp_path))
    shown = [output for cell in client.nb.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert (tmp_path / "runs" / "first-steps" / "checkpoints").is_dir()


def test_the_example_is_kept_without_outputs():
    cells = nbformat.read(EXAMPLE, as_version=4).cells
    assert all(
        cell.outputs == [] and cell.execution_count is None for cell in cells if cell.cell_type == "code"
    )
