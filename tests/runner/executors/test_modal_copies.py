from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from runner.executors.modal_copies import read_text
from runner.executors.modal_mirror import UNREACHED


class Interrupted:
    """A Volume whose blocks cannot be read to their end."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def read_file(self, path: str) -> Iterator[bytes]:
        yield b"its beginning"
        raise self._error


@pytest.mark.parametrize(
    "error",
    [aiohttp.ServerDisconnectedError(), aiohttp.ClientPayloadError("cut off"), TimeoutError(), FileNotFoundError("x")],
    ids=lambda error: type(error).__name__,
)
def test_a_file_that_cannot_be_read_now_ends_no_look_for_good(error: Exception) -> None:
    """The network of a laptop comes and goes: whoever follows a sweep looks once more."""
    volume: Any = Interrupted(error)
    with pytest.raises(UNREACHED):
        read_text(volume, "runs/a/metrics.jsonl")
