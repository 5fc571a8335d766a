"""Environments of Gymnasium's form: one by its name, or any vector environment, EnvPool's for example."""

import inspect
import re
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

from ...common.errors import EnvError, told
from ...common.validation import did_you_mean
from ..base import Env
from ..simulators import needed, unknown
from .instability import tells_instability
from .vector_simulator import Factory, made, parameters
from .workers import deaf_to_interrupts

_HOMES = {"ALE": ("ale_py", "'gymnasium[atari]'")}
"""By namespace the module that registers its environments, and what to install."""


def make(name: str, /, **options: Any) -> type[Env]:
    """Return the environment that Gymnasium knows under a name, as a class for `Algorithm`.

    Args:
        name: Of the environment, with its version: `HalfCheetah-v5`; of one that a module registers,
            `my_module:MyEnv-v0`.
        options: Keyword arguments of `gymnasium.make_vec`, among them those of the environment itself, and
            `reset_options` and `never_ends` of `from_vector`. `env_config` goes before them.
            `vectorization_mode` is "sync" unless it is said to be "async", worker processes, or
            "vector_entry_point", the environment's own.

    Raises:
        EnvError: If Gymnasium is missing, or knows no such environment.
    """
    full = f"gym:{name}"
    gymnasium = needed("gymnasium", "'rlstack[gymnasium]'", full)
    _register(gymnasium, name)
    return made(partial(_make_vec, name), name.rpartition(":")[2], options, simulator_name=full)


def from_vector(
    factory: Factory,
    /,
    *,
    name: str | None = None,
    autoreset: str | None = None,
    final_obs: bool = True,
    **options: Any,
) -> type[Env]:
    """Return any vector environment of Gymnasium's form as a class for `Algorithm`.

    Its arrays may be NumPy's, torch's or JAX's; it is handed actions of the same kind. Derive a class from
    what is returned to give it a name: `file.py:MyEnv`, as others.

    Args:
        factory: `factory(num_envs, **options)` returns the vector environment. If it has parameters `seed`
            and `device`, they are a number drawn by torch and the device's name.
        name: Of the class; None is that of the factory.
        autoreset: When rows that ended are put back, `disabled`, `same_step` or `next_step`, if
            `metadata["autoreset_mode"]` doesn't say it.
        final_obs: Whether `infos` has last observations where the step in which rows end puts them back.
        options: The factory's; `env_config` goes before them. Two are ours: `reset_options`, a dictionary for
            each `reset`, and `never_ends`: no episode ever ends, so that no room is kept for endings.
    """
    called = name or str(getattr(factory, "__name__", type(factory).__name__))
    return made(factory, called, options, autoreset=autoreset, final_obs=final_obs)


def _make_vec(name: str, num_envs: int, /, **options: Any) -> Any:
    """Return Gymnasium's vector environment of a name; rows that ended are put back by whoever steps it.

    Raises:
        EnvError: If it needs a package that is missing.
    """
    import gymnasium

    mode = options.pop("vectorization_mode", "sync")
    vector, wrappers = (
        dict(options.pop("vector_kwargs", None) or {}),
        list(options.pop("wrappers", None) or ()),
    )
    if mode in ("sync", "async"):
        vector.setdefault("autoreset_mode", gymnasium.vector.AutoresetMode.DISABLED)
        wrappers.append(tells_instability())
    if mode == "async":
        wrappers.append(deaf_to_interrupts())
    try:
        return gymnasium.make_vec(
            name, num_envs, vectorization_mode=mode, vector_kwargs=vector, wrappers=wrappers, **options
        )
    except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise EnvError(f"gym:{name} needs a package that is missing: {told(error)}") from None
    except TypeError as error:
        raise _with_options(error, gymnasium, name, options) from None


def _with_options(error: TypeError, gymnasium: Any, name: str, options: Mapping[str, Any]) -> Exception:
    """Return the error for an option that an environment of Gymnasium doesn't take, or the error as it is."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if found is None or found[1] not in options:
        return error
    point = gymnasium.registry[name.rpartition(":")[2]].entry_point
    made = gymnasium.envs.registration.load_env_creator(point) if isinstance(point, str) else point
    known = {
        "max_episode_steps",
        "vectorization_mode",
        "vector_kwargs",
        "wrappers",
        "reset_options",
        "never_ends",
    }
    for cls in inspect.getmro(made) if isinstance(made, type) else (made,):
        known |= {*parameters(cls)} - {"args", "kwargs", "self"}
    short = name.rpartition(":")[2]
    return EnvError(
        f"env_config.{found[1]} is not an option of {short}{did_you_mean(found[1], sorted(known))}"
    )


def _register(gymnasium: Any, name: str) -> None:
    """Let whoever has an environment tell Gymnasium of it.

    Raises:
        EnvError: If there is no such environment.
    """
    module, _, short = name.rpartition(":")
    if module:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            raise EnvError(
                f"gym:{name}: there is no module {error.name} that could register {short}"
            ) from None
    if short not in gymnasium.registry and (home := _HOMES.get(short.partition("/")[0])):
        needed(*home, f"gym:{name}")
    if short not in gymnasium.registry:
        raise unknown(
            f"gym:{name}", "an environment of Gymnasium", [f"gym:{one}" for one in gymnasium.registry]
        )
