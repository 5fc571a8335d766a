"""Each module imports only from those before it."""

import ast
from pathlib import Path

import pytest

import rlstack

SOURCE = Path(rlstack.__file__).parent
ORDER = """
    nested public_names data rows specs spec_json moments schedulers other_names hparams keywords
    distributions encoders models files journal trees policy_file policies params policy_check watch
    horizon_watch env.unread env.base env.spec_watch env.dummy env.classic env buffer ppo advantages
    device workers passes kernels.base kernels.mlp kernels.lstm kernels.outputs kernels.passes kernels
    reward_watch collector optimizers learner holdings capture engine executor graph_executor
    select_engine algorithm env.subject env.checks env.check class_files config checkpoint run_options
    tracked_run tracking_uris run_lock restore run_dir guards conditions tracking_faults tracking sync
    signals keeper trainer recipes names run_config display mlflow_model session inspection listing speed
    completion console cli_tools cli __main__
""".split()  # noqa: SIM905 (a list of 40 strings reads worse)


def imports(tree, package):
    """Yield the modules of rlstack that are imported when the code runs; types alone don't count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            home = package[: len(package) - node.level + 1]
            base = [*home, *(node.module.split(".") if node.module else [])]
            names = [".".join([*base, alias.name]) for alias in node.names]
            yield from (name if name in ORDER else ".".join(base) for name in names)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert not any(name.split(".")[0] == "rlstack" for name in names), "import relatively"
        yield from imports(node, package)


def module_name(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCE.rglob("*.py") if module_name(path)}


def test_every_module_has_its_place():
    assert sorted(MODULES) == sorted(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_backward(module):
    path = MODULES[module]
    package = list(path.parent.relative_to(SOURCE).parts)
    for imported in imports(ast.parse(path.read_text()), package):
        if imported:
            assert ORDER.index(imported) < ORDER.index(module), f"{module} imports {imported}"


@pytest.mark.parametrize("module", ORDER)
def test_files_are_short(module):
    assert len(MODULES[module].read_text().splitlines()) <= 300
