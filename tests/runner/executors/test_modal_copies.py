from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import modal
import pytest

from modal_app.store.layout import HELD_OUT, Store
from modal_app.store.step import StepKind
from runner.executors.modal_copies import Copies, read_text
from runner.executors.modal_errors import UNREACHED
from runner.executors.modal_submission import MirroredStep
from tests.modal_server import ModalServer
from tests.modal_server.fixture import client_of


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
    """The network of a laptop comes and goes: a process that follows a sweep looks again."""
    volume: Any = Interrupted(error)
    with pytest.raises(UNREACHED):
        read_text(volume, "runs/a/metrics.jsonl")


def test_what_was_removed_from_the_cache_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = ["train-a", "preprocess-a", "preprocess-b", "fetch-owner-a--x@1", "fetch-owner-b@1"]
    cached = ["prepared/a/manifest.json", "prepared/b.work/run.json", "hub/models--owner--a--x/snapshots/1/config.json"]
    with ModalServer() as server, client_of(server, monkeypatch) as client:
        for name, paths in (("runs", [f"done/{mark}" for mark in marks]), ("cache", cached)):
            volume = modal.Volume.from_name(name, create_if_missing=True, version=2, client=client)
            with volume.batch_upload() as batch:
                for path in paths:
                    batch.put_file(io.BytesIO(b"{}"), f"/{path}")
        volumes = {name: modal.Volume.from_name(name, client=client) for name in ("runs", "cache")}
        done = Copies(Store(tmp_path), "cache", "runs", _volumes=volumes).done()
    assert done == {"train-a", "preprocess-a", "fetch-owner-a--x@1"}


def test_losses_by_row_and_what_the_rows_are_come_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not text, and a run that is still training has them in its draft."""
    content = b"PK\x03\x04\xff\xfe\r\n"
    on_cache = [f"prepared/a/{name}" for name in (HELD_OUT, "manifest.json")]
    done = [f"runs/a/{name}" for name in ("result.json", "losses.npz", "losses-before.npz")]
    after, drafted = "runs/a/evaluate/e/losses.npz", "runs/b/attempt-1/draft/losses.npz"
    complete = "runs/b/attempt-1/draft/result.json"
    with ModalServer() as server, client_of(server, monkeypatch) as client:
        for name, paths in (("runs", [*done, after, drafted, complete]), ("cache", on_cache)):
            volume = modal.Volume.from_name(name, create_if_missing=True, version=2, client=client)
            with volume.batch_upload() as batch:
                for path in paths:
                    batch.put_file(io.BytesIO(content), f"/{path}")
        volumes = {name: modal.Volume.from_name(name, client=client) for name in ("runs", "cache")}
        copies = Copies(Store(tmp_path), "cache", "runs", _volumes=volumes)
        steps = [(StepKind.PREPROCESS, "a"), (StepKind.TRAIN, "a"), (StepKind.TRAIN, "b"), (StepKind.EVALUATE, "a/e")]
        for kind, key in steps:
            copies.copy(MirroredStep(kind, key, "a"))
    for path in (*on_cache, *done, after, complete, "runs/b/losses.npz"):
        assert (tmp_path / path).read_bytes() == content, path


def test_losses_that_the_finished_run_has_not_are_removed_from_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those from its draft belong to other weights than it stores."""
    step = MirroredStep(StepKind.TRAIN, "b", "b")
    with ModalServer() as server, client_of(server, monkeypatch) as client:
        volume = modal.Volume.from_name("runs", create_if_missing=True, version=2, client=client)
        copies = Copies(Store(tmp_path), "cache", "runs", _volumes={"runs": volume})
        with volume.batch_upload() as batch:
            for name in ("losses.npz", "losses-before.npz"):
                batch.put_file(io.BytesIO(b"drafted"), f"/runs/b/attempt-1/draft/{name}")
        copies.copy(step)
        assert (tmp_path / "runs/b/losses.npz").exists()
        with volume.batch_upload() as batch:
            for name in ("losses-before.npz", "result.json"):
                batch.put_file(io.BytesIO(b"{}"), f"/runs/b/{name}")
        copies.copy(step)
    assert not (tmp_path / "runs/b/losses.npz").exists()
    assert (tmp_path / "runs/b/losses-before.npz").read_bytes() == b"{}"
