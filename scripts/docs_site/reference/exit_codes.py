"""The page about exit codes."""

from __future__ import annotations

from runner.errors import ExitCode
from scripts.docs_site.attribute_docs import attribute_docs
from scripts.docs_site.markdown import plain, table


def page() -> str:
    texts = attribute_docs(ExitCode)
    rows = [(str(int(code)), plain(texts[code.name])) for code in ExitCode]
    return f"# Exit codes\n\n{table(('exit code', 'when'), rows)}"
