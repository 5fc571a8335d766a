"""Training with action masks: every engine agrees, and who allows nothing is named."""

import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm, EnvError, HparamsError, RecurrentAlgorithm, specs
from rlstack.env import Env

from ..engine.test_engine import assert_replays
from ..engine.test_kernels import assert_same
from ..helpers import parameters, update

MASKED = {
    Algorithm: {"model_config": {"hiddens": [8], "action_mask_key": "may"}},
    RecurrentAlgorithm: {"model_config": {"hidden_size": 6, "action_mask_key": "may"}, "seq_len": 2},
}
SMALL = {"num_envs": 6, "horizon": 4, "seed": 1, "device": "cpu", **MASKED[Algorithm]}


class Doors(Env):
    """Some of four doors are open, by chance, and the higher ones lead to more."""

    choices, width = specs.Categorical(4, shape=(1,)), (1, 4)

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        dtype = torch.get_default_dtype()
        self.observation_spec = specs.Composite(
            place=specs.Unbounded((2,), dtype=dtype), may=specs.Binary(shape=self.width, dtype=torch.bool)
        )
        self.action_spec = self.choices
        self.may = torch.zeros(num_envs, *self.width, dtype=torch.bool)
        self.bad = torch.zeros((), dtype=torch.int64)

    def reset(self, *, config=None):
        self.may = torch.rand(self.num_envs, *self.width) < 0.5
        # The first of each.
        self.may[..., 0] = True
        if self.width == (5,):
            self.may[..., 2] = True
        return self.observe()

    def observe(self):
        place = torch.randn(self.num_envs, 2, dtype=torch.get_default_dtype())
        return TensorDict({"place": place, "may": self.may}, self.num_envs)

    def step(self, action):
        self.bad = self.bad + (~self.chosen(action)).sum()
        rewards = action.flatten(1).to(torch.get_default_dtype()).cumsum(-1).mean(-1, keepdim=True)
        return TensorDict({"obs": self.reset(), "rewards": rewards}, self.num_envs)

    def chosen(self, action):
        """Whether what was chosen is allowed."""
        if self.width == (5,):
            return self.may.gather(-1, action + torch.tensor([0, 2]))
        return self.may.gather(-1, action.unsqueeze(-1))


class Several(Doors):
    choices, width = specs.MultiCategorical([2, 3]), (5,)


class OneOf(Doors):
    choices, width = specs.OneHot(4), (4,)

    def chosen(self, action):
        return (self.may & action).any(-1)


ENVS = [Doors, Several, OneOf]
MODES = [{}, {"sgd_minibatch_size": 16, "entropy_coeff": 0.1, "grad_block_size": 7}]


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("cls", MASKED)
@pytest.mark.parametrize("env_cls", ENVS)
def test_kernels_do_what_autograd_does(float64, env_cls, cls, mode):
    assert_same(cls, env_cls, 1e-9, **{**MASKED[cls], **mode})


@pytest.mark.parametrize("cls", MASKED)
@pytest.mark.parametrize("env_cls", [Doors, Several])
def test_recordings_do_what_is_done_without(env_cls, cls):
    algorithm = assert_replays(cls, env_cls, **MASKED[cls], entropy_coeff=0.1)
    assert algorithm.env.bad == 0


@pytest.mark.parametrize("cls", MASKED)
@pytest.mark.parametrize("engine", ["auto", "eager"])
@pytest.mark.parametrize("env_cls", ENVS)
def test_nothing_forbidden_is_done_while_training(env_cls, engine, cls):
    options = {"num_envs": 64, "horizon": 16, "seed": 1, "device": "cpu", "engine": engine}
    algorithm = cls(env_cls, **options, **MASKED[cls], normalize_observations=True, entropy_coeff=0.01)
    before = parameters(algorithm)
    for _ in range(2):
        stats = update(algorithm)
        assert 0 < stats["losses/entropy"] < 1.5
    algorithm.eval()
    assert algorithm.env.bad == 0
    after = parameters(algorithm)
    assert after.isfinite().all()
    assert not torch.equal(after, before)


def closing(step):
    """Return an environment in which nothing is allowed in a step of the horizon, in environment 2."""

    class Closing(Doors):
        clock = 0

        def reset(self, *, config=None):
            super().reset()
            self.may = self.may.clone()
            if self.clock == step:
                self.may[2] = False
            return self.observe()

        def step(self, action):
            self.clock += 1
            return super().step(action)

    return Closing


@pytest.mark.parametrize("engine", ["auto", "eager"])
@pytest.mark.parametrize("step", [0, 3])
def test_where_nothing_is_allowed_is_said(step, engine):
    algorithm = Algorithm(closing(step), **SMALL, engine=engine)
    with pytest.raises(EnvError) as error:
        algorithm.collect()
    assert str(error.value) == (
        f"obs.may of environment 2 from Closing allows no action in step {step} of the horizon: "
        "let it be True for at least one choice of each action, or end the episode"
    )
    assert error.value.__cause__ is None
    assert algorithm.collect()["env/steps"] > 0


def test_it_is_named_where_the_environment_raises_because_of_it():
    class Raising(closing(2)):
        def step(self, action):
            if not self.chosen(action).all():
                raise IndexError("no such door")
            return super().step(action)

    # One of four would be chosen, and none is open.
    with pytest.raises(EnvError, match="allows no action in step 2 of the horizon") as error:
        Algorithm(Raising, **SMALL).collect()
    assert "no such door" in str(error.value.__cause__)


def test_other_errors_are_not_blamed_on_steps_that_were_never_taken():
    class Broken(Doors):
        def step(self, action):
            raise IndexError("no such door")

    algorithm = Algorithm(Broken, **SMALL)
    for _ in range(2):
        with pytest.raises(EnvError, match="no such door"):
            algorithm.collect()


def test_nothing_need_be_allowed_after_the_last_step():
    algorithm = Algorithm(closing(4), **SMALL)
    assert update(algorithm)["losses/total"] != 0


@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_nor_in_steps_that_do_not_count(engine):
    class Skipping(closing(2)):
        def step(self, action):
            stuck = self.may.flatten(1).sum(-1, keepdim=True) == 0
            out = super().step(action)
            out["valid"] = ~stuck
            return out

    algorithm = Algorithm(Skipping, **SMALL, engine=engine)
    stats = update(algorithm)
    assert stats["losses/entropy"] > 0
    assert parameters(algorithm).isfinite().all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"action_mask_key": "my"}, r"action_mask_key is 'my', expected a leaf .*: did you mean may\?"),
        ({"action_mask": "may"}, "action_mask is not an option of DiscreteMLP: did you mean action_mask_key"),
    ],
)
def test_a_wrong_key_is_an_error_of_the_hyperparameters(config, message):
    with pytest.raises(HparamsError, match=message):
        Algorithm(Doors, **{**SMALL, "model_config": config})
