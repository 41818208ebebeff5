from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from runner.cli import main


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def command(store: Store, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The output of a command in that store, as JSON if it is JSON; for a refused command, its message."""

    def ask(*words: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert main([*words, "--store", str(store.root)]) == code
        captured = capsys.readouterr()
        if code:
            return captured.err
        if "--json" not in words:
            return captured.out
        from tests.printed_json import read_printed  # imported late: it imports every verb

        return read_printed(words[0], captured.out)

    return ask
