import dataclasses
import re

import numpy as np
import pytest
import torch

from rlstack import CheckpointConfig
from rlstack.common.errors import HparamsError
from rlstack.hparams import Hparams, RecurrentHparams

CONTRACT = {
    "env_config": None,
    "model": None,
    "model_cls": None,
    "model_config": None,
    "distribution_cls": None,
    "horizon": 32,
    "horizons_per_env_reset": 1,
    "num_envs": 8192,
    "optimizer_cls": torch.optim.Adam,
    "optimizer_config": None,
    "accumulate_grads": False,
    "enable_amp": False,
    "lr_schedule": None,
    "lr_schedule_kind": "step",
    "adaptive_lr": None,
    "entropy_coeff": 0.0,
    "entropy_coeff_schedule": None,
    "entropy_coeff_schedule_kind": "step",
    "gae_lambda": 0.95,
    "gamma": 0.95,
    "sgd_minibatch_size": None,
    "num_sgd_iters": 4,
    "shuffle_minibatches": True,
    "clip_param": 0.2,
    "clip_param_schedule": None,
    "clip_param_schedule_kind": "step",
    "vf_clip_param": 5.0,
    "dual_clip_param": None,
    "vf_coeff": 1.0,
    "target_kl_div": None,
    "max_grad_norm": 5.0,
    "normalize_advantages": True,
    "normalize_rewards": True,
    "normalize_observations": False,
    "seed": None,
    "device": "auto",
}


def test_names_and_defaults():
    assert (
        CONTRACT.items() <= {f.name: getattr(Hparams(), f.name) for f in dataclasses.fields(Hparams)}.items()
    )
    recurrent = RecurrentHparams()
    assert (recurrent.seq_len, recurrent.seqs_per_state_reset) == (4, 8)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Hparams().horizon = 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"horzon": 3}, ["horzon", "did you mean horizon?"]),
        ({"seq_len": 3}, ["seq_len is not a hyperparameter: it is one of RecurrentAlgorithm"]),
        ({"zzz": 3}, ["expected one of env_config"]),
        ({"horizon": 0}, ["horizon is 0", "at least 1"]),
        ({"horizon": 3.5}, ["horizon is 3.5", "an integer"]),
        ({"horizon": "3"}, ["horizon is '3'", "an integer"]),
        ({"horizon": True}, ["horizon is True", "an integer"]),
        ({"num_envs": -1}, ["num_envs is -1", "at least 1"]),
        ({"gamma": 1.1}, ["gamma is 1.1", "at most 1"]),
        ({"gamma": float("nan")}, ["gamma is nan", "finite"]),
        ({"gae_lambda": -0.1}, ["at least 0"]),
        ({"clip_param": 0.0}, ["above 0"]),
        ({"dual_clip_param": 1.0}, ["dual_clip_param is 1.0", "above 1"]),
        ({"target_kl_div": 0.0}, ["above 0"]),
        ({"max_grad_norm": -1.0}, ["above 0"]),
        ({"enable_amp": 1}, ["enable_amp is 1", "True or False"]),
        ({"lr_schedule_kind": "cosine"}, ["'cosine'", "'step' or 'interp'"]),
        ({"lr_schedule": []}, ["lr_schedule", "pairs"]),
        ({"lr_schedule": [(10, 1.0), (5, 2.0)]}, ["lr_schedule", "ascend"]),
        ({"entropy_coeff_schedule": [(1, 2, 3)]}, ["entropy_coeff_schedule", "pairs"]),
        ({"clip_param_schedule": [(5, 1.0), (5, 2.0)]}, ["clip_param_schedule", "ascend"]),
        (
            {"clip_param_schedule": [(0, 0.2), (9, -0.1)]},
            ["clip_param_schedule has the value -0.1", "none below 0"],
        ),
        ({"clip_param_schedule_kind": "cosine"}, ["'cosine'", "'step' or 'interp'"]),
        ({"env_config": 3}, ["env_config is 3", "a dictionary"]),
        ({"optimizer_cls": "SGD"}, ["optimizer_cls is 'SGD'", "a class"]),
        ({"model": torch.nn.Linear(1, 1), "model_cls": torch.nn.Linear}, ["model excludes model_cls"]),
        ({"horizons_per_env_reset": 0}, ["at least 1, or -1"]),
        ({"horizons_per_env_reset": -2}, ["at least 1, or -1"]),
        ({"seed": "x"}, ["seed is 'x'", "an integer"]),
        ({"sgd_minibatch_size": 0}, ["at least 1"]),
    ],
)
def test_errors_say_name_got_and_expected(values, words):
    for make in (Hparams.parse, lambda values: Hparams(**values)):
        with pytest.raises(HparamsError) as error:
            make(values)
        for word in words:
            assert word in str(error.value)


@pytest.mark.parametrize(
    ("cls", "values", "words"),
    [
        (Hparams, {"lr": 3}, 'lr is not a hyperparameter: here it is optimizer_config={"lr": …}'),
        (RecurrentHparams, {"seq_length": 3}, "seq_length is not a hyperparameter: did you mean seq_len?"),
        (RecurrentHparams, {"n_steps": 3}, "n_steps is not a hyperparameter: here it is horizon"),
        (CheckpointConfig, {"kep": 3}, "kep is not an option of checkpoint_config: did you mean keep?"),
        (CheckpointConfig, {"keep": 0}, "keep is 0, expected a number at least 1"),
    ],
)
def test_no_misspelled_name_is_dropped(cls, values, words):
    with pytest.raises(HparamsError, match=re.escape(words)):
        cls(**values)


def test_recurrent_errors():
    with pytest.raises(HparamsError, match="seqs_per_state_reset is 0, expected at least 1, or -1"):
        RecurrentHparams.parse({"seqs_per_state_reset": 0})


def test_several_errors_at_once():
    with pytest.raises(HparamsError, match=r"(?s)horizon is 0.*gamma is 2"):
        Hparams.parse({"horizon": 0, "gamma": 2})


def test_integers_are_numbers():
    assert Hparams.parse({"gamma": 1, "clip_param": 1}).gamma == 1


def test_numpy_floats_are_numbers():
    assert Hparams.parse({"gamma": np.float64(0.5)}).gamma == 0.5


@pytest.mark.parametrize(
    ("size", "total", "nearest"), [(5, 12, "4 and 6"), (100, 12, "12$"), (7, 12, "6 and 12")]
)
def test_minibatch_size_names_the_nearest_divisors(size, total, nearest):
    with pytest.raises(HparamsError, match=f"the nearest: {nearest}"):
        Hparams.parse({"sgd_minibatch_size": size}).minibatch_size(total)


def test_minibatch_size():
    assert Hparams().minibatch_size(12) == 12
    assert Hparams(sgd_minibatch_size=4).minibatch_size(12) == 4
