"""What simulators of rsl_rl's form return, read in all generations of it, and what can't be read."""

import logging
from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm, EnvError, RecurrentAlgorithm
from rlstack.env.vec_env import from_vec_env
from rlstack.models import ContinuousMLP
from rlstack.specs import Composite, Unbounded

from ..helpers import SMALL
from . import vec_forms
from .vec_forms import made
from .walk import CONFIG


def test_groups_say_who_sees_what():
    env = made("Playground")(2)
    assert isinstance(env.observation_spec, Composite)
    assert env.observation_spec["privileged_state"] == Unbounded((3,))
    assert (env.policy_keys, env.value_keys) == (["state"], ["privileged_state"])
    assert env.action_spec == Unbounded((1,))
    algorithm = Algorithm(made("IsaacLab22"), **CONFIG, model_config=SMALL)
    model = algorithm.policy.model
    assert (model.encoder.size, model.value_encoder.size) == (2, 3)
    assert list(algorithm.policy.acting_spec.keys()) == ["policy"]
    asked = {**SMALL, "value_keys": ["policy", "critic"]}
    model = Algorithm(made("IsaacLab23"), **CONFIG, model_config=asked).policy.model
    assert (model.encoder.size, model.value_encoder.size) == (2, 5)


def test_models_of_ones_own_are_left_alone_and_recurrent_ones_keep_apart():
    algorithm = Algorithm(made("IsaacLab23"), **CONFIG, model_cls=ContinuousMLP, model_config=SMALL)
    assert algorithm.policy.model.policy_keys is None
    algorithm = RecurrentAlgorithm(made("IsaacLab23"), **CONFIG, model_config={"hidden_size": 8})
    assert list(algorithm.policy.acting_spec.keys()) == ["policy"]
    assert {"hidden", "value_hidden"} < {*algorithm.policy.state_spec.keys()}
    algorithm.collect()
    algorithm.step()


def test_one_group_is_a_tensor():
    env = made("Genesis")(2)
    assert env.observation_spec == Unbounded((2,))
    assert env.policy_keys is None
    assert env.reset().shape == (2, 2)
    alone = from_vec_env(vec_forms.LeggedGym, privileged=False)(2)
    assert alone.observation_spec == Unbounded((2,))


@pytest.mark.parametrize(
    ("groups", "policy", "value"),
    [
        ({"actor": ["critic"]}, ["critic"], ["critic"]),
        ({"policy": ["policy"], "critic": ["policy", "critic"]}, ["policy"], ["policy", "critic"]),
        ({"critic": ["policy"]}, None, None),
    ],
)
def test_groups_by_obs_groups(groups, policy, value):
    env = made("IsaacLab23", obs_groups=groups)(2)
    one = policy is None or len({*policy, *value}) == 1
    assert (env.policy_keys, env.value_keys) == ((None, None) if one else (policy, value))
    assert env.reset().shape == ((2, 3) if groups == {"actor": ["critic"]} else (2, 2) if one else (2,))


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"actor": ["policy_"]}, "obs_groups.actor has 'policy_', no group: did you mean policy?"),
        ({"critc": ["policy"]}, "obs_groups.critc is nobody's: did you mean critic?"),
        ({"actor": "policy"}, "obs_groups.actor is 'policy', expected a list of at least one group"),
    ],
)
def test_groups_that_are_none_are_named(groups, said):
    with pytest.raises(EnvError, match=said):
        made("IsaacLab23", obs_groups=groups)(2)


def test_groups_that_cannot_be_told_are_asked_for():
    class Odd(vec_forms.Genesis):
        def get_observations(self):
            return TensorDict({"body": self.obs_buf, "image": self.obs_buf}, [self.num_envs])

    with pytest.raises(EnvError, match=r"none of the groups body, image is called .* obs_groups="):
        from_vec_env(Odd)(2)
    env = from_vec_env(Odd, obs_groups={"actor": ["body"], "critic": ["body", "image"]})(2)
    assert env.value_keys == ["body", "image"]


def test_ages_are_random_after_the_first_reset_only():
    class Long(vec_forms.IsaacLab23):
        max_episode_length = 1000

    env = from_vec_env(Long)(64)
    env.reset()
    ages = env.simulator.episode_length_buf
    assert ages.dtype == torch.long
    assert len(ages.unique()) > 32
    assert 0 <= ages.min() < 200 < 800 < ages.max() < 1000
    env.reset()
    assert (env.simulator.episode_length_buf == 0).all()
    torch.manual_seed(5)
    env = from_vec_env(Long, init_at_random_ep_len=False)(64)
    env.reset()
    assert (env.simulator.episode_length_buf == 0).all()


def test_ages_that_cannot_be_set_are_told_of(caplog):
    class Fixed(vec_forms.IsaacLab23):
        episode_length_buf = property(lambda self: self.walk.ages)

    for cls in (Fixed, vec_forms.Playground):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            env = from_vec_env(cls)(2)
            env.reset()
            env.reset()
        [said] = [record.message for record in caplog.records if "episode_length_buf" in record.message]
        assert said.startswith(f"{cls.__name__} has no episode_length_buf that can be set")


def test_observations_are_asked_for_where_a_reset_does_not_tell_them():
    env = made("GenesisBefore")(2)
    assert list(env.reset().keys()) == ["policy", "critic"]
    playground = made("Playground")(2)
    playground.reset()
    # One to see what there is, one for the reset itself.
    assert playground.simulator.resets == 2


class Gymnasium(vec_forms.Genesis):
    def step(self, actions):
        obs, rewards, dones, extras = super().step(actions)
        return obs, rewards, dones, dones, extras


class Silent(vec_forms.Genesis):
    def step(self, actions):
        super().step(actions)


class Short(vec_forms.Genesis):
    def step(self, actions):
        obs, rewards, *others = super().step(actions)
        return obs, rewards[:1], *others


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Gymnasium, "Gymnasium.step returned 5 values, expected obs, .* Gymnasium's form: put the simulator"),
        (Silent, "Silent.step returned a NoneType, expected obs, rewards, dones and extras"),
        (Short, r"Short.step: rewards has shape \[1\], expected \[2\]"),
    ],
)
def test_steps_of_another_form_are_named(cls, said):
    env = from_vec_env(cls)(2)
    env.reset()
    with pytest.raises(EnvError, match=said):
        env.step(torch.zeros(2, 1))


def test_objects_of_another_form_are_named():
    class Bare(vec_forms.Genesis):
        num_actions = None

    with pytest.raises(EnvError, match="Bare: Bare has no num_actions"):
        from_vec_env(Bare)(2)
    with pytest.raises(EnvError, match="Nothing: SimpleNamespace has no get_observations"):
        from_vec_env(lambda num_envs, device: SimpleNamespace(), name="Nothing")(2)
    with pytest.raises(EnvError, match="Few: the factory made 1 simulations, expected 2"):
        from_vec_env(lambda num_envs, device: vec_forms.Genesis(1), name="Few")(2)
