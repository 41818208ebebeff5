from __future__ import annotations

import io
from collections.abc import Callable

import modal
import pytest

from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts

Small = Callable[[str], modal.Function]


@needs_mounts
def test_what_was_not_committed_is_seen_by_nobody_else(small: Small, modal_server: ModalServer) -> None:
    small("write").remote("a.txt", "draft", commit=False)
    assert small("read").remote("a.txt", reload=True) is None
    small("write").remote("b.txt", "final", commit=True)
    assert small("read").remote("b.txt", reload=True) == "final"
    # The writer is the same warm container: its second commit carried the forgotten file along.
    assert small("read").remote("a.txt", reload=True) == "draft"


@needs_mounts
def test_a_warm_container_sees_nothing_new_until_it_reloads(small: Small, modal_server: ModalServer) -> None:
    assert small("read").remote("late.txt", reload=False) is None
    small("write").remote("late.txt", "now", commit=True)
    assert small("read").remote("late.txt", reload=False) is None
    assert small("read").remote("late.txt", reload=True) == "now"
    assert len(modal_server.tasks("read")) == 1


@needs_mounts
def test_the_last_writer_of_a_file_wins_and_removals_travel(
    small: Small, modal_server: ModalServer, client: modal.Client
) -> None:
    notes = modal.Volume.from_name("notes", client=client)
    small("write").remote("x.txt", "mine", commit=True)
    with notes.batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(b"theirs"), "x.txt")
    assert small("read").remote("x.txt", reload=True) == "theirs"
    notes.remove_file("x.txt")
    assert small("read").remote("x.txt", reload=True) is None


@needs_mounts
def test_a_container_that_ends_on_its_own_commits_and_a_killed_one_does_not(
    small: Small, modal_server: ModalServer
) -> None:
    killed = small("write").remote("lost.txt", "x", commit=False)
    modal_server.kill(killed)
    modal_server.wait_until(lambda: next(t for t in modal_server.tasks() if t.id == killed).ended_at)
    stopped = small("write").remote("kept.txt", "x", commit=False)
    modal_server.preempt(stopped)
    modal_server.wait_until(lambda: next(t for t in modal_server.tasks() if t.id == stopped).ended_at)
    tree = modal_server.volume_tree("notes")
    assert sorted(path.name for path in tree.iterdir()) == ["kept.txt"]


@needs_mounts
@pytest.mark.parametrize("held", ["open", "child", "cwd"])
def test_a_reload_fails_while_anything_in_the_container_holds_the_volume(small: Small, held: str) -> None:
    assert "open files" in small("reload_while").remote(held)


@needs_mounts
def test_a_reload_works_when_nothing_is_open(small: Small) -> None:
    assert small("reload_while").remote("nothing") == "reloaded"


@needs_mounts
def test_a_read_only_mount_refuses_to_write(small: Small) -> None:
    assert small("write_read_only").remote() == "Read-only file system"


@needs_mounts
def test_a_commit_and_a_reload_fail_when_the_test_says_so(small: Small, modal_server: ModalServer) -> None:
    modal_server.fail_commit("notes")
    with pytest.raises(RuntimeError, match="conflict"):
        small("write").remote("y.txt", "1", commit=True)
    small("write").remote("y.txt", "2", commit=True)
    modal_server.fail_reload("notes")
    with pytest.raises(RuntimeError, match="open files"):
        small("read").remote("y.txt", reload=True)
    assert small("read").remote("y.txt", reload=True) == "2"


@pytest.mark.parametrize("version", [1, 2])
def test_files_are_uploaded_listed_read_and_removed_from_outside(
    modal_server: ModalServer, client: modal.Client, version: int
) -> None:
    volume = modal.Volume.from_name("outside", create_if_missing=True, version=version, client=client)
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


def test_a_block_that_is_there_is_not_uploaded_again(modal_server: ModalServer, client: modal.Client) -> None:
    volume = modal.Volume.from_name("again", create_if_missing=True, version=2, client=client)
    for name, calls in (("first", 2), ("second", 1)):
        modal_server.forget_calls()
        with volume.batch_upload() as batch:
            batch.put_file(io.BytesIO(b"the same"), name)
        assert modal_server.counts()["VolumePutFiles2"] == calls


def test_a_key_of_a_dict_is_claimed_once(small: Small, modal_server: ModalServer, client: modal.Client) -> None:
    claim = small("claim").with_options(max_containers=3)
    assert sorted(claim.map(["key"] * 5)) == [False] * 4 + [True]
    claims = modal.Dict.from_name("claims", client=client)
    assert claims["key"] in {task.id for task in modal_server.tasks("claim")}
    assert claims.put("key", "mine", skip_if_exists=True) is False
    assert claims.pop("key") in {task.id for task in modal_server.tasks("claim")}
    assert claims.get("key", "gone") == "gone"
    assert claims.put("key", "mine", skip_if_exists=True) is True
    claims.update({"a": 1})
    assert sorted(claims.keys()) == ["a", "key"]
    assert dict(claims.items()) == modal_server.dict_items("claims") == {"key": "mine", "a": 1}
    assert ("a" in claims, claims.len()) == (True, 2)
    claims.clear()
    assert claims.len() == 0
