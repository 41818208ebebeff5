"""Files that rows name, such as images: found where they are, identified by content, and stored with the rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.content import folder_sha256
from modal_app.store.layout import Store
from runner.errors import SweepError
from runner.keys.content import ContentHashes
from runner.keys.inputs import find_inputs, staged_name
from runner.keys.row_files import identify_rows, keep_rows, named_files
from runner.launch.identify import identified
from runner.preflight.own_data import row_file_findings
from runner.types import Input, InputKind, Run
from tests.runner.builders import experiment

CONFIG: dict[str, Any] = {
    "processor_type": "AutoProcessor",
    "skip_prepare_dataset": True,
    "datasets": [{"path": "rows.jsonl", "type": "chat_template"}],
}


def sees(name: str, **more: Any) -> dict[str, Any]:
    """A row with a message that shows a picture."""
    shown = [{"type": "image", "path": name}, {"type": "text", "text": "pictures/red.png"}]
    return {"messages": [{"role": "user", "content": shown}], **more}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    draw("red", "blue")
    return tmp_path


def draw(*names: str, folder: str = "pictures", content: str = "") -> None:
    Path(folder).mkdir(exist_ok=True)
    for name in names:
        Path(folder, f"{name}.png").write_text(content or name)


def write(*rows: dict[str, Any]) -> None:
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def hashes() -> ContentHashes:
    return ContentHashes(Path("hashes.json"))


def make_run() -> Run:
    return identified(experiment(CONFIG), hashes(), "trainer")


def test_files_are_found_in_messages_and_in_columns_of_images(place: Path) -> None:
    write(
        sees("pictures/red.png"),
        {"images": ["pictures/blue.png"], "messages": []},
        {"image": {"path": str(place / "pictures" / "red.png"), "bytes": None}},
        sees("https://example.org/far.png", images=["data:image/png;base64,AAAA"]),
        sees("iVBORw0KGgo" * 1000),
    )
    found = named_files("rows.jsonl")
    assert set(found.files) == {"pictures/red.png", "pictures/blue.png", str(place / "pictures" / "red.png")}
    assert (found.missing, found.addresses) == ((), 1)


def test_a_list_of_rows_is_read_like_lines() -> None:
    Path("rows.json").write_text(json.dumps([sees("pictures/red.png"), sees("pictures/blue.png")]))
    assert len(named_files("rows.json").files) == 2


@pytest.mark.parametrize("separator", ["\u2028", "\x85"])
def test_a_text_may_have_characters_that_separate_lines_elsewhere(separator: str) -> None:
    row = json.dumps(sees("pictures/red.png", note=f"a{separator}b"), ensure_ascii=False)
    Path("rows.jsonl").write_text(f"{row}\n", encoding="utf-8")
    assert set(named_files("rows.jsonl").files) == {"pictures/red.png"}


def move_pictures() -> None:
    Path("pictures").rename("elsewhere")
    write(sees("elsewhere/red.png"), sees("elsewhere/blue.png"))


def paint_one() -> None:
    draw("red", content="another red")


def swap_two() -> None:
    write(sees("pictures/blue.png"), sees("pictures/red.png"))


@pytest.mark.parametrize(("change", "same"), [(move_pictures, True), (paint_one, False), (swap_two, False)])
def test_the_data_key_covers_what_the_files_contain_and_not_where_they_are(
    change: Callable[[], None], same: bool
) -> None:
    write(sees("pictures/red.png"), sees("pictures/blue.png"))
    before = make_run()
    change()
    assert (make_run().data_key == before.data_key) is same


def test_without_a_processor_rows_are_rows() -> None:
    write(sees("pictures/red.png"))
    text = {name: value for name, value in CONFIG.items() if name != "processor_type"}
    (found,) = identified(experiment(text), hashes(), "trainer").inputs
    assert found.kind is InputKind.FILE


def stored(store: Store) -> tuple[Input, Input]:
    rows, files = identify_rows(find_inputs(CONFIG)[0], hashes())
    for one in (rows, files):
        keep_rows(one, store.root / staged_name(one), hashes())
    return rows, files


def test_the_store_has_the_files_and_rows_that_name_them_there(tmp_path: Path) -> None:
    write(sees("pictures/red.png", images=["pictures/blue.png"]))
    store = Store(tmp_path / "out")
    rows, files = stored(store)
    (row,) = [json.loads(line) for line in (store.root / staged_name(rows)).read_text().splitlines()]
    shown, text = row["messages"][0]["content"]
    assert (store.root / shown["path"]).read_text() == "red"
    assert (store.root / row["images"][0]).read_text() == "blue"
    assert text["text"] == "pictures/red.png", "a text is no name"
    kept = sorted((store.root / staged_name(files)).iterdir())
    assert [path.suffix for path in kept] == [".png", ".png"]
    assert folder_sha256({path.name: hashes().of(path) for path in kept}) == files.identity


def test_a_file_that_is_edited_after_it_was_hashed_is_not_stored_under_its_old_name(tmp_path: Path) -> None:
    write(sees("pictures/red.png"))
    rows, files = identify_rows(find_inputs(CONFIG)[0], hashes())
    paint_one()
    store = Store(tmp_path / "out")
    for one in (rows, files):
        with pytest.raises(SweepError, match="changed after it was hashed"):
            keep_rows(one, store.root / staged_name(one), hashes())
        assert not (store.root / staged_name(one)).exists()


def test_a_missing_file_stops_a_launch_and_an_address_is_reported() -> None:
    write(sees("pictures/green.png"), sees("http://example.org/far.png"))
    missing, far = row_file_findings(CONFIG)
    assert missing.text.startswith("datasets.0.path=rows.jsonl: its rows name pictures/green.png, and there is no such")
    assert (missing.severity, far.severity) == ("error", "warning")
    assert "files by their address (1 times)" in far.text
