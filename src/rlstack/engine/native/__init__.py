"""Small optimizer steps in machine code, for those who have numba: `pip install rlstack[fast]`."""
