"""The files of the repository that documents link, as pages of the site, and the links to these pages."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from scripts.docs_site.markdown import code_block, plain, table

DOCS = PurePosixPath("docs")
OF_THE_PROJECT = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
"""Documents at the root that have a page."""
SOURCE = PurePosixPath("source")
"""The folder of the site with the pages of files outside docs/."""
CODE_OR_LINK = re.compile(r"(?P<code>^```.*?^```|`[^`\n]*`)|\]\((?P<target>[^)\s]+)\)", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json", ".js": "javascript"}
LEFT_OUT_OF_SEARCH = "---\nsearch:\n  exclude: true\n---\n\n"


def linked_pages(root: Path) -> dict[str, str]:
    """Place in the site -> the page of a file that documents link outside docs/, or that these pages link."""
    waiting = [root / name for name in OF_THE_PROJECT]
    for document in (root / DOCS).rglob("*.md"):
        waiting += _targets(document, root)
    pages = dict[Path, str]()
    while waiting:
        target = waiting.pop()
        if target in pages or target.is_relative_to(root / DOCS):
            continue
        pages[target] = _page(target, root)
        waiting += _targets(target, root) if target.suffix == ".md" else []
    return {_place(target, root).as_posix(): content for target, content in pages.items()}


def with_links_of_the_site(markdown: str, document: Path, root: Path) -> str:
    """The text of a document with links to the pages of the site in place of links to files of the repository."""

    def replaced(match: re.Match[str]) -> str:
        if match["code"] or (target := _target(match["target"], document)) is None:
            return match[0]
        anchor = match["target"].partition("#")[2]
        link = os.path.relpath(_place(target, root), _place(document, root).parent)
        return f"]({link}#{anchor})" if anchor else f"]({link})"

    return CODE_OR_LINK.sub(replaced, markdown)


def _targets(document: Path, root: Path) -> Iterator[Path]:
    for match in CODE_OR_LINK.finditer(document.read_text(encoding="utf-8")):
        if match["target"] and (target := _target(match["target"], document)) is not None:
            if not target.is_relative_to(root):
                raise ValueError(f"{document} links to {target}, which is outside the repository")
            yield target


def _target(link: str, document: Path) -> Path | None:
    """The file or folder that a relative link leads to. None for an address, and for a heading of the same page."""
    path = link.partition("#")[0]
    if not path or re.match(r"[a-z]+:", link):
        return None
    target = Path(os.path.normpath(document.parent / path))
    return target if target.exists() else None  # MkDocs reports a link that leads nowhere


def _place(target: Path, root: Path) -> PurePosixPath:
    """The Markdown file of the site that shows a file or folder of the repository."""
    path = PurePosixPath(target.relative_to(root).as_posix())
    if path.is_relative_to(DOCS):
        place = path.relative_to(DOCS)
        return place.with_name("notebook.md") if place.suffix == ".ipynb" else place
    if target.is_dir():
        return SOURCE / path / "contents.md"
    return SOURCE / (path if path.suffix == ".md" else path.with_name(f"{path.name}.md"))


def _page(target: Path, root: Path) -> str:
    name = target.relative_to(root).as_posix()
    if target.is_dir():
        return f"{LEFT_OUT_OF_SEARCH}# {name}/\n\n{_contents(target)}"
    text = target.read_text(encoding="utf-8")
    if target.suffix == ".md":
        return with_links_of_the_site(text, target, root)
    language = LANGUAGES.get(target.suffix, "text")
    return f"{LEFT_OUT_OF_SEARCH}# {name}\n\n{code_block(text.rstrip(), language)}"


def _contents(folder: Path) -> str:
    files = (path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "__pycache__")))
    rows = ((f"`{path.name}{'/' if path.is_dir() else ''}`", plain(_first_line(path))) for path in files)
    return table(("file", "what"), rows)


def _first_line(path: Path) -> str:
    """The docstring of a module."""
    module = path / "__init__.py" if path.is_dir() else path
    if module.suffix != ".py" or not module.is_file():
        return ""
    said = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return said.partition("\n")[0]
