"""Text that others have written (rows, logs, answers, errors), as it may reach a terminal: a terminal obeys control
characters, which can set its title, clear it, overwrite a line, or write to the clipboard.
"""

from __future__ import annotations

import re

INSTEAD = "\ufffd"
"""One column wide, so that tables stay aligned."""
_STYLE = re.compile("(?:\x1b\\[|\x9b)[0-9;:]*m")
"""Colours: a log has many. They are dropped, since some make text invisible."""
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, embeddings, overrides and isolates
    "\u2028\u2029]"  # line and paragraph separators
)


def harmless(text: str) -> str:
    """The text without anything that a terminal would obey. Tabs and line feeds stay.

    >>> harmless("\\x1b[31mred\\x1b[0m \\x1b]0;title\\x07 a\\rb")
    'red �]0;title� a�b'
    """
    return _OBEYED.sub(INSTEAD, _STYLE.sub("", text))


def harmless_log(text: str) -> str:
    """As `harmless`, for a log: each state of a progress bar, which returns to the start of its line, becomes a line.

    >>> harmless_log("10%\\r20%\\r\\ndone\\n")
    '10%\\n20%\\ndone\\n'
    """
    return harmless(re.sub(r"\r+\n?", "\n", text))
