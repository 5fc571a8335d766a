"""Sweeps: many runs of one training, in search of better hyperparameters."""
