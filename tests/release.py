"""Build what is released and try it: `make release`. Nothing is uploaded. See docs/releasing.md."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME, DIST = ROOT / ".release", ROOT / "dist"
CONSTRAINTS = ["-c", str(ROOT / "constraints.txt")]


def main(tests: list[str]) -> None:
    """Build, check, install and test; end with what is wrong, if something is."""
    check()
    shutil.rmtree(HOME, ignore_errors=True)
    shutil.rmtree(DIST, ignore_errors=True)
    [sdist, wheel] = build()
    try_wheel(wheel)
    test_sdist(sdist, tests)
    print(f"{sdist.name} and {wheel.name} can be released: {DIST}")


def check() -> None:
    """Refuse a version that isn't said everywhere, and what isn't committed."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if sections[0] != version:
        sys.exit(f"CHANGELOG.md begins with {sections[0]}, pyproject.toml has the version {version}")
    if f"\nversion: {version}\n" not in (ROOT / "CITATION.cff").read_text():
        sys.exit(f"CITATION.cff has another version than pyproject.toml, {version}")
    if changed := output("git", "status", "--porcelain"):
        sys.exit(f"There is what isn't committed:\n{changed}")


def build() -> list[Path]:
    """Return the source distribution, which holds what git has, and the wheel that is built from it."""
    python = environment("build", "build", "twine")
    run(python, "-m", "build", "--outdir", DIST, ROOT)
    [sdist], [wheel] = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    run(python, "-m", "twine", "check", "--strict", sdist, wheel)
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    if missing := sorted(set(output("git", "ls-files").splitlines()) - held):
        sys.exit(f"{sdist.name} lacks what git has: {', '.join(missing)}")
    return [sdist, wheel]


def try_wheel(wheel: Path) -> None:
    """Train, judge and export a policy where nothing but the wheel is installed, outside the repository."""
    python = environment("wheel", f"{wheel}[export]", *CONSTRAINTS)
    rlstack = python.with_name("rlstack")
    with tempfile.TemporaryDirectory() as place:
        said = run(rlstack, "--version", cwd=place)
        if wheel.name.split("-")[1] not in said:
            sys.exit(f"rlstack --version says {said}")
        limits = ["--max-updates", "2", "--tracking", "off", "--run-dir", "run"]
        run(rlstack, "train", "cartpole", *limits, cwd=place)
        run(rlstack, "eval", "run", "--num-envs", "4", "--steps", "8", cwd=place)
        made = json.loads(run(rlstack, "export", "run", "--to", "onnx", "--json", cwd=place))
        print(f"An exported policy differs by at most {made['largest_error']:.2g}")


def test_sdist(sdist: Path, tests: list[str]) -> None:
    """Run the tests that the source distribution has, from it."""
    with tarfile.open(sdist) as archive:
        archive.extractall(HOME / "sdist", filter="data")
    [place] = (HOME / "sdist").iterdir()
    python = environment("tests", "-e", f"{place}[dev,viz]", *CONSTRAINTS)
    command = [python, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", "-m", "not slow and not gpu"]
    run(*command, *tests, cwd=place)


def environment(name: str, *requirements: str) -> Path:
    """Return the Python of a fresh environment in which these are installed."""
    venv.create(HOME / name, with_pip=True)
    python = HOME / name / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(python, "-m", "pip", "install", "-q", *requirements)
    return python


def run(*command: object, cwd: Path | str = ROOT) -> str:
    """Run a command and show it; return what it printed. End where it fails."""
    print("$", shlex.join(map(str, command)), flush=True)
    done = subprocess.run([*map(str, command)], cwd=cwd, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(f"It ended with exit code {done.returncode}")
    return done.stdout


def output(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main(sys.argv[1:])
