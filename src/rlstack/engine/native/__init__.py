"""Small optimizer steps in machine code, for those who have numba, which the extra `fast` installs."""
