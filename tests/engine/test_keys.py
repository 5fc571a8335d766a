"""Every engine reads the observations that `policy_keys` and `value_keys` name, alike."""

import pytest
import torch

from rlstack import Algorithm, RecurrentAlgorithm

from ..helpers import SECRET, SEEN, Veiled, update
from .test_engine import assert_replays
from .test_kernels import BASE, MODES, assert_same

KEYS = {"policy_keys": SEEN, "value_keys": [*SECRET, "place"]}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_perceptron_of_two_views(float64, mode):
    assert_same(Algorithm, Veiled, 1e-9, **mode, model_config={"hiddens": [12, 8], **KEYS})


@pytest.mark.parametrize("activation_fn", ["relu", "tanh"])
@pytest.mark.parametrize("value_keys", [["inner.mass"], ["wind"], None])
def test_other_sizes_and_float32(activation_fn, value_keys):
    config = {"hiddens": [32, 32], "activation_fn": activation_fn, "policy_keys": ["place"]}
    assert_same(Algorithm, Veiled, 1e-4, updates=1, model_config={**config, "value_keys": value_keys})


def test_16_bits(half):
    found = []
    for engine in ("kernels", "eager"):
        config = {"hiddens": [64, 64], **KEYS}
        asked = "auto" if engine == "kernels" else engine
        algorithm = Algorithm(Veiled, **BASE, enable_amp=True, model_config=config, engine=asked)
        assert algorithm.params["engine"] == engine
        found.append(update(algorithm))
    for key in ("losses/policy", "losses/vf", "monitors/grad_norm"):
        assert found[0][key] == pytest.approx(found[1][key], rel=0.05, abs=5e-3)


def test_one_memory_of_a_part_has_a_kernel(float64):
    config = {"hidden_size": 6, "policy_keys": SEEN, "value_keys": SEEN}
    assert_same(RecurrentAlgorithm, Veiled, 1e-9, model_config=config)


def test_two_memories_are_left_to_autograd():
    algorithm = RecurrentAlgorithm(Veiled, **BASE, model_config={"hidden_size": 6, **KEYS})
    assert algorithm.params["engine"] == "eager"


def test_recorded():
    assert_replays(Algorithm, Veiled, normalize_observations=True, model_config={"hiddens": [16], **KEYS})
    changes = {"seq_len": 2, "horizons_per_env_reset": -1, "seqs_per_state_reset": -1}
    assert_replays(RecurrentAlgorithm, Veiled, **changes, model_config={"hidden_size": 8, **KEYS})


@pytest.mark.parametrize("cls", [Algorithm, RecurrentAlgorithm])
def test_naming_everything_is_naming_nothing(cls):
    size = {"hidden_size": 6} if cls is RecurrentAlgorithm else {"hiddens": [12]}
    found = []
    for keys in (None, ["wind", "inner", "place"]):
        config = {**size, "policy_keys": keys, "value_keys": keys}
        algorithm = cls(Veiled, **BASE, model_config=config)
        assert algorithm.params["engine"] == "kernels"
        algorithm.collect()
        algorithm.step()
        found.append(algorithm.policy.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
