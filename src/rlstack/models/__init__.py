"""Models: from observations to features of an action distribution and values."""

from .base import Model as Model
from .base import RecurrentModel as RecurrentModel
from .lstm import ContinuousLSTM as ContinuousLSTM
from .lstm import DiscreteLSTM as DiscreteLSTM
from .mlp import ContinuousMLP as ContinuousMLP
from .mlp import DiscreteMLP as DiscreteMLP
