from __future__ import annotations

import io

import modal
import pytest

from tests.modal_server.deployed import Small
from tests.modal_server.fixture import needs_mounts


@needs_mounts
def test_what_was_not_committed_is_not_seen_elsewhere(shared: Small) -> None:
    shared("write").remote("a.txt", "draft", commit=False)
    assert shared("read").remote("a.txt", reload=True) is None
    shared("write").remote("b.txt", "final", commit=True)
    assert shared("read").remote("b.txt", reload=True) == "final"
    # The writer is the same warm container: its second commit included the forgotten file.
    assert shared("read").remote("a.txt", reload=True) == "draft"


@needs_mounts
def test_a_warm_container_sees_nothing_new_until_it_reloads(shared: Small) -> None:
    assert shared("read").remote("late.txt", reload=False) is None
    shared("write").remote("late.txt", "now", commit=True)
    assert shared("read").remote("late.txt", reload=False) is None
    assert shared("read").remote("late.txt", reload=True) == "now"
    assert len(shared.server.tasks("read")) == 1


@needs_mounts
def test_the_last_writer_of_a_file_wins_and_removals_travel(shared: Small) -> None:
    notes = modal.Volume.from_name("notes", client=shared.client)
    shared("write").remote("x.txt", "mine", commit=True)
    with notes.batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(b"theirs"), "x.txt")
    assert shared("read").remote("x.txt", reload=True) == "theirs"
    notes.remove_file("x.txt")
    assert shared("read").remote("x.txt", reload=True) is None


@needs_mounts
def test_a_container_that_ends_on_its_own_commits_and_a_killed_one_does_not(shared: Small) -> None:
    killed = shared("write").remote("lost.txt", "x", commit=False)
    shared.server.kill(killed)
    shared.server.wait_until(lambda: next(t for t in shared.server.tasks() if t.id == killed).ended_at)
    stopped = shared("write").remote("kept.txt", "x", commit=False)
    shared.server.preempt(stopped)
    shared.server.wait_until(lambda: next(t for t in shared.server.tasks() if t.id == stopped).ended_at)
    tree = shared.server.volume_tree("notes")
    assert (tree / "kept.txt").exists()
    assert not (tree / "lost.txt").exists()


@needs_mounts
@pytest.mark.parametrize("held", ["open", "child", "cwd"])
def test_a_reload_fails_while_anything_in_the_container_holds_the_volume(shared: Small, held: str) -> None:
    assert "open files" in shared("reload_while").remote(held)


@needs_mounts
def test_a_reload_works_when_nothing_is_open(shared: Small) -> None:
    assert shared("reload_while").remote("nothing") == "reloaded"


@needs_mounts
def test_a_read_only_mount_refuses_to_write(shared: Small) -> None:
    assert shared("write_read_only").remote() == "Read-only file system"


@needs_mounts
def test_a_commit_and_a_reload_fail_when_the_test_says_so(shared: Small) -> None:
    shared.server.fail_commit("notes")
    with pytest.raises(RuntimeError, match="conflict"):
        shared("write").remote("y.txt", "1", commit=True)
    shared("write").remote("y.txt", "2", commit=True)
    shared.server.fail_reload("notes")
    with pytest.raises(RuntimeError, match="open files"):
        shared("read").remote("y.txt", reload=True)
    assert shared("read").remote("y.txt", reload=True) == "2"


@pytest.mark.parametrize("version", [1, 2])
def test_files_are_uploaded_listed_read_and_removed_from_outside(shared: Small, version: int) -> None:
    volume = modal.Volume.from_name(f"outside-{version}", create_if_missing=True, version=version, client=shared.client)
    large = b"begin" + b"\0" * (9 << 20) + b"end" + b"\0" * 100
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"hello"), "/folder/hello.txt")
        batch.put_file(io.BytesIO(large), "/folder/large.bin")
        batch.put_file(io.BytesIO(b""), "/empty")
    assert [(e.path, e.size) for e in volume.listdir("/", recursive=True)] == [
        ("empty", 0),
        ("folder", 0),
        ("folder/hello.txt", 5),
        ("folder/large.bin", len(large)),
    ]
    assert b"".join(volume.read_file("folder/large.bin")) == large
    with pytest.raises(FileExistsError), volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"other"), "/folder/hello.txt")
    with volume.batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(b"other"), "/folder/hello.txt")
    assert b"".join(volume.read_file("folder/hello.txt")) == b"other"
    volume.remove_file("folder", recursive=True)
    assert [entry.path for entry in volume.listdir("/")] == ["empty"]
    with pytest.raises(FileNotFoundError):
        list(volume.read_file("folder/hello.txt"))
    with pytest.raises(modal.exception.NotFoundError):
        volume.listdir("folder")


def test_a_block_that_is_there_is_not_uploaded_again(shared: Small) -> None:
    volume = modal.Volume.from_name("again", create_if_missing=True, version=2, client=shared.client)
    for name, calls in (("first", 2), ("second", 1)):
        shared.server.forget_calls()
        with volume.batch_upload() as batch:
            batch.put_file(io.BytesIO(b"the same"), name)
        assert shared.server.counts()["VolumePutFiles2"] == calls


def test_a_key_of_a_dict_is_claimed_once(shared: Small) -> None:
    claim = shared("claim").with_options(max_containers=2)
    assert sorted(claim.map(["key"] * 5)) == [False] * 4 + [True]
    claims = modal.Dict.from_name("claims", client=shared.client)
    assert claims["key"] in {task.id for task in shared.server.tasks("claim")}
    assert claims.put("key", "mine", skip_if_exists=True) is False
    assert claims.pop("key") in {task.id for task in shared.server.tasks("claim")}
    assert claims.get("key", "gone") == "gone"
    assert claims.put("key", "mine", skip_if_exists=True) is True
    claims.update({"a": 1})
    assert sorted(claims.keys()) == ["a", "key"]
    assert dict(claims.items()) == shared.server.dict_items("claims") == {"key": "mine", "a": 1}
    assert ("a" in claims, claims.len()) == (True, 2)
    claims.clear()
    assert claims.len() == 0
