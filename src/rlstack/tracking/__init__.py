"""Metrics: the journal on disk, and from there to MLflow."""
