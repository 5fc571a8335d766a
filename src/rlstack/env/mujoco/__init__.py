"""Many simulations of MuJoCo at once: a base class for tasks, and tasks of Gymnasium and of DM Control.

Their models are files of those packages, which have to be installed. MuJoCo is imported when an environment
is made.
"""

from .base import MujocoEnv as MujocoEnv
from .dm_control_tasks import CartpoleSwingup as CartpoleSwingup
from .dm_control_tasks import CheetahRun as CheetahRun
from .dm_control_tasks import ReacherEasy as ReacherEasy
from .dm_control_tasks import WalkerWalk as WalkerWalk
from .gymnasium_reacher import Reacher as Reacher
from .gymnasium_tasks import Ant as Ant
from .gymnasium_tasks import HalfCheetah as HalfCheetah
from .gymnasium_tasks import Hopper as Hopper
from .gymnasium_tasks import Swimmer as Swimmer
from .gymnasium_tasks import Walker2d as Walker2d
from .state import State as State
