"""Pictures of training. They need matplotlib, which comes with the extra `viz`."""
