"""What the shell offers when Tab is pressed; from rlstack's source, as loading torch takes seconds."""

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from .recipes import RECIPES

_SOURCE = Path(__file__).parents[1]

_DEFAULT_MODELS = {"feedforward": "mlp", "recurrent": "lstm"}

_ENVS = ("classic", "episodic", "mujoco/gymnasium_tasks", "mujoco/gymnasium_reacher")
"""Files of built-in environments with options of their own."""

_HPARAMS = {"feedforward": ["Hparams"], "recurrent": ["Hparams", "RecurrentHparams"]}


def complete_env(context: click.Context, parameter: click.Parameter, text: str) -> list[CompletionItem]:
    """Return the built-in names, and prefixes of simulators, that begin with what has been typed, else files.

    Where one may stand, keys too.
    """
    names = [*RECIPES, *_prefixes()]
    if context.params.get("file") or context.params.get("resume"):
        return [*_begin_with(text, names), *complete_hyperparameter(context, parameter, text)]
    return _begin_with(text, names) or [CompletionItem(text, type="file")]


def complete_hyperparameter(
    context: click.Context, parameter: click.Parameter, text: str
) -> list[CompletionItem]:
    """Return the hyperparameters that begin with what has been typed, with a dot the options within one."""
    algorithm = context.params.get("algorithm") or "feedforward"
    fields = [name for cls in _HPARAMS[algorithm] for name in _fields("hparams.py", cls)]
    # A ready-made model is nothing that can be typed.
    names = {f"{name}=" for name in fields if name != "model"}
    names -= {"model_config=", "env_config=", "optimizer_config="}
    names |= {f"model_config.{name}=" for name in _options_of_model(_DEFAULT_MODELS[algorithm])}
    names |= {f"env_config.{name}=" for name in _options_of_env(context.params.get("env"))}
    return _begin_with(text, sorted({*names, "optimizer_config.lr="}))


def complete_env_option(
    context: click.Context, parameter: click.Parameter, text: str
) -> list[CompletionItem]:
    """Return the options of a built-in environment that begin with what has been typed."""
    return _begin_with(text, [f"{name}=" for name in _options_of_env(context.params.get("env"))])


def complete_run(context: click.Context, parameter: click.Parameter, text: str) -> list[CompletionItem]:
    """Return the runs under `runs` that begin with what has been typed, else directories."""
    return _begin_with(text, _runs()) or [CompletionItem(text, type="dir")]


def complete_resume(context: click.Context, parameter: click.Parameter, text: str) -> list[CompletionItem]:
    """Return `auto`, and what `complete_run` does."""
    return _begin_with(text, ["auto", *_runs()]) or [CompletionItem(text, type="dir")]


def complete_checkpoint(
    context: click.Context, parameter: click.Parameter, text: str
) -> list[CompletionItem]:
    """Return what `complete_run` does, and the checkpoints of the run that has been typed."""
    checkpoints = sorted(str(path) for run in _runs() for path in Path(run).glob("checkpoints/ckpt-*"))
    inner = [path for path in checkpoints if text.startswith(f"{Path(path).parent.parent}/")]
    return _begin_with(text, inner or _runs()) or [CompletionItem(text, type="dir")]


def _begin_with(text: str, names: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(text)]


def _runs() -> list[str]:
    return sorted(str(path.parent) for path in Path("runs").glob("*/config.yaml"))


@cache
def _classes(file: str) -> dict[str, ast.ClassDef]:
    tree = ast.parse((_SOURCE / file).read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


@cache
def _prefixes() -> list[str]:
    """Return what names of simulators begin with, `gym:`."""
    tree = ast.parse((_SOURCE / "env/simulators.py").read_text(encoding="utf-8"))
    [table] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MAKERS"
    ]
    return [f"{prefix}:" for prefix in ast.literal_eval(table)]


def _fields(file: str, cls: str) -> list[str]:
    """Return the names that a class's body gives types."""
    body = _classes(file)[cls].body
    return [
        node.target.id
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]


def _options_of_model(module: str) -> list[str]:
    """Return the options of the default models in a module: whether actions are discrete isn't known here."""
    found = []
    for name, cls in _classes(f"models/{module}.py").items():
        for node in cls.body if not name.startswith("_") else ():
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                options = [*node.args.args[-len(node.args.defaults) :], *node.args.kwonlyargs]
                found += [argument.arg for argument in options]
    return found


def _options_of_env(name: str | None) -> list[str]:
    """Return the options of a built-in environment; none of another one, which would have to be imported."""
    recipe = RECIPES.get(name or "")
    if recipe is None:
        return []
    return sorted({*recipe.hyperparameters.get("env_config", {}), *_defaults_of_env(recipe.env)})


def _defaults_of_env(name: str) -> list[str]:
    """Return the keys of the `defaults` of a built-in environment."""
    found = []
    cls = {key: cls for file in _ENVS for key, cls in _classes(f"env/{file}.py").items()}.get(name)
    for node in cls.body if cls is not None else []:
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                if isinstance(key, ast.Constant):
                    found.append(str(key.value))
                elif isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
                    # Those of another one, `**CartPole.defaults`.
                    found += _defaults_of_env(value.value.id)
    return found
