"""Whether a page of the built site would load a file from elsewhere. A link that a reader may follow loads nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

FOREIGN = re.compile(r"(https?:)?//", re.IGNORECASE)
IN_A_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)
LOADS_NOTHING = re.compile(
    r"""</?(?!(?:link|object|script|style)\b)[a-z][a-z0-9-]*(?:\s+(?!src)[a-z][\w:-]*(?:="[^"]*")?)*\s*>"""
)
"""A tag, most of them of highlighted code or of the contents, that the parser need not see: it has neither `src` nor
`srcset`. The parser takes ten times as long for it as this pattern."""
NOT_LOADED = {"canonical", "alternate", "prev", "next", "edit"}
"""What a <link> says of the page; a browser fetches the others."""


def loaded_from_elsewhere(site: Path) -> list[str]:
    """A line for each file that a page or a style would load from another host."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            found += [f"{path.relative_to(site)}: {address}" for address in _Loaded.by(path.read_text("utf-8"))]
        elif path.suffix == ".css":
            found += [f"{path.relative_to(site)}: {one}" for one in IN_A_STYLE.findall(path.read_text("utf-8"))]
    return found


class _Loaded(HTMLParser):
    """Collects the addresses on other hosts that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    @classmethod
    def by(cls, page: str) -> list[str]:
        parser = cls()
        parser.feed(LOADS_NOTHING.sub("", page))
        return [*parser.addresses, *IN_A_STYLE.findall(page)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [address for address in _fetched(tag, dict(attrs)) if FOREIGN.match(address)]


def _fetched(tag: str, attributes: dict[str, str | None]) -> Iterator[str]:
    if tag == "link" and not {*(attributes.get("rel") or "").lower().split()} <= NOT_LOADED:
        yield attributes.get("href") or ""
    yield attributes.get("src") or ""
    yield from (one.strip() for one in (attributes.get("srcset") or "").split(","))
    if tag == "object":
        yield attributes.get("data") or ""
