"""Benchmarks beside an earlier rlstack: the interval, what is measured, and what is kept."""

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A contestant that needs no torch: it says which rlstack it got, and with which interpreter.
CONTESTANT = """
import json, pathlib, sys
import rlstack
with pathlib.Path(__file__).with_name("calls").open("a") as calls:
    calls.write(f"{rlstack.RATE} {sys.executable}\\n")
print(json.dumps({"rate": rlstack.RATE, "code": rlstack.__file__}))
"""


@pytest.fixture
def against(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import against

    return against


# A git hook's GIT_DIR leads to another repository, and a `make` around this suite hands its own flags on;
# two files of one size and second share bytecode.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "MAKE", "MFLAGS"))
}
ENVIRONMENT["PYTHONDONTWRITEBYTECODE"] = "1"


class Checkout:
    """A checkout with these benchmarks, and an rlstack that has nothing but a rate."""

    def __init__(self, root):
        self.root = root
        self.contestant = root / "benchmarks/contestants/ours.py"
        self.contestant.parent.mkdir(parents=True)
        for name in ("report", "throughput", "against", "contestants/common"):
            shutil.copy(ROOT / f"benchmarks/{name}.py", root / f"benchmarks/{name}.py")
        for name in ("pyproject.toml", "constraints.txt", "Makefile"):
            shutil.copy(ROOT / name, root / name)
        (root / "benchmarks/results").mkdir()
        (root / ".gitignore").write_text(".bench/\n.venv/\n__pycache__/\ncalls\n")
        self.contestant.write_text(CONTESTANT)
        self.rate(100.0)
        self.git("init", "-q")
        self.commit()

    def rate(self, rate):
        package = self.root / "src/rlstack/__init__.py"
        package.parent.mkdir(parents=True, exist_ok=True)
        package.write_text(f"RATE = {rate}\n")

    def git(self, *arguments):
        settings = ("user.name=Test", "user.email=test@example.com", "commit.gpgsign=false")
        options = [part for setting in settings for part in ("-c", setting)]
        done = self.run("git", *options, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self):
        self.git("add", ".")
        self.git("commit", "-q", "-m", "A commit")
        return self.git("rev-parse", "HEAD").strip()

    def run(self, *command, **environment):
        return subprocess.run(
            [str(part) for part in command],
            cwd=self.root,
            env=ENVIRONMENT | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def against(self, *arguments):
        return self.run(sys.executable, "benchmarks/against.py", *arguments)

    def calls(self):
        """Return the rate and the interpreter of each process there was, and forget them."""
        file = self.contestant.with_name("calls")
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        file.unlink(missing_ok=True)
        return [(float(rate), interpreter) for rate, interpreter in lines]

    def rates(self):
        return [rate for rate, _ in self.calls()]


@pytest.fixture
def checkout(tmp_path):
    if not shutil.which("git"):
        pytest.skip("needs git")
    return Checkout(tmp_path)


class TestInterval:
    @pytest.mark.parametrize(
        ("count", "low", "middle", "high"),
        [
            # Of logarithms 0, 1, …, n - 1 the k-th smallest Walsh average, with k of the signed ranks.
            (6, 0.0, 2.5, 5.0),  # k = 1: 2 P(W = 0) = 2 / 64
            (9, 1.5, 4.0, 6.5),  # k = 6 of 0, 0.5, 1, 1, 1.5, 1.5, …: 2 P(W ≤ 5) = 20 / 512
            (15, 4.5, 7.0, 9.5),  # k = 26: 25 averages are at most 4
        ],
    )
    def test_by_hand(self, against, count, low, middle, high):
        ratios = [2.0**exponent for exponent in range(count)]
        random.Random(0).shuffle(ratios)
        assert against.interval(ratios) == pytest.approx((2**middle, 2**low, 2**high))

    def test_five_pairs_show_nothing(self, against):
        assert against.interval([2.0] * 5) == pytest.approx((2.0, 0.0, float("inf")))

    def test_excludes_one_where_the_test_rejects(self, against):
        # The interval holds what the exact signed-rank test doesn't reject: here by all 256 sets of signs.
        chance = random.Random(1)
        sums = [
            sum(r for r, s in zip(range(1, 9), signs, strict=True) if s)
            for signs in itertools.product((0, 1), repeat=8)
        ]
        verdicts = set()
        for _ in range(100):
            logs = [chance.gauss(0.7, 1.0) for _ in range(8)]
            ranks = {log: rank for rank, log in enumerate(sorted(logs, key=abs), 1)}
            positive = sum(rank for log, rank in ranks.items() if log > 0)
            p = 2 * sum(s <= min(positive, 36 - positive) for s in sums) / 256
            _, low, high = against.interval([2.0**log for log in logs])
            assert (low > 1 or high < 1) == (p <= 0.05)
            verdicts.add(against.verdict(low, high))
        assert {"faster", "no difference shown"} <= verdicts

    def test_one_slow_minute_is_no_difference(self, against):
        _, low, high = against.interval([0.99, 1.01] * 7 + [0.1])
        assert 0.98 < low < 1 < high < 1.02


class TestVerdicts:
    @pytest.mark.parametrize(
        ("rate", "row", "verdict"),
        [
            (150.0, "| 150 | 100 | 1.500 (1.500–1.500) | 6 |", "- full: faster"),
            (80.0, "| 80 | 100 | 0.800 (0.800–0.800) | 6 |", "- full: slower"),
            (100.0, "| 100 | 100 | 1.000 (1.000–1.000) | 6 |", "- full: no difference shown"),
        ],
    )
    def test_of_six_pairs(self, checkout, rate, row, verdict):
        checkout.rate(rate)
        done = checkout.against("HEAD", "--lines", "full", "--pairs", "6")
        assert done.returncode == 0, done.stderr
        assert row in done.stdout
        assert done.stdout.splitlines()[-1] == verdict

    def test_two_pairs_are_too_few(self, checkout):
        checkout.rate(150.0)
        done = checkout.against("HEAD", "--lines", "small", "full", "--pairs", "2")
        assert "| 150 | 100 | 1.500 (six pairs at least) | 2 |" in done.stdout
        verdicts = ["- full: no difference shown", "- small: no difference shown"]
        assert done.stdout.splitlines()[-2:] == verdicts


class TestPairs:
    def test_alternate_and_go_on(self, checkout):
        checkout.rate(150.0)
        checkout.against("HEAD", "--lines", "full", "--pairs", "2")
        assert checkout.rates() == [150.0, 100.0, 100.0, 150.0]
        done = checkout.against("HEAD", "--lines", "full", "--pairs", "3")
        assert checkout.rates() == [150.0, 100.0]
        assert done.stdout.startswith("full 3/3 150 / 100 = 1.500")
        checkout.against("HEAD", "--lines", "full", "--pairs", "1", "--fresh")
        assert checkout.rates() == [150.0, 100.0]

    def test_of_other_code_are_not_mixed(self, checkout):
        checkout.against("HEAD", "--lines", "full", "--pairs", "2")
        checkout.calls()
        checkout.rate(150.0)
        done = checkout.against("HEAD", "--lines", "full", "--pairs", "1")
        assert checkout.rates() == [150.0, 100.0]
        assert "| 150 | 100 | 1.500 (six pairs at least) | 1 |" in done.stdout
        # Another revision has pairs of its own.
        checkout.commit()
        checkout.against("HEAD", "--lines", "full", "--pairs", "1")
        assert checkout.rates() == [150.0, 150.0]
        # The first code again: its two pairs are still there.
        checkout.rate(100.0)
        done = checkout.against("HEAD~1", "--lines", "full", "--pairs", "2")
        assert (checkout.rates(), done.returncode) == ([], 0)

    def test_is_dropped_if_the_code_changes_meanwhile(self, checkout):
        package = checkout.root / "src/rlstack/__init__.py"
        package.write_text('RATE = 1.0\nopen(__file__, "a").write("#")\n')
        done = checkout.against("HEAD", "--lines", "full", "--pairs", "1")
        assert done.returncode == 1
        assert done.stderr.startswith("full: the code has changed while it was measured")
        assert not list((checkout.root / ".bench").rglob("full-*.json"))


class TestRevision:
    def test_leaves_the_checkout_as_it_is(self, checkout):
        checkout.rate(150.0)
        before = checkout.git("status", "--porcelain")
        first = checkout.against("HEAD", "--lines", "full", "--pairs", "1")
        assert first.returncode == 0, first.stderr
        tree = checkout.root / ".bench/against" / checkout.git("rev-parse", "HEAD").strip() / "tree"
        assert (tree / "src/rlstack/__init__.py").read_text() == "RATE = 100.0\n"
        assert checkout.git("status", "--porcelain") == before
        assert checkout.git("worktree", "list").count("\n") == 1

    def test_has_its_own_environment_if_it_needs_other_packages(self, checkout):
        commit = checkout.git("rev-parse", "HEAD").strip()
        with (checkout.root / "constraints.txt").open("a") as file:
            file.write("another==1.0\n")
        binaries = checkout.root / ".bench/against" / commit / "venv/bin"
        binaries.mkdir(parents=True)
        (binaries / "python").symlink_to(sys.executable)
        (binaries.parent / ".installed").touch()
        done = checkout.against("HEAD", "--lines", "full", "--pairs", "1")
        assert done.returncode == 0, done.stderr
        assert [interpreter for _, interpreter in checkout.calls()] == [
            sys.executable,
            str(binaries / "python"),
        ]
        # With the same packages, it shares this one.
        checkout.commit()
        checkout.against("HEAD", "--lines", "full", "--pairs", "1")
        assert [interpreter for _, interpreter in checkout.calls()] == [sys.executable] * 2

    def test_another_rlstack_is_an_error(self, checkout):
        # As if what is installed came before the revision.
        checkout.contestant.write_text(
            f"import sys\nsys.path.insert(0, {str(checkout.root / 'src')!r}){CONTESTANT}"
        )
        done = checkout.against("HEAD", "--lines", "full", "--pairs", "1")
        assert done.returncode == 1
        assert f"measured {checkout.root}/src/rlstack/__init__.py, expected the rlstack in" in done.stderr


class TestCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nope"], "the revision is 'nope', expected a commit of this checkout: see `git log` (fatal: "),
            (["--", "--all"], "the revision is '--all', expected a commit of this checkout"),
            (["HEAD", "--lines", "nope"], "argument --lines: invalid choice: 'nope' (choose from 'full', "),
            (["HEAD", "--pairs", "0"], "--pairs is 0, expected at least 1"),
            (["HEAD", "--pairs", "x"], "argument --pairs: invalid int value: 'x'"),
        ],
    )
    def test_mistakes_are_one_sentence(self, checkout, arguments, message):
        done = checkout.against(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"against.py: {message}")
        assert done.stderr.count("\n") == 1
        assert checkout.calls() == []

    def test_a_revision_without_rlstack(self, checkout):
        shutil.rmtree(checkout.root / "src")
        checkout.commit()
        done = checkout.against("HEAD")
        assert (done.returncode, done.stderr) == (
            2,
            "against.py: the revision 'HEAD' has no src/rlstack: choose a later one\n",
        )

    def test_make(self, checkout):
        if not shutil.which("make"):
            pytest.skip("needs make")
        binaries = checkout.root / ".venv/bin"
        binaries.mkdir(parents=True)
        (binaries / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (binaries / "python").chmod(0o755)
        (binaries.parent / ".installed").touch()
        checkout.rate(150.0)
        done = checkout.run("make", "bench", "LINES=full small", "AGAINST=HEAD", "PAIRS=6")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-2:] == ["- full: faster", "- small: faster"]
        [written] = (checkout.root / "benchmarks/results").glob("against-*.md")
        commit = checkout.git("rev-parse", "--short=10", "HEAD").strip()
        text = written.read_text()
        assert f'`make bench LINES="full small" AGAINST={commit} PAIRS=6`' in text
        assert f"This checkout is {commit}-dirty." in text
        assert "| 150 | 100 | 1.500 (1.500–1.500) | 6 |" in text
        raw = written.with_suffix(".json").read_text()
        assert len(json.loads(raw)["measured"]["small"]["pairs"]) == 6
        assert str(checkout.root) not in text + raw

    def test_make_without_a_revision(self, checkout):
        if not shutil.which("make"):
            pytest.skip("needs make")

        def command(*variables, **environment):
            done = checkout.run("make", "-n", "bench", *variables, **environment)
            return " ".join(done.stdout.replace("\\\n", " ").splitlines()[-1].split())

        script = ".venv/bin/python benchmarks/throughput.py"
        assert command("LINES=full small") == f"{script} --lines full small --write"
        # A shell may have exported the height of its terminal.
        assert command(LINES="24") == f"{script} --write"
        done = checkout.run(sys.executable, "benchmarks/throughput.py", "--lines", "nope")
        assert done.returncode == 2
        assert done.stderr.startswith("throughput.py: argument --lines: invalid choice: 'nope'")


@pytest.mark.slow
def test_the_real_one_beside_the_last_commit(against, monkeypatch, tmp_path, capsys):
    if not shutil.which("git") or against.git("rev-parse", "--verify", "HEAD:./src/rlstack").returncode:
        pytest.skip("needs rlstack's git history, which this copy hasn't")
    throughput = against.throughput
    work = throughput.Work(num_envs=16, horizon=2, minibatch=32, hiddens=(8,), epochs=1, iterations=1)
    monkeypatch.setitem(throughput.LINES, "tiny", throughput.Line("tiny", work))
    monkeypatch.setattr(against, "HOME", tmp_path)
    monkeypatch.setattr(sys, "argv", ["against.py", "HEAD", "--lines", "tiny", "--pairs", "1"])
    against.main()
    assert capsys.readouterr().out.splitlines()[-1] == "- tiny: no difference shown"
    [kept] = tmp_path.rglob("tiny-*.json")
    [pair] = json.loads(kept.read_text())["pairs"]
    assert min(pair["ours"]["rate"], pair["theirs"]["rate"]) > 0
