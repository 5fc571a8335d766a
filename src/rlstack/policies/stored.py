"""What feedforward and recurrent policies share: files."""

import os
from abc import ABC
from typing import Any, Self

from torch import nn

from .. import spec_json
from ..common.errors import PolicyFileError
from ..common.public_names import public_name
from ..common.types import Device
from ..distributions import Distribution
from ..export.files import Exported, export_policy
from . import file
from .base import PolicyBase


class StoredPolicy(PolicyBase, ABC):
    """A policy that can be saved, loaded and exported; its arguments are those of `Policy`."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy as one safetensors file, replacing an older one only when complete.

        Raises:
            ValueError: If the model's options can't be written as JSON.
            TypeError: If no file can hold a part of its state, a sparse buffer for example.
        """
        file.write(path, file.state_of(self), self.description)

    def export(self, path: str | os.PathLike[str], *, deterministic: bool = True) -> Exported:
        """Write what the policy does for programs without rlstack, and a page, PATH.md, about it.

        Normalization, masks, squashing and bounds are inside: it takes what `acting_spec` says, the recurrent
        state if any, and any number of rows. It is compared with the policy first, on 100 random
        observations.

        Args:
            path: Where to. A name that ends in .onnx becomes an ONNX model, which needs the extra `export`;
                one in .pt2 a program of torch.export.
            deterministic: Whether it acts without chance; otherwise the random numbers are an input, `noise`.

        Returns:
            What was written, and by how much it differs from the policy at most.

        Raises:
            ExportError: If the model or the distribution can't be exported, or is something else then.
            OSError: If it can't be written.
        """
        return export_policy(self, path, deterministic=deterministic)

    @property
    def description(self) -> dict[str, Any]:
        """Its classes, options and specs, as a saved policy names them."""
        return {
            "policy": type(self).__name__,
            "observation_spec": spec_json.to_json(self.observation_spec),
            "action_spec": spec_json.to_json(self.action_spec),
            "model_cls": public_name(type(file.uncompiled(self.model))),
            "model_config": self.model.config,
            "distribution_cls": public_name(self.distribution_cls),
            "normalize_observations": self.normalizer is not None,
            **({"clip_actions": self._clips} if self._may_clip else {}),
        }

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        model_cls: type[nn.Module] | None = None,
        distribution_cls: type[Distribution] | None = None,
        device: Device = "cpu",
    ) -> Self:
        """Return a saved policy, ready to act.

        Nothing that the file names is imported: a model or distribution that isn't rlstack's own must be
        handed over.

        Args:
            path: A file written by `save`.
            model_cls: Class of its model; None if it is one of rlstack's.
            distribution_cls: Class of its action distribution; None if it is one of rlstack's.
            device: Where to put it.

        Raises:
            PolicyFileError: If the file is no such policy, or needs a class that isn't given.
            OSError: If it can't be read.
        """
        state, description = file.read(path)
        try:
            if (kind := description["policy"]) != cls.__name__:
                raise PolicyFileError(f"{path} holds a {kind}: use {kind}.load")
            model, distribution_cls = file.make_parts(path, description, model_cls, distribution_cls)
            normalize = description["normalize_observations"]
            clip = description.get("clip_actions", False)
            policy = cls(model, distribution_cls, normalize_observations=normalize, clip_actions=clip)
            policy.load_state_dict(state)
        except PolicyFileError:
            raise
        except Exception as error:
            message = f"{path} is not a usable policy: {type(error).__name__}: {error}"
            raise PolicyFileError(message) from error
        return policy.to(device).eval()
