"""docs/troubleshooting.md quotes messages as the code prints them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runner.store.run_state import RunStatus, status_text
from tests.message_texts import message_texts

PAGE = Path(__file__).resolve().parents[1] / "docs" / "troubleshooting.md"
DOTS = re.compile(r"\.{3,}")
ROW = re.compile(r"^\| `(.+?)` \| (.+) \| (.+) \|$", re.MULTILINE)


@pytest.mark.medium
def test_every_quoted_message_is_in_the_code() -> None:
    texts = "\n".join(_known())
    quoted = [message for message, _, _ in ROW.findall(PAGE.read_text(encoding="utf-8"))]
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(quoted) == len(rows) > 30
    missing = [message for message in quoted if not re.search(_pattern(message), texts)]
    assert not missing, "\n".join(missing)


def _known() -> list[str]:
    from modal_app.store.step import FailureReason

    statuses = [status_text(RunStatus.FAILED, reason) for reason in FailureReason]
    return [*message_texts(), *statuses]


def _pattern(message: str) -> str:
    """`...` in the page means anything on the line, or nothing at its beginning and its end."""
    return ".*".join(re.escape(part.strip()) for part in DOTS.split(message) if part.strip())
