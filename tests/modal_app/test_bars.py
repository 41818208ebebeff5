"""While a step downloads or tokenizes, progress.json says how far it is."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from modal_app.process.bars import noted_bars


def noted(path: Path, is_meant: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The content of the file, as soon as it is the expected one."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            found = {}
        if is_meant(found):
            return found
        time.sleep(0.005)
    raise AssertionError(f"{found} is not what is meant")


def bar(total: int, **options: Any) -> "tqdm[Any]":
    return tqdm(total=total, file=io.StringIO(), **options)


def test_the_newest_bar_is_noted_and_downloads_together_come_first(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    with noted_bars(path, every_s=0.01):
        with bar(1728, desc="Tokenizing Prompts", unit=" examples") as tokenizing:
            tokenizing.update(864)
            found = noted(path, lambda now: now.get("done") == 864)
            assert (found["doing"], found["of"], found["unit"]) == ("Tokenizing Prompts", 1728, "examples")
            with bar(100, unit="B") as one, bar(300, unit="B") as other:
                one.update(100)
                other.update(50)
                found = noted(path, lambda now: now.get("unit") == "B" and now["done"] == 150)
                assert (found["doing"], found["of"]) == ("downloading", 400)
        noted(path, lambda now: not now)
    assert not path.exists()


def test_a_bar_that_is_being_made_is_not_noted_yet(tmp_path: Path) -> None:
    """tqdm lists a bar before the bar has a total."""
    path, half_made = tmp_path / "progress.json", tqdm.__new__(tqdm)
    assert not hasattr(half_made, "total")
    with noted_bars(path, every_s=0.01), bar(4) as steps:
        steps.update(1)
        noted(path, lambda now: now.get("of") == 4)


def test_of_a_run_only_downloads_are_noted_and_nothing_once_it_trains(tmp_path: Path) -> None:
    path, state = tmp_path / "progress.json", tmp_path / "train.json"
    with noted_bars(path, until=state, every_s=0.01), bar(206) as steps:
        steps.update(3)
        with bar(10, unit="B") as download:
            download.update(1)
            assert noted(path, bool)["of"] == 10
            state.write_text("{}")
            noted(path, lambda now: not now)
            download.update(1)
            time.sleep(0.05)
            assert not path.exists()
