"""Run the proofs, all or some by name, and write what they found under benchmarks/results.

python -m proofs [NAME …] [--write]
"""

import argparse
import json
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from . import damage, kills

PROOFS = {"kills": kills.prove, "damage": damage.prove}
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def main() -> int:
    """Run what is asked for; return 0 if all of it held."""
    parser = argparse.ArgumentParser(prog="python -m proofs", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which, of {', '.join(PROOFS)}; all by default"
    )
    parser.add_argument("--write", action="store_true", help="write the results under benchmarks/results")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(PROOFS):
        parser.error(f"there is no proof {', '.join(unknown)}: expected {', '.join(PROOFS)}")
    found = {}
    for name in arguments.names or PROOFS:
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
