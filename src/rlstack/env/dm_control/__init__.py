"""Tasks of DM Control's suite by name, many instances in worker processes."""

from .tasks import make as make
