"""Training until some condition holds: the loop, what is kept of it, signals, and NaN."""
