"""Bytes over HTTP, as Modal's clients move them: blobs, source files, blocks of v2 Volumes, files of Volumes."""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import itertools
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from aiohttp import web

BLOCK_SIZE = 8 * 1024 * 1024


@cache
def _files() -> Path:
    """Source files by their digests, for all servers of this process: as at Modal, a file is never uploaded twice."""
    folder = Path(tempfile.mkdtemp(prefix="modal-files-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class Blobs:
    """Folders of files, and the HTTP server in front of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runner: web.AppRunner | None = None
        self._pins = itertools.count()
        self.requested_bytes = 0
        """Of files of Volumes."""
        self.pause_s = 0.0
        """Before a block of one is sent."""
        self.url = ""
        for kind in ("blob", "block", "pinned"):
            (folder / kind).mkdir(parents=True)

    async def start(self) -> None:
        application = web.Application(client_max_size=1 << 40)
        application.router.add_put("/{kind:blob|block}/{key}", self._put)
        application.router.add_get("/blob/{key}", self._get)
        application.router.add_get("/pinned/{key}", self._read_pinned)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def blob_url(self, blob_id: str) -> str:
        return f"{self.url}/blob/{blob_id}"

    def block_url(self, digest: bytes) -> str:
        return f"{self.url}/block/{digest.hex()}"

    def pin(self, path: Path) -> Path:
        """The file of a Volume as it is now: a running download gets that, even if a commit replaces the file."""
        pinned = self._path("pinned", str(next(self._pins)))
        os.link(path, pinned)
        return pinned

    def pinned_url(self, pinned: Path, start: int, length: int) -> str:
        return f"{self.url}/pinned/{pinned.name}?start={start}&len={length}"

    def has_block(self, digest: bytes) -> bool:
        return self._path("block", digest.hex()).is_file()

    def has_file(self, sha256: str) -> bool:
        return self.file(sha256).is_file()

    def add_file(self, sha256: str, *, data: bytes | None = None, blob_id: str = "") -> None:
        """Store a source file under its digest."""
        target = self.file(sha256)
        partial = target.with_suffix(".new")
        if data is not None:
            partial.write_bytes(data)
        else:
            shutil.copyfile(self._path("blob", blob_id), partial)
        partial.rename(target)

    def file(self, sha256: str) -> Path:
        return _files() / sha256

    def assemble(self, digests: list[bytes], size: int, target: Path) -> None:
        """Write a file from its blocks. The client leaves out each block's trailing zeros."""
        with target.open("wb") as stream:
            for index, digest in enumerate(digests):
                stream.seek(index * BLOCK_SIZE)
                stream.write(self._path("block", digest.hex()).read_bytes())
            stream.truncate(size)

    def _path(self, kind: str, key: str) -> Path:
        return self._folder / kind / key

    async def _put(self, request: web.Request) -> web.Response:
        kind, key = request.match_info["kind"], request.match_info["key"]
        data = await request.read()
        if kind == "block" and hashlib.sha256(data).hexdigest() != key:
            return web.Response(status=400, text="the block's content does not have the announced digest")
        await asyncio.to_thread(self._path(kind, key).write_bytes, data)
        return web.Response(body=b"stored", headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        path = self._path("blob", request.match_info["key"])
        return web.FileResponse(path) if path.is_file() else web.Response(status=404)

    async def _read_pinned(self, request: web.Request) -> web.Response:
        start, length = int(request.query["start"]), int(request.query["len"])
        self.requested_bytes += length  # counted now: if its client is killed in the pause, it would count later
        await asyncio.sleep(self.pause_s)
        with self._path("pinned", request.match_info["key"]).open("rb") as stream:
            stream.seek(start)
            return web.Response(body=stream.read(length))
