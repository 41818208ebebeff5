"""Lists, reads (from any byte on) and removes the files of a run on Modal's Volumes.

Modal's client has no public way to read a file from its middle, but a download of some gigabytes that dies near its end
should not start again from scratch. So the client's own request for a part of a file is made here by hand. These are
the only private names of the client that axosweep uses, and pyproject.toml pins its minor version.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

import modal
import modal.exception
from modal._utils.async_utils import synchronizer
from modal.types import FileEntryType
from modal_proto import api_pb2

from modal_app.store.layout import Store
from runner.errors import SweepError
from runner.executors.modal_copies import listed
from runner.executors.modal_errors import explained
from runner.executors.modal_submission import Names, read_submission, submitted_as
from runner.files.run_files import Entry

BLOCK = 8 * 1024 * 1024
"""Modal stores and serves files in blocks of this size, counted from a file's beginning."""
AT_A_TIME = 4
"""Blocks that are fetched at the same time."""
TIMEOUT_S = 60.0
PAUSES_S = (0.5, 2.0, 5.0)
"""Before a block is requested again."""
ON_CACHE = ("hub", "inputs", "prepared")
"""Top folders of the store on the cache Volume; the others are on the runs Volume."""
DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")


@dataclass(frozen=True, slots=True)
class ModalFiles:
    """The two Volumes of a deployment, read as one store."""

    names: Names
    _volumes: dict[str, modal.Volume] = field(default_factory=dict)

    def place(self, path: str) -> str:
        return f"Volume {self._name(path)}: {path}"

    def below(self, folder: str) -> list[Entry]:
        with explained():
            entries = listed(self.volume(folder), folder, recursive=True)
        files = [one for one in entries if one.type == FileEntryType.FILE]
        return sorted((Entry(one.path, one.size, one.mtime) for one in files), key=lambda entry: entry.path)

    def read(self, path: str, start: int) -> Iterator[bytes]:
        with explained(), ThreadPoolExecutor(AT_A_TIME) as pool:
            under_way: deque[Future[bytes]] = deque()
            try:
                for url, length in self._blocks(path, start):
                    under_way.append(pool.submit(_fetch, url, length, path))
                    if len(under_way) > AT_A_TIME:
                        yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:
                for one in under_way:
                    one.cancel()

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all its files; nothing happens if it does not exist."""
        with explained():
            try:
                self.volume(path).remove_file(path, recursive=True)
            except (FileNotFoundError, modal.exception.NotFoundError):
                return

    def volume(self, path: str) -> modal.Volume:
        name = self._name(path)
        return self._volumes.setdefault(name, modal.Volume.from_name(name))

    def _name(self, path: str) -> str:
        return self.names.cache_volume if path.split("/")[0] in ON_CACHE else self.names.runs_volume

    def _blocks(self, path: str, start: int) -> list[tuple[str, int]]:
        """The address and length of each block from `start` on. Raises FileNotFoundError."""
        volume = self.volume(path)
        volume.hydrate()
        try:
            reply = _request(volume, path, start)
        except modal.exception.NotFoundError as error:
            raise FileNotFoundError(path) from error
        if reply.start != start:
            raise SweepError(f"Modal sent {path} from byte {reply.start} on, but {start} was requested.")
        blocks, at, end = [], start, start + reply.len
        for url in reply.get_urls:
            after = min((at // BLOCK + 1) * BLOCK, end)
            blocks.append((url, after - at))
            at = after
        return blocks


def files_of_run(store: Store, key: str) -> ModalFiles:
    """The Volumes of a run of the mirror. Raises SweepError when no sweep has submitted it."""
    return ModalFiles(read_submission(store, submitted_as(store, key))[0])


async def _ask(volume: Any, path: str, start: int) -> Any:
    wanted = api_pb2.VolumeGetFile2Request(volume_id=volume.object_id, path=path, start=start, client_pads_blocks=True)
    return await volume.client._stub.VolumeGetFile2(wanted)


def _request(volume: modal.Volume, path: str, start: int) -> Any:
    """Make the request in the client's own event loop."""
    return synchronizer.create_blocking(_ask)(volume, path, start)


def _fetch(url: str, length: int, path: str) -> bytes:
    """One block. Modal may leave out trailing zero bytes."""
    for pause_s in (*PAUSES_S, None):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
                content: bytes = answer.read()
                digest = DIGEST.search(answer.headers.get("Repr-Digest") or "")
            if len(content) > length:
                problem = f"{len(content)} bytes instead of {length}"
            elif digest and hashlib.sha256(content).digest() != base64.b64decode(digest[1]):
                problem = "its bytes do not match the checksum that Modal sent with them"
            else:
                return content.ljust(length, b"\0")
        except (OSError, HTTPException) as error:  # the latter: the connection ended in the middle of the block
            problem = str(error) or type(error).__name__
        if pause_s is not None:
            time.sleep(pause_s)
    raise SweepError(f"{path} could not be read from Modal: {problem}. The same command continues from here.")
