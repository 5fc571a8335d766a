"""Transitions per second beside an earlier rlstack, on the lines of `throughput.py`.

    python benchmarks/against.py REVISION [--lines full minibatch …] [--pairs 15] [--write]

The revision is taken out of git to `.bench/against`; nothing of the checkout changes. If it asks for the same
packages as the checkout (`dependencies` of pyproject.toml and all of constraints.txt), this interpreter runs
it too, with the revision's `src` before what is installed; otherwise it gets an environment of its own, by
its own constraints. Each process says which rlstack it has imported; any but the one meant is an error.

Each measurement is a fresh process. They come in pairs, and which one goes first alternates. A line is slower
or faster if an exact 95 % interval of its ratio (see `interval`) doesn't hold 1. Choose the number of pairs
beforehand: adding some until there is a verdict finds differences that don't exist. By chance alone, one of
four unchanged lines gets a verdict in nearly every fifth table. "No difference shown" isn't "as fast": the
interval tells how much slower it may still be, and a busy machine makes it wide.

What was measured is kept in `.bench/against` as it comes, and another call goes on from there, as long as
neither `src` nor the work has changed; `--fresh` begins anew. `--write` puts the table under
`benchmarks/results`.
"""

import argparse
import hashlib
import json
import math
import shutil
import statistics
import subprocess
import sys
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import report
import throughput
from throughput import LINES, ROOT

HOME = throughput.BENCH / "against"
OURS = [ROOT / "src", *(throughput.HERE / "contestants" / name for name in ("common.py", "ours.py"))]
OURS += [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
"""What a measurement of ours depends on, besides the line's work."""


@dataclass(frozen=True)
class Revision:
    """An earlier rlstack that can be run."""

    commit: str
    src: Path
    interpreter: Path


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Return the typical ratio of pairs and the ends of its 95 % interval.

    Of the Walsh averages (ℓᵢ + ℓⱼ) / 2, i ≤ j, of the logarithms ℓ: the median, and the k-th from either end,

        k = max{k: 2 P(W < k) ≤ 0.05}   with   W = the signed-rank statistic of n pairs that don't differ

    Exact for independent pairs with symmetric noise, and one slow minute hardly moves it (Wilcoxon 1945;
    Hodges & Lehmann 1963; Hollander, Wolfe & Chicken, Nonparametric Statistical Methods, 2014, ch. 3).

    Args:
        ratios: [n]. Fewer than six can't show anything at 95 %: their interval is (0, inf).
    """
    logs = [math.log(ratio) for ratio in ratios]
    walsh = sorted((a + b) / 2 for i, a in enumerate(logs) for b in logs[i:])
    # ways[w]: sets of ranks that sum up to w, each as probable as any other.
    ways = [1] + [0] * len(walsh)
    for rank in range(1, len(logs) + 1):
        for w in range(len(walsh), rank - 1, -1):
            ways[w] += ways[w - rank]
    k, below = 0, ways[0]
    while 2 * below <= 0.05 * 2 ** len(logs):
        k += 1
        below += ways[k]
    low, high = (walsh[k - 1], walsh[-k]) if k else (-math.inf, math.inf)
    return math.exp(statistics.median(walsh)), math.exp(low), math.exp(high)


def verdict(low: float, high: float) -> str:
    """Return what an interval of ratios ours / theirs says."""
    return "faster" if low > 1 else "slower" if high < 1 else "no difference shown"


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Return what git did, in the checkout."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def resolve(revision: str) -> str:
    """Return the hash of the commit that a revision names.

    Raises:
        ValueError: Git has no such commit here, or there is no rlstack in it.
    """
    found = git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    commit = found.stdout.strip()
    if found.returncode:
        reason = " ".join(found.stderr.split())
        raise ValueError(
            f"the revision is {revision!r}, expected a commit of this checkout: see `git log` ({reason})"
        )
    if git("cat-file", "-e", f"{commit}:./src/rlstack/__init__.py").returncode:
        raise ValueError(f"the revision {revision!r} has no src/rlstack: choose a later one")
    return commit


def packages(tree: Path) -> tuple[list[str], str]:
    """Return which packages an rlstack asks for, and at which versions they are installed."""
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    constraints = tree / "constraints.txt"
    return sorted(project["dependencies"]), constraints.read_text() if constraints.exists() else ""


def prepare(commit: str) -> Revision:
    """Return the rlstack of a commit, after taking it out of git and installing what it needs, if need be."""
    home = HOME / commit
    tree = home / "tree"
    if not tree.exists():
        home.mkdir(parents=True, exist_ok=True)
        archive, beside = home / "tree.zip", home / "tree.new"
        done = git("archive", "--format=zip", f"--output={archive}", commit)
        if done.returncode:
            raise RuntimeError(f"git archive failed:\n{done.stderr}")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.unpack_archive(archive, beside)
        archive.unlink()
        # Under its name only when it is whole.
        beside.rename(tree)
    interpreter = Path(sys.executable)
    if packages(tree) != packages(ROOT):
        pins = next(
            place / "constraints.txt" for place in (tree, ROOT) if (place / "constraints.txt").exists()
        )
        interpreter = throughput.installed(home / "venv", (str(tree),), pins)
    return Revision(commit, tree / "src", interpreter)


def fingerprint(line: str) -> str:
    """Return a hash of what a measurement of ours depends on."""
    files = (file for path in OURS for file in ([path] if path.is_file() else sorted(path.rglob("*.py"))))
    texts = {str(file.relative_to(ROOT)): file.read_text() for file in files}
    return hashlib.sha256(json.dumps([asdict(LINES[line].work), texts]).encode()).hexdigest()[:12]


def measured(line: str, commit: str) -> tuple[Path, dict[str, Any]]:
    """Return where the pairs of a line are kept, and what is there."""
    path = HOME / commit / f"{line}-{fingerprint(line)}.json"
    return path, json.loads(path.read_text()) if path.exists() else {"line": line, "pairs": []}


def measure(line: str, revision: Revision, count: int, fresh: bool) -> None:
    """Measure pairs of a line until there are so many, and keep them."""
    path, state = measured(line, revision.commit)
    pairs = state["pairs"] = [] if fresh else state["pairs"]
    sides = {
        "ours": (Path(sys.executable), ROOT / "src"),
        "theirs": (revision.interpreter, revision.src),
    }
    while len(pairs) < count:
        start = time.perf_counter()
        order = list(sides) if len(pairs) % 2 == 0 else list(reversed(sides))
        pair: dict[str, Any] = {
            side: throughput.play_rlstack(*sides[side], LINES[line].work) for side in order
        }
        if measured(line, revision.commit)[0] != path:
            sys.exit(
                f"{line}: the code has changed while it was measured, so this pair is dropped: call again"
            )
        seconds = time.perf_counter() - start
        pairs.append(pair | {"first": order[0], "seconds": seconds})
        throughput.keep(path, state)
        mine, their = pair["ours"]["rate"], pair["theirs"]["rate"]
        print(
            f"{line} {len(pairs)}/{count} {mine:,.0f} / {their:,.0f} = {mine / their:.3f} in {seconds:.0f} s",
            flush=True,
        )


def table(commit: str) -> list[str]:
    """Return the table of all lines that were measured, and their verdicts."""
    rows = [
        f"| line | this checkout, transitions/s | {commit[:10]} | ratio (95 % interval) | pairs |",
        "|---|---|---|---|---|",
    ]
    verdicts = []
    for line in LINES:
        pairs = measured(line, commit)[1]["pairs"]
        if not pairs:
            continue
        mine, theirs = ([pair[side]["rate"] for pair in pairs] for side in ("ours", "theirs"))
        ratio, low, high = interval([a / b for a, b in zip(mine, theirs, strict=True)])
        rates = [f"{statistics.median(values):,.0f}" for values in (mine, theirs)]
        span = f"{low:.3f}–{high:.3f}" if low else "six pairs at least"
        cells = (LINES[line].title, *rates, f"{ratio:.3f} ({span})", str(len(pairs)))
        rows.append(f"| {' | '.join(cells)} |")
        verdicts.append(f"- {line}: {verdict(low, high)}")
    return [*rows, "", *verdicts]


def write(args: argparse.Namespace, commit: str, rows: list[str]) -> None:
    """Write the table and what it is made of under `benchmarks/results`."""
    lines = {line: state for line in LINES if (state := measured(line, commit)[1])["pairs"]}
    ours = git("describe", "--always", "--abbrev=10", "--dirty").stdout.strip()
    command = f'make bench LINES="{" ".join(lines)}" AGAINST={commit[:10]} PAIRS={args.pairs}'
    note = (
        f"This checkout is {ours}. Medians; ratios of alternating pairs with the exact interval of the\n"
        "signed-rank test. A line is slower or faster if its interval doesn't hold 1."
    )
    name = f"against-{commit[:10]}"
    path = report.write(name, "Transitions per second beside an earlier rlstack", command, note, rows)
    raw = {"machine": report.machine(), "ours": ours, "theirs": commit, "measured": lines}
    path.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")


def main() -> None:
    parser = throughput.Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("revision", help="a commit of this checkout, as git names it")
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))
    parser.add_argument("--pairs", type=int, default=15, help="how many in all; six or more for a verdict")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured of these lines before")
    parser.add_argument("--write", action="store_true", help="write the table under benchmarks/results")
    args = parser.parse_args()
    if args.pairs < 1:
        parser.error(f"--pairs is {args.pairs}, expected at least 1: 15 show differences of a few percent")
    try:
        commit = resolve(args.revision)
    except ValueError as error:
        parser.error(str(error))
    revision = prepare(commit)
    for line in args.lines:
        measure(line, revision, args.pairs, args.fresh)
    rows = table(commit)
    print(*rows, sep="\n")
    if args.write:
        write(args, commit, rows)


if __name__ == "__main__":
    main()
