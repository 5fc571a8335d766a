"""Vector environments of Gymnasium's form: one by its name, or any other, EnvPool's for example."""

from .by_name import from_vector as from_vector
from .by_name import make as make
