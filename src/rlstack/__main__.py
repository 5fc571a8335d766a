"""`python -m rlstack` is the command line."""

import sys

if not sys.flags.safe_path:
    # The working directory, whose random.py would be taken for Python's: the command line appends it.
    del sys.path[0]

from .cli.app import main

main()
