"""The policy that hyperparameters mean."""

from typing import Any

import torch

from ..common.errors import HparamsError, told
from ..common.validation import check_options
from ..hparams import Hparams
from ..policies.check import check_policy
from ..policies.policy import Policy, RecurrentPolicy
from ..spec_json import differences


def make_policy(
    policy_cls: type[Policy] | type[RecurrentPolicy], hparams: Hparams, env: Any, device: torch.device
) -> Policy | RecurrentPolicy:
    """Return the policy for an environment's specs, on the device, its parts tried once.

    Raises:
        HparamsError: If the model or the distribution can't be made or used.
    """
    try:
        model = hparams.model
        if model is None:
            model_cls = hparams.model_cls or policy_cls.default_model_cls(env.action_spec)
            options = hparams.model_config or {}
            if hparams.model_cls is None:
                options = {**_keys(env), **options}
            check_options(options, model_cls, "model_config", by_position=2)
            model = model_cls(env.observation_spec, env.action_spec, **options)
        policy = policy_cls(
            model, hparams.distribution_cls, normalize_observations=hparams.normalize_observations
        )
        for name in ("observation_spec", "action_spec"):
            mine, given = getattr(policy, name).to("cpu"), getattr(env, name).to("cpu")
            if mine != given:
                what, one, other = next(differences(name, mine, given), (name, mine, given))
                raise ValueError(
                    f"{name} of the model is not the environment's: {what} is {one} in the model and {other} "
                    "in the environment; make the model with the environment's specs"
                )
        policy.to(device)
        check_policy(policy)
    except (TypeError, ValueError) as error:
        raise HparamsError(str(error)) from error
    except Exception as error:
        # Whatever a model or distribution raises when it is made or tried, it is named as theirs.
        raise HparamsError(f"the model or distribution raised {told(error)}") from error
    return policy


def _keys(env: Any) -> dict[str, Any]:
    """Return which parts of its observations an environment says the default models are for."""
    said = {name: getattr(env, name, None) for name in ("policy_keys", "value_keys")}
    return {name: keys for name, keys in said.items() if keys is not None}
