import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from modal_app.store import pins
from modal_app.store.content import file_sha256
from modal_app.store.layout import Store
from runner.errors import SweepError
from runner.keys import content
from runner.keys.content import ALWAYS_READ_BELOW_BYTES, ContentHashes, keep_folder, keep_in, put_folder


def keep(source: Path, identity: str, target: Path) -> None:
    """Hash as a new command would."""
    content.keep(source, identity, target, ContentHashes(Path(os.devnull)))


def of(path: Path, memory: Path) -> str:
    """As a new command would hash it."""
    hashes = ContentHashes(memory)
    found = hashes.of(path)
    hashes.save()
    return found


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "hashes.json"


def rewrite_with_old_stamps(path: Path, offset: int) -> None:
    stamps = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"other")
    os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))


def test_a_file_is_its_sha256(tmp_path: Path, memory: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"rows")
    assert of(path, memory) == hashlib.sha256(b"rows").hexdigest()


def test_a_small_file_that_changed_behind_its_time_stamp_is_noticed(tmp_path: Path, memory: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"0123456789")
    before = of(path, memory)
    rewrite_with_old_stamps(path, 0)
    assert of(path, memory) != before


def big(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(ALWAYS_READ_BELOW_BYTES)  # sparse: nothing is written to the disk
    return path


def test_a_big_file_with_the_same_stamps_is_not_read_again(tmp_path: Path, memory: Path) -> None:
    path = big(tmp_path / "weights.bin")
    before = of(path, memory)
    rewrite_with_old_stamps(path, 0)
    assert of(path, memory) == before
    memory.unlink()
    assert of(path, memory) != before


def test_a_big_file_with_another_time_stamp_is_read_again(tmp_path: Path, memory: Path) -> None:
    path = big(tmp_path / "weights.bin")
    before = of(path, memory)
    rewrite_with_old_stamps(path, 0)
    os.utime(path, ns=(1, 1))
    after = of(path, memory)
    assert after != before
    assert of(path, memory) == after


def test_a_big_file_that_took_the_place_of_another_is_read_again(tmp_path: Path, memory: Path) -> None:
    path, other = big(tmp_path / "weights.bin"), big(tmp_path / "other.bin")
    rewrite_with_old_stamps(other, 0)
    os.utime(path, ns=(1, 1))
    os.utime(other, ns=(1, 1))
    before = of(path, memory)
    other.replace(path)
    assert of(path, memory) != before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"/x": null}'])
def test_damaged_memory_is_ignored(tmp_path: Path, memory: Path, text: str) -> None:
    memory.parent.mkdir()
    memory.write_text(text)
    (tmp_path / "rows").write_bytes(b"rows")
    assert of(tmp_path / "rows", memory) == hashlib.sha256(b"rows").hexdigest()


def folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def test_a_folder_is_its_names_and_contents_whatever_its_own_name(tmp_path: Path, memory: Path) -> None:
    base = of(folder(tmp_path / "a", {"config.json": "{}", "sub/w.bin": "1"}), memory)
    assert of(folder(tmp_path / "b", {"sub/w.bin": "1", "config.json": "{}"}), memory) == base
    assert of(folder(tmp_path / "c", {"sub/w.bin": "2", "config.json": "{}"}), memory) != base
    assert of(folder(tmp_path / "d", {"sub/v.bin": "1", "config.json": "{}"}), memory) != base
    assert of(folder(tmp_path / "e", {"sub/w.bin": "{}", "config.json": "1"}), memory) != base


def test_hidden_files_of_a_folder_do_not_count(tmp_path: Path, memory: Path) -> None:
    base = of(folder(tmp_path / "a", {"w.bin": "1"}), memory)
    more = {"w.bin": "1", ".git/HEAD": "x", "sub/.DS_Store": "x", "__pycache__/x.pyc": "x"}
    assert of(folder(tmp_path / "b", more), memory) == base


def test_a_stored_file_is_a_copy_with_the_hashed_bytes_that_later_edits_do_not_reach(tmp_path: Path) -> None:
    source, target = tmp_path / "rows.jsonl", tmp_path / "store" / "inputs" / "kept.jsonl"
    source.write_text("rows")
    keep(source, file_sha256(source), target)
    source.write_text("edited")
    assert target.read_text() == "rows"
    assert {path.name for path in target.parent.iterdir()} == {"kept.jsonl", "kept.jsonl.pin.json"}


def test_a_stored_file_that_was_damaged_is_stored_again(tmp_path: Path) -> None:
    source, target = tmp_path / "rows.jsonl", tmp_path / "kept.jsonl"
    source.write_text("rows")
    target.write_text("row")
    keep(source, file_sha256(source), target)
    assert target.read_text() == "rows"


def test_a_file_that_changed_since_it_was_hashed_is_refused_and_not_stored(tmp_path: Path) -> None:
    source, target = tmp_path / "rows.jsonl", tmp_path / "inputs" / "kept.jsonl"
    source.write_text("rows")
    identity = file_sha256(source)
    source.write_text("edited")
    with pytest.raises(SweepError, match="changed after it was hashed"):
        keep(source, identity, target)
    assert list(target.parent.iterdir()) == []


def test_a_stored_folder_is_a_link_with_a_note(tmp_path: Path, memory: Path) -> None:
    source = folder(tmp_path / "model", {"w.bin": "1"})
    identity, target = of(source, memory), tmp_path / "inputs" / "kept"
    keep(source, identity, target)
    keep(source, identity, target)
    assert target.readlink() == source
    assert list(json.loads(pins.note_of(target).read_text())["files"]) == ["w.bin"]


def test_a_folder_that_was_edited_after_it_was_planned_is_refused_and_not_linked(tmp_path: Path, memory: Path) -> None:
    source = folder(tmp_path / "model", {"w.bin": "1"})
    identity, target = of(source, memory), tmp_path / "inputs" / "kept"
    folder(source, {"w.bin": "2"})
    with pytest.raises(SweepError, match="model changed after it was hashed"):
        keep(source, identity, target)
    assert not target.is_symlink()


def test_a_stored_folder_is_the_one_that_was_hashed_last(tmp_path: Path, memory: Path) -> None:
    """The first folder with these bytes may have been edited since, or deleted."""
    first, second = folder(tmp_path / "a", {"w.bin": "1"}), folder(tmp_path / "b", {"w.bin": "1"})
    identity, target = of(first, memory), tmp_path / "inputs" / "kept"
    keep(first, identity, target)
    folder(first, {"w.bin": "edited"})
    keep(second, identity, target)
    assert of(target, memory) == identity


def test_a_folder_behind_a_link_is_part_of_the_folder(tmp_path: Path, memory: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    elsewhere.mkdir()
    folder.mkdir()
    (folder / "train").symlink_to(elsewhere)
    (elsewhere / "rows").write_text("some")
    before = of(folder, memory)
    (elsewhere / "rows").write_text("others")
    assert of(folder, memory) != before


def test_a_link_that_leads_back_is_refused(tmp_path: Path, memory: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "again").symlink_to(tmp_path / "folder")
    with pytest.raises(SweepError, match="again is a link to a folder that contains it"):
        of(tmp_path / "folder", memory)


def test_what_cannot_be_read_is_reported_by_its_name(tmp_path: Path, memory: Path) -> None:
    with pytest.raises(SweepError, match="rows cannot be read: No such file"):
        of(tmp_path / "rows", memory)


def test_a_folder_that_a_store_has_linked_can_be_stored_again_under_its_own_name(tmp_path: Path, memory: Path) -> None:
    """As when a config of that store is the base of the next run."""
    model = folder(tmp_path / "model", {"w.bin": "1"})
    identity, target = of(model, memory), tmp_path / "inputs" / "kept"
    keep(model, identity, target)
    keep(target, identity, target)
    assert of(target, memory) == identity


def test_a_small_folder_is_copied_and_edits_do_not_reach_the_copy(tmp_path: Path, memory: Path) -> None:
    source = folder(tmp_path / "adapter", {"w.bin": "1", "below/more.bin": "2", ".env": "secret"})
    (tmp_path / "elsewhere").write_text("3")
    (source / "linked.bin").symlink_to(tmp_path / "elsewhere")
    identity, target = of(source, memory), tmp_path / "inputs" / "kept"
    keep_folder(source, identity, target)
    folder(source, {"w.bin": "edited"})
    (tmp_path / "elsewhere").write_text("edited")
    assert of(target, memory) == identity
    names = {path.relative_to(target.parent).as_posix() for path in target.parent.rglob("*") if path.is_file()}
    assert names == {"kept/w.bin", "kept/below/more.bin", "kept/linked.bin"}
    keep_folder(target, identity, target)  # as when a config of the store is requested again
    assert of(target, memory) == identity


def test_what_was_linked_or_damaged_is_copied_again(tmp_path: Path, memory: Path) -> None:
    source, target = folder(tmp_path / "adapter", {"w.bin": "1"}), tmp_path / "inputs" / "kept"
    identity = of(source, memory)
    keep(source, identity, target)
    keep_folder(target, identity, target)
    assert not target.is_symlink()
    assert (source / "w.bin").read_text() == "1"
    (target / "w.bin").write_text("damaged")
    keep_folder(source, identity, target)
    assert of(target, memory) == identity


@pytest.mark.parametrize("there", [{}, {"w.bin": "damaged"}])
def test_of_two_launches_that_store_the_same_at_once_neither_removes_the_copy_of_the_other(
    tmp_path: Path, there: dict[str, str]
) -> None:
    target = tmp_path / "inputs" / "kept"
    target.parent.mkdir()
    if there:
        folder(target, there)
    mine, others = (folder(target.parent / name, {"w.bin": "good"}) for name in (".mine", ".others"))
    placed: list[int] = []

    def is_good() -> bool:
        return target.is_dir() and (target / "w.bin").read_text() == "good"

    def place_the_other() -> None:
        put_folder(others, target, is_good)
        placed.append(target.stat().st_ino)

    other = threading.Thread(target=place_the_other)

    def is_good_before_the_other() -> bool:
        found = is_good()
        if not other.ident:
            other.start()
            other.join(timeout=0.2)  # it may have to wait
        return found

    put_folder(mine, target, is_good_before_the_other)
    if not other.ident:
        other.start()
    other.join()
    assert placed == [target.stat().st_ino]
    assert is_good()
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_that_changed_since_it_was_hashed_is_refused_and_not_stored(tmp_path: Path, memory: Path) -> None:
    source, target = folder(tmp_path / "adapter", {"w.bin": "1"}), tmp_path / "inputs" / "kept"
    identity = of(source, memory)
    folder(source, {"w.bin": "edited"})
    with pytest.raises(SweepError, match="changed after it was hashed"):
        keep_folder(source, identity, target)
    assert list(target.parent.iterdir()) == []


def test_what_a_follow_up_step_reads_is_stored_as_a_copy(store: Store, tmp_path: Path) -> None:
    source = folder(tmp_path / "tasks", {"quiz.yaml": "task: quiz"})
    kept = store.root / keep_in(store, source)
    folder(source, {"quiz.yaml": "edited"})
    assert (kept / "quiz.yaml").read_text() == "task: quiz"
