"""The algorithm: horizons, advantages, losses, optimizer steps. Complete without `rlstack.engine`."""
