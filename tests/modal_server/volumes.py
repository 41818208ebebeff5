"""A Volume: one committed tree, and a private checkout of it per container, joined by commit and reload only.

Modal commits in the background every few seconds; this Volume commits only on request, and when a container ends on its
own. So a test cannot depend on Modal's background commits by accident.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.modal_server.trees import Manifest, carry_over, copy_tree, differences, scan, size_in, stamps
from tests.modal_server.world import missing


@dataclass(slots=True)
class Checkout:
    """`own` is what the container itself has committed or received; `seen` is the committed tree that it is based
    on."""

    volume: Volume
    path: Path
    read_only: bool
    own: Manifest = field(default_factory=dict)
    seen: Manifest = field(default_factory=dict)

    def uncommitted_bytes(self) -> int:
        """The bytes of the files that a commit would now include."""
        now = scan(self.path)
        return sum(size_in(now.get(name)) for name in differences(self.own, now)[0])

    async def commit(self) -> bool:
        """Merge what this container changed: the last writer of a file wins. True if there was anything.

        The client also commits read-only mounts when a container ends: there is nothing to do.
        """
        if self.read_only:
            return False
        async with self.volume.lock:
            return await asyncio.to_thread(self._commit)

    async def reload(self) -> None:
        """Get what others have committed; uncommitted changes of this container stay."""
        async with self.volume.lock:
            await asyncio.to_thread(self._reload)

    def _commit(self) -> bool:
        now = scan(self.path)
        changed, removed = differences(self.own, now)
        carry_over(self.path, self.volume.tree, changed, removed)
        self.own = now
        self.seen |= stamps(self.volume.tree, changed)
        for name in removed:
            self.seen.pop(name, None)
        self.volume.commits += bool(changed or removed)
        return bool(changed or removed)

    def _reload(self) -> None:
        committed = scan(self.volume.tree)
        changed, removed = (self._clean(names) for names in differences(self.seen, committed))
        carry_over(self.volume.tree, self.path, changed, removed)
        self.own |= stamps(self.path, changed)
        for name in removed:
            self.own.pop(name, None)
        self.seen = committed

    def _clean(self, names: list[str]) -> list[str]:
        """Those that this container has not changed since its last commit."""
        here = stamps(self.path, names)
        return [name for name in names if here.get(name) == self.own.get(name)]


@dataclass(slots=True)
class Volume:
    """Files in `tree` are only replaced by renaming, so a reader's linked checkout never changes."""

    id: str
    name: str
    environment: str
    version: int
    tree: Path
    commits: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def metadata(self) -> api_pb2.VolumeMetadata:
        return api_pb2.VolumeMetadata(version=self.version, name=self.name)  # type: ignore[arg-type]

    async def checkout(self, path: Path, *, read_only: bool) -> Checkout:
        async with self.lock:
            return await asyncio.to_thread(self._checkout, path, read_only)

    def _checkout(self, path: Path, read_only: bool) -> Checkout:
        copy_tree(self.tree, path, link=read_only)
        return Checkout(self, path, read_only, own=scan(path), seen=scan(self.tree))

    def resolve(self, path: str) -> Path:
        """A client's path inside the tree."""
        relative = PurePosixPath("/", path).relative_to("/")
        if ".." in relative.parts:
            raise GRPCError(Status.INVALID_ARGUMENT, f"{path!r} leaves the Volume")
        return self.tree / relative

    def entries(self, path: str, *, recursive: bool) -> list[api_pb2.FileEntry]:
        """A folder's content, or the one file."""
        start = self.resolve(path)
        if not os.path.lexists(start):
            raise missing(f"{path!r} in Volume {self.name!r}")
        if not start.is_dir() or start.is_symlink():
            return [self._entry(start)]
        found = start.rglob("*") if recursive else start.iterdir()
        return [self._entry(entry) for entry in sorted(found)]

    def remove(self, path: str, *, recursive: bool) -> None:
        target = self.resolve(path)
        if not os.path.lexists(target):
            raise missing(f"{path!r} in Volume {self.name!r}")
        if target.is_dir() and not target.is_symlink():
            if not recursive:
                raise GRPCError(Status.INVALID_ARGUMENT, f"{path!r} is a directory: pass recursive=True")
            shutil.rmtree(target)
        else:
            target.unlink()

    def _entry(self, path: Path) -> api_pb2.FileEntry:
        kind = api_pb2.FileEntry.FILE
        if path.is_symlink():
            kind = api_pb2.FileEntry.SYMLINK
        elif path.is_dir():
            kind = api_pb2.FileEntry.DIRECTORY
        status = path.lstat()
        size = 0 if kind == api_pb2.FileEntry.DIRECTORY else status.st_size
        name = path.relative_to(self.tree).as_posix()
        return api_pb2.FileEntry(path=name, type=kind, mtime=int(status.st_mtime), size=size)
