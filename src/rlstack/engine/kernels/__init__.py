"""The default models' passes written out for a CPU."""
