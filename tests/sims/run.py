"""Run the tests of one simulator, in an environment of its own under `.sims`: simulators pin each other out.

    python tests/sims/run.py gymnasium

`tests/sims/NAME.txt` says what it needs, a requirement a line. All versions of constraints.txt apply, unless
its first line is `# constraints: torch`: then torch's alone does.
"""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SIMS = ROOT / "tests" / "sims"
CONSTRAINTS = ROOT / "constraints.txt"
TESTED_WITH = ["pytest", "pytest-timeout", "pytest-xdist", "hypothesis"]
"""What the tests themselves need."""


def names():
    """Return what there is, by name."""
    return sorted(path.stem for path in SIMS.glob("*.txt"))


def environment(name):
    """Return the Python of a simulator's environment, made or changed if that is due."""
    needs, home = SIMS / f"{name}.txt", ROOT / ".sims" / name
    python, stamp = home / "bin" / "python", home / ".installed"
    files = (needs, CONSTRAINTS, ROOT / "pyproject.toml", Path(__file__))
    due = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    if stamp.is_file() and stamp.read_text() == due:
        return python
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    constraints = CONSTRAINTS
    if needs.read_text().startswith("# constraints: torch"):
        constraints = home / "torch.txt"
        constraints.write_text(re.search(r"^torch==.*\n", CONSTRAINTS.read_text(), re.MULTILINE)[0])
    install = [python, "-m", "pip", "install", "-q", "-c", constraints, "-r", needs, *TESTED_WITH]
    subprocess.run(install, cwd=ROOT, check=True)
    stamp.write_text(due)
    return python


def main(name):
    """Return 0 if the tests of a simulator pass."""
    if name not in names():
        print(f"{name or 'nothing'} is no simulator: SIM={' or SIM='.join(names())}")
        return 2
    python = environment(name)
    # Without its package all are skipped, which pytest ends with 5.
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/sims/test_{name}.py"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or [""]))
