"""Runnable measurements; dated results are in `results`."""
