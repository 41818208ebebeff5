"""The values of a report -> one HTML file that needs nothing else: no network, no WebGL, no other file.

Texts of users and logs reach the page as JSON without any `<`, and the page's script inserts them as text. A content
security policy in the file forbids the page to load anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.step import write_atomically
from runner.html_report.gather import gather
from runner.html_report.place import report_path

SCRIPTS = (
    *("dom.js", "format.js", "runs.js", "filter.js", "colours.js", "chart.js", "export.js"),
    *("verdict.js", "card.js", "table.js", "answers.js", "where.js", "parallel.js", "search.js", "curves.js"),
    *("effects.js", "price.js", "time.js", "failures.js", "reproduce.js", "keyboard.js", "main.js"),
)
"""In the order in which they run."""
MARK = b'<meta name="generator" content="axosweep">'
"""Identifies a file as a report, which may be overwritten."""


def write_report(store: Store, sweep: str, out: Path | None = None) -> Path:
    """Write the report of a sweep in its present state. Raises SweepError when there is no such sweep."""
    path = out or report_path(store, sweep)
    write_atomically(path, html(gather(store, sweep)))
    return path


def html(values: Mapping[str, Any], *, served: bool = False) -> str:
    """The complete page. A `served` page requests newer values from its server, and nothing from anywhere else."""
    parts = {
        "TITLE": _text(str(values["sweep"])),
        "CONNECT": "'self'" if served else "'none'",
        "STYLE": _page("style.css"),
        "VALUES": script_json(values),
        "LIBRARY": resources.files(__package__).joinpath("vendor/echarts.min.js").read_text(encoding="utf-8"),
        "SCRIPT": "\n".join(_page(name) for name in SCRIPTS),
    }
    pieces = _page("template.html").split("%%")  # odd pieces are names; inserted text is not searched
    return "".join(parts[piece] if at % 2 else piece for at, piece in enumerate(pieces))


def script_json(values: Mapping[str, Any]) -> str:
    """JSON that an HTML parser cannot mistake for the end of its script element or for a comment."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _page(name: str) -> str:
    return resources.files(__package__).joinpath(f"page/{name}").read_text(encoding="utf-8")


def _text(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
