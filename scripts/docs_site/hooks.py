"""What MkDocs calls while it builds the site: adds the pages that are not in docs/, and checks what it has built."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from scripts.docs_site import documents, notebook, offline, reference

ROOT = Path(__file__).resolve().parents[2]
SHIM = Path(__file__).with_name("vendor") / "iframe-worker.js"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the reference, a page for each file of the repository that a document links, and the script for search."""
    files.append(File.generated(config, f"assets/{SHIM.name}", abs_src_path=str(SHIM)))
    for uri, content in {**notebook.pages(ROOT), **reference.pages()}.items():
        files.append(File.generated(config, uri, content=content))
    for uri, content in documents.linked_pages(ROOT).items():
        files.append(File.generated(config, uri, content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points the links of a page of docs/ that lead to other files of the repository to their pages."""
    if page.file.generated_by is not None:
        return markdown
    return documents.with_links_of_the_site(markdown, ROOT / "docs" / page.file.src_uri, ROOT)


def on_post_build(config: MkDocsConfig) -> None:
    if problems := offline.loaded_from_elsewhere(Path(config.site_dir)):
        raise PluginError("The site would load files from elsewhere:\n" + "\n".join(problems))
