"""Runs on disk: their directories, configurations and checkpoints."""
