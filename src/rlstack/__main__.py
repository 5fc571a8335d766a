"""`python -m rlstack` is the command line."""

from .cli import main

main()
