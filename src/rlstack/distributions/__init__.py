"""Action distributions: how an action is drawn from what the model says of an observation."""

from .base import Distribution as Distribution
from .default import OWN as OWN
from .default import check_bounds as check_bounds
from .default import default_distribution as default_distribution
from .discrete import Bernoulli as Bernoulli
from .discrete import Categorical as Categorical
from .discrete import OneHotCategorical as OneHotCategorical
from .normal import Normal as Normal
from .normal import SquashedNormal as SquashedNormal
from .normal import expected_log_slope as expected_log_slope
from .normal import log_slope as log_slope
from .normal import slope_mixture as slope_mixture
