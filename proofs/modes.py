"""R2: what was stopped and resumed ends with the bits of what never stopped, in every mode.

The tests of `tests/runs/test_resume.py` compare all of the state, with torch.equal.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def prove(directory: Path) -> dict[str, Any]:
    """Run the matrix; return how many of its tests passed, and what was said of the others."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "tests/runs/test_resume.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    faults = re.findall(r"^(?:FAILED|ERROR) .*", done.stdout, re.MULTILINE)
    return {
        "held": done.returncode == 0 and passed is not None,
        "modes": int(passed[1]) if passed else 0,
        "faults": faults,
    }
