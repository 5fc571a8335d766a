"""Promises, each shown by a command: `make prove`, or `python -m proofs NAME …` for some of them.

Small samples of all of them are in the test suite.
"""
