"""The documentation: each block of code runs, and `mkdocs.yml` knows each page."""

import re
from pathlib import Path

import pytest
import yaml

from .pages import DOCS, all_blocks, run_page

ROOT = Path(__file__).parents[1]

PAGES = ("coming-from", "concepts", "distributions", "environments", "index", "masks", "memory", "models")
LONG_PAGES = ("cli", "quickstart", "runs")
"""Pages that train for many seconds."""
ELSEWHERE = {
    "endings.md": "test_readme.py",
    "loop.md": "test_readme.py",
    "simulators.md": "test_simulators_page.py",
    "simulators/dm_control.md": "sims/test_dm_control.py",
    "simulators/jax.md": "sims/test_jax.py",
    "simulators/mujoco.md": "sims/test_mujoco.py",
    "simulators/torchrl.md": "env/test_torchrl_env.py",
    "simulators/vec_env.md": "env/test_vec_page.py",
}
"""Pages that another test runs."""


@pytest.mark.parametrize(
    "page", [*PAGES, *(pytest.param(page, marks=pytest.mark.slow) for page in LONG_PAGES)]
)
def test_pages_run_as_they_are_written(page, tracked):
    run_page(f"{page}.md")


def pages():
    return {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


def test_each_page_with_code_is_run():
    with_code = {page for page in pages() if any(block.language == "python" for block in all_blocks(page))}
    assert with_code == {f"{page}.md" for page in (*PAGES, *LONG_PAGES)} - {"cli.md"} | {*ELSEWHERE}
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / "tests" / test).read_text(), test


def test_the_navigation_has_each_page_once():
    def listed(entries):
        for entry in entries:
            for part in entry.values() if isinstance(entry, dict) else [entry]:
                yield from [part] if isinstance(part, str) else listed(part)

    found = list(listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(found) == sorted(pages())


@pytest.mark.parametrize("page", sorted(pages()))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:\s]+)[)#]", (DOCS / page).read_text())
    assert [link for link in links if not (DOCS / page).parent.joinpath(link).exists()] == []


def test_what_the_reference_names_is_there():
    from importlib import import_module

    names = [name for page in pages() for name in re.findall(r"^::: (\S+)$", (DOCS / page).read_text(), re.M)]
    assert len(names) > 40
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), name
