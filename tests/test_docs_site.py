"""The documents as a site: links lead somewhere, nothing is loaded from elsewhere, search works from a folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.docs_site.documents import linked_pages, with_links_of_the_site
from scripts.docs_site.offline import loaded_from_elsewhere
from tests.browser import chromium, needs_chromium
from tests.documented import FENCED

ROOT = Path(__file__).resolve().parents[1]
HEADING = re.compile(r"^#.*$", re.MULTILINE)
RESULTS = "return [...document.querySelectorAll('.md-search-result__link')].map(one => one.getAttribute('href'))"


def test_a_link_to_a_file_of_the_repository_leads_to_its_page() -> None:
    text = "[`a`](../runner/types.py), [b](../runner/cost), [c](memory.md#keys), [d](#here), [e](https://hydra.cc)\n"
    assert with_links_of_the_site(text, ROOT / "docs/cost.md", ROOT) == (
        "[`a`](source/runner/types.py.md), [b](source/runner/cost/contents.md), [c](memory.md#keys), [d](#here), "
        "[e](https://hydra.cc)\n"
    )
    code = "`[a](../runner/types.py)`\n\n```\n[a](../runner/types.py)\n```\n"
    assert with_links_of_the_site(code, ROOT / "docs/cost.md", ROOT) == code


def test_what_a_linked_document_links_has_a_page_too() -> None:
    pages = linked_pages(ROOT)
    assert "modal_app/patches/table.py" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "(modal_app/patches/table.py.md)" in pages["source/CONTRIBUTING.md"]
    assert '"""' in pages["source/modal_app/patches/table.py.md"]
    assert not any(name.startswith("source/docs/") for name in pages)


@pytest.mark.parametrize(
    "loading",
    [
        '<script src="https://a.example/x.js"></script>',
        '<link rel="stylesheet" href="//a.example/x.css">',
        '<link rel="preconnect" href="https://a.example">',
        '<img srcset="x.png, https://a.example/x.png 2x">',
        "<style>@font-face { src: url('https://a.example/x.woff2') }</style>",
    ],
)
def test_a_page_that_would_load_a_file_from_elsewhere_is_found(loading: str, tmp_path: Path) -> None:
    follows = '<a href="https://a.example">a</a><link rel="canonical" href="https://a.example"><img src="x.png">'
    (tmp_path / "good.html").write_text(follows)
    (tmp_path / "bad.html").write_text(loading)
    (found,) = loaded_from_elsewhere(tmp_path)
    assert found.startswith("bad.html: ")
    assert "a.example" in found


@pytest.mark.slow
def test_a_dead_link_a_dead_heading_and_a_page_without_a_place_fail_the_build(tmp_path: Path) -> None:
    for name in ("mkdocs.yml", "docs", "scripts", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for page in tmp_path.glob("**/*.md"):
        page.write_text("\n\n".join(HEADING.findall(FENCED.sub("", page.read_text("utf-8")))) + "\n", "utf-8")
    (tmp_path / "docs/lost.md").write_text("[a](nowhere.md), [b](../runner/nowhere.py), [c](cost.md#nowhere)\n")
    built = _build(tmp_path, tmp_path / "site")
    assert built.returncode == 1
    for part in ("'nowhere.md'", "'../runner/nowhere.py'", "'#nowhere'", "- lost.md"):
        assert part in built.stderr
    assert built.stderr.count("WARNING") == 4, "nothing else is wrong in pages that are only their headings"


@pytest.mark.slow
@needs_chromium
def test_search_works_in_a_page_of_a_folder_and_asks_no_other_host(tmp_path: Path) -> None:
    site = tmp_path / "site"
    built = _build(ROOT, site)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    with chromium(tmp_path) as browser:
        browser.look(1280)
        browser.open((site / "cost.html").as_uri())
        browser.wait("return document.querySelector('.md-search__input') !== null")
        browser.run("document.querySelector('.md-search__input').focus()")
        browser.press(*"webhook")
        found = browser.wait(f"const found = (() => {{ {RESULTS} }})(); return found.length && found")
        assert any("notify.html" in one for one in found)
        assert all(address.startswith(("file://", "data:", "blob:", "about:")) for address in browser.requests())


def _build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """The site as `make docs` builds it, in a folder of its own."""
    words = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
