"""Run the proofs, all or some by name, and write what they found under benchmarks/results.

python -m proofs [NAME …] [--write]
"""

import argparse
import json
import logging
import signal
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from . import (
    configs,
    damage,
    disk,
    envs,
    hostile,
    kills,
    memory,
    modes,
    outages,
    ranks,
    seeds,
    signals,
    sweeps,
)

PROOFS = {
    "R1 kills": kills.prove,
    "R2 modes": modes.prove,
    "R3 damage": damage.prove,
    "R4 configs": configs.prove,
    "R5 R6 envs": envs.prove,
    "R7 outages": outages.prove,
    "R8 disk": disk.prove,
    "R9 signals": signals.prove,
    "R10 hostile": hostile.prove,
    "R11 seeds": seeds.prove,
    "R12 memory": memory.prove,
    "R13 sweeps": sweeps.prove,
    "R14 ranks": ranks.prove,
}
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def main() -> int:
    """Run what is asked for; return 0 if all of it held."""
    parser = argparse.ArgumentParser(prog="python -m proofs", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which, of {', '.join(PROOFS)}; all by default"
    )
    parser.add_argument("--write", action="store_true", help="write the results under benchmarks/results")
    arguments = parser.parse_args()
    known = [name.split()[-1] for name in PROOFS]
    if unknown := set(arguments.names) - set(known):
        parser.error(f"there is no proof {', '.join(unknown)}: expected {', '.join(known)}")
    # A shell ignores the one for what it runs in the background, nohup the other, and so would trainings.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # Each damaged checkpoint would be named.
    logging.getLogger("rlstack").setLevel(logging.ERROR)
    found = {}
    for name in [name for name in PROOFS if name.split()[-1] in (arguments.names or name)]:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as directory:
            found[name] = PROOFS[name](Path(directory))
        found[name]["seconds"] = round(time.monotonic() - start)
        print(f"{name}: {json.dumps(found[name])}", flush=True)
    if arguments.write:
        path = RESULTS / f"proofs-{date.today()}.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**before, **found}, indent=2) + "\n")
    return 0 if all(result["held"] for result in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
