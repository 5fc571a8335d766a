"""The rules between packages, read off the imports."""

import ast
import re
from pathlib import Path

import pytest

import rlstack

SOURCE = Path(rlstack.__file__).parent
DESIGN = Path(__file__).parents[1] / "docs" / "design.md"
ORDER = """
    common distributed specs spec_json schedulers conditions env models hparams keywords distributions export
    policies ppo engine algorithm tracking runs plots training sweeps env_check cli __main__
""".split()  # noqa: SIM905 (a list of strings reads worse)
"""A package, or a file beside them, imports only from those before it."""

DOORS = {
    "mlflow": "tracking",
    "click": "cli",
    "rich": "training/display.py cli",
    "matplotlib": "plots",
    "yaml": "runs/yaml_format.py",
    "filelock": "runs tracking sweeps",
    "numba": "engine/native",
    "llvmlite": "engine/native",
    "onnxruntime": "export",
    "optuna": "sweeps",
}
"""Where a third party is imported, and nowhere else."""


def module_name(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"}
"""By their names within rlstack."""


def imports(tree, package):
    """Yield the modules that are imported when code runs, rlstack's as `.name`; types alone don't count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            base = [part for part in base if part]
            for name in (".".join([*base, alias.name]) for alias in node.names):
                yield f".{name if name in MODULES else '.'.join(base)}"
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert not any(name.split(".")[0] == "rlstack" for name in names), "import relatively"
            yield from names
        yield from imports(node, package)


IMPORTS = {
    module: {*imports(ast.parse(path.read_text()), list(path.parent.relative_to(SOURCE).parts))}
    for module, path in MODULES.items()
}


def package_of(module):
    return module.lstrip(".").partition(".")[0]


@pytest.mark.parametrize("package", ORDER)
def test_packages_import_only_those_before_them(package):
    mine = [module for module in MODULES if package_of(module) == package]
    assert mine
    for module in mine:
        for imported in (name for name in IMPORTS[module] if name.startswith(".")):
            where = ORDER.index(package_of(imported))
            assert where <= ORDER.index(package), f"{module} imports {imported}"


def test_every_module_is_in_a_package_with_a_place():
    assert {package_of(module) for module in MODULES} == {*ORDER}


def test_no_modules_import_each_other():
    seen = {}

    def visit(module, path):
        assert module not in path, f"a circle: {' → '.join([*path, module])}"
        if module not in seen:
            seen[module] = True
            for name in sorted(IMPORTS[module]):
                if name.startswith(".") and name[1:] in MODULES and name[1:] != module:
                    visit(name[1:], [*path, module])

    for module in MODULES:
        # A package's own names are those of its modules.
        if MODULES[module].name != "__init__.py":
            visit(module, [])


def users_of(package):
    """Return the packages that import one."""
    return {
        package_of(module)
        for module, imported in IMPORTS.items()
        for name in imported
        if name.startswith(".") and package_of(name) == package and package_of(module) != package
    }


def test_the_engine_can_be_left_out():
    assert users_of("engine") == {"algorithm", "env_check"}


def test_nobody_imports_the_command_line():
    assert users_of("cli") == {"__main__"}


@pytest.mark.parametrize("package", ["env", "models", "distributions", "policies"])
def test_policies_act_without_what_trains_them(package):
    above = ORDER[ORDER.index("ppo") :]
    for module in (module for module in MODULES if package_of(module) == package):
        assert not {package_of(name) for name in IMPORTS[module] if name.startswith(".")} & {
            "hparams",
            *above,
        }


@pytest.mark.parametrize("name", DOORS)
def test_third_parties_have_one_door(name):
    for module, path in MODULES.items():
        if any(imported.partition(".")[0] == name for imported in IMPORTS[module]):
            where = path.relative_to(SOURCE).as_posix()
            assert any(where.startswith(door) for door in DOORS[name].split()), f"{where} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_files_are_short(module):
    assert len(MODULES[module].read_text().splitlines()) <= 300


def test_the_design_names_files_that_there_are():
    text = DESIGN.read_text()
    table = re.findall(r"^\| .*\? \| (.*) \|$", text, re.MULTILINE)
    named = {file for row in table for file in re.findall(r"`([\w/]+\.py)`", row)}
    assert len(named) > 30
    named |= {*re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:\.py|/))`", text)}
    homes = (SOURCE, DESIGN.parents[1])
    assert [file for file in named if not any((home / file).exists() for home in homes)] == []
    tree = text.partition("src/rlstack/\n")[2].partition("```")[0]
    folders = set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE))
    assert folders == {path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file()}


@pytest.mark.parametrize("way", ["An observation's way", "A metric's way"])
def test_the_stations_of_a_way_are_there(way):
    part = DESIGN.read_text().partition(f"### {way}\n")[2].partition("\n#")[0]
    stations = re.findall(r"^\d+\. `([\w.]+)` in `([\w/]+\.py)`: ", part, re.MULTILINE)
    assert (
        5
        <= len(stations)
        == part.count("\n1. ") + len(re.findall(r"^[2-9]\. |^\d\d\. ", part, re.MULTILINE))
        <= 10
    )
    for name, file in stations:
        body = ast.parse((SOURCE / file).read_text()).body
        for word in name.split("."):
            [body] = [
                getattr(node, "body", [node])
                for node in body
                if word
                in (
                    getattr(node, "name", None),
                    *(t.id for t in getattr(node, "targets", []) if isinstance(t, ast.Name)),
                )
            ]
