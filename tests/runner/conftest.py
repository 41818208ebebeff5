from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from runner.cli import main
from tests.printed_json import read_printed


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def command(store: Store, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The output of a command in that store, as JSON where it is; of one that is refused, what it says."""

    def ask(*words: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert main([*words, "--store", str(store.root)]) == code
        captured = capsys.readouterr()
        if code:
            return captured.err
        return read_printed(words[0], captured.out) if "--json" in words else captured.out

    return ask
