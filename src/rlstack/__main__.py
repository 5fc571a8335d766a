"""`python -m rlstack` is the command line."""

from .cli.app import main

main()
