"""Run the core of the suite on every other Python on PATH, and with the newest tensordict and torchrl.

The newest are those that install together with the torch of constraints.txt.
Each has an environment of its own.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
PYTHONS = [f"python3.{minor}" for minor in range(11, 16)]
ELSEWHERE = "cli tracking plots training/test_notebook.py training/test_signals.py".split()  # noqa: SIM905
ELSEWHERE += [
    f"test_{name}.py" for name in ("bench", "commands", "examples", "proofs", "readme", "repository")
]
"""Command lines, servers, processes and the repository itself: no core."""
SUITE = ["-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "-m", "not slow and not gpu", "tests"]
SUITE += [f"--ignore=tests/{place}" for place in ELSEWHERE]


def others():
    """Return the other Pythons that can be run, by name; what only stands in for one can't."""
    found = {}
    for name in PYTHONS:
        command = shutil.which(name)
        if command is None or name == f"python3.{sys.version_info.minor}":
            continue
        if subprocess.run([command, "-c", ""], capture_output=True, check=False).returncode == 0:
            found[name] = command
    return found


def environment(name, python):
    """Return the Python of an environment with all that is pinned, made if it isn't there."""
    home = ROOT / f".venv-{name}"
    subprocess.run([python, "-m", "venv", home], check=True)
    mine = home / "bin" / "python"
    subprocess.run(
        [mine, "-m", "pip", "install", "-q", "-c", CONSTRAINTS, "-e", ".[dev,viz]"], cwd=ROOT, check=True
    )
    return mine


def holds(name, python):
    """Say with what the core is run, run it, and return whether it passed."""
    said = (
        "import sys; from importlib.metadata import version as v; print(f'Python {sys.version.split()[0]}', "
    )
    said += "*(f'{n} {v(n)}' for n in ('torch', 'tensordict', 'torchrl')), sep=', ')"
    print(f"{name}: ", end="", flush=True)
    subprocess.run([python, "-c", said], check=True)
    return subprocess.run([python, *SUITE], cwd=ROOT, check=False).returncode == 0


def main():
    """Return 0 if the core passes wherever it could be run."""
    pythons = others()
    if not pythons:
        print(f"no other Python on PATH: looked for {', '.join(PYTHONS)}")
    passed = {name: holds(name, environment(name, python)) for name, python in pythons.items()}
    newest = environment("newest", sys.executable)
    torch = re.search(r"^torch==.*$", CONSTRAINTS.read_text(), re.MULTILINE)[0]
    only = ROOT / ".venv-newest" / "torch.txt"
    only.write_text(torch + "\n")
    # They may be newer than pyproject.toml allows: that is the question.
    command = [
        newest,
        "-m",
        "pip",
        "install",
        "-q",
        "--upgrade",
        "-c",
        only,
        "torch",
        "tensordict",
        "torchrl",
    ]
    subprocess.run(command, check=True)
    passed["newest"] = holds("newest", newest)
    print(*(f"{name}: {'passed' if ok else 'FAILED'}" for name, ok in passed.items()), sep="\n")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
