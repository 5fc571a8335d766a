"""What `make docs` does beside MkDocs: pages of the files that are linked to, and no network.

Pages of `docs` link to examples and source files beside them, as they are read in a checkout. The site has a
page of each such file, below `source/`.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")
"""Where a link of Markdown leads to, if that is no address of the network."""
LOADED = re.compile(r"<(?:script|img|iframe)[^>]* src=\"?https?:|<link[^>]* rel=\"?stylesheet\"?[^>]*https?:")


def _place(page: str) -> str:
    """Return where in the repository a page of the site comes from."""
    return page.removeprefix("source/").removesuffix(".md") if page.startswith("source/") else f"docs/{page}"


def _page(place: str) -> str:
    """Return the page of the site for a file of the repository."""
    return place.removeprefix("docs/") if place.startswith("docs/") else f"source/{place}.md"


def _linked(text: str, place: str) -> list[str]:
    """Return the files of the repository that a text in a place of it links to."""
    folder = posixpath.dirname(place)
    found = (posixpath.normpath(posixpath.join(folder, link)) for link in LINK.findall(text))
    return [name for name in found if not name.startswith("..") and (ROOT / name).is_file()]


def _content(place: str) -> str:
    """Return the page of a file: as it is if it is Markdown, else as code."""
    text = (ROOT / place).read_text()
    if place.endswith(".md"):
        return text
    language = {"py": "python", "toml": "toml"}.get(place.rpartition(".")[2], "text")
    return f"# {posixpath.basename(place)}\n\n`{place}`\n\n````{language}\n{text}````\n"


def on_files(files: Any, *, config: Any) -> Any:
    """Add a page for each file outside of `docs` that a page links to."""
    waiting = [(file.content_string, _place(file.src_uri)) for file in files.documentation_pages()]
    while waiting:
        for name in _linked(*waiting.pop()):
            if not name.startswith("docs/") and not files.get_file_from_path(_page(name)):
                content = _content(name)
                files.append(File.generated(config, _page(name), content=content))
                if name.endswith(".md"):
                    waiting.append((content, name))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Let links to files of the repository lead to their pages."""
    here = page.file.src_uri
    place = _place(here)

    def led(match: re.Match[str]) -> str:
        [*found] = _linked(f"]({match[0]})", place)
        return posixpath.relpath(_page(found[0]), posixpath.dirname(here) or ".") if found else match[0]

    return LINK.sub(led, markdown)


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Refuse a page that loads anything from the network."""
    if found := LOADED.search(output):
        raise ValueError(f"{page.file.src_uri} loads something from the network: {found[0]}")
    return output
