"""Volumes as clients use them: created, uploaded to, listed, read. What containers do with theirs is in
rpc_containers."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.modal_server.blobs import BLOCK_SIZE
from tests.modal_server.trees import place
from tests.modal_server.volumes import Volume
from tests.modal_server.world import World, environment_of, found, missing, new_id

_PAGE = 500


class VolumeResponder:
    """Uploads take effect at once, like a commit."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def VolumeGetOrCreate(self, request: api_pb2.VolumeGetOrCreateRequest) -> api_pb2.VolumeGetOrCreateResponse:
        environment = environment_of(request.environment_name)
        volume = self.named(request.deployment_name, environment)
        creation = request.object_creation_type
        if volume is not None and creation == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            raise GRPCError(Status.ALREADY_EXISTS, f"Volume {volume.name!r} already exists")
        if volume is None:
            if creation == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
                raise missing(f"Volume {request.deployment_name!r} in environment {environment!r}")
            version = request.version or api_pb2.VOLUME_FS_VERSION_V1
            volume_id = new_id("vo")
            tree = self._world.folder / "volumes" / volume_id
            tree.mkdir(parents=True)
            volume = Volume(volume_id, request.deployment_name, environment, version, tree)
            self._world.volumes[volume.id] = volume
        return api_pb2.VolumeGetOrCreateResponse(
            volume_id=volume.id, version=volume.metadata().version, metadata=volume.metadata()
        )

    def named(self, name: str, environment: str = "") -> Volume | None:
        """The Volume of that name, if there is one."""
        environment = environment_of(environment)
        for volume in self._world.volumes.values():
            if name and volume.name == name and volume.environment == environment:
                return volume
        return None

    async def VolumeGetById(self, request: api_pb2.VolumeGetByIdRequest) -> api_pb2.VolumeGetByIdResponse:
        volume = self._volume(request.volume_id)
        return api_pb2.VolumeGetByIdResponse(volume_id=volume.id, metadata=volume.metadata())

    async def VolumeList(self, request: api_pb2.VolumeListRequest) -> api_pb2.VolumeListResponse:
        environment = environment_of(request.environment_name)
        named = [one for one in self._world.volumes.values() if one.name and one.environment == environment]
        items = [api_pb2.VolumeListItem(label=one.name, volume_id=one.id, metadata=one.metadata()) for one in named]
        return api_pb2.VolumeListResponse(items=items, environment_name=environment)

    async def VolumeHeartbeat(self, request: object) -> None:
        return None

    async def VolumeDelete(self, request: api_pb2.VolumeDeleteRequest) -> None:
        volume = self._volume(request.volume_id)
        del self._world.volumes[volume.id]
        shutil.rmtree(volume.tree)

    async def VolumeCommit(self, request: api_pb2.VolumeCommitRequest) -> None:
        raise GRPCError(Status.FAILED_PRECONDITION, "commit() must be called inside a container that mounts the Volume")

    async def VolumeReload(self, request: api_pb2.VolumeReloadRequest) -> None:
        raise GRPCError(Status.FAILED_PRECONDITION, "reload() must be called inside a container that mounts the Volume")

    async def VolumePutFiles2(self, request: api_pb2.VolumePutFiles2Request) -> api_pb2.VolumePutFiles2Response:
        """Returns the blocks that are missing, or, if none is, puts all files in place."""
        volume, blobs = self._volume(request.volume_id), self._world.blobs
        if request.disallow_overwrite_existing_files:
            self._refuse_existing(volume, [file.path for file in request.files])
        lacking = api_pb2.VolumePutFiles2Response()
        for file_index, file in enumerate(request.files):
            for block_index, block in enumerate(file.blocks):
                if not blobs.has_block(block.contents_sha256):
                    url = blobs.block_url(block.contents_sha256)
                    lacking.missing_blocks.add(file_index=file_index, block_index=block_index, put_url=url)
        if not lacking.missing_blocks:
            async with volume.lock:
                for file in request.files:
                    await asyncio.to_thread(self._put, volume, file)
            volume.commits += 1
        return lacking

    def _put(self, volume: Volume, file: api_pb2.VolumePutFiles2Request.File) -> None:
        staged = self._world.folder / new_id("up")
        self._world.blobs.assemble([block.contents_sha256 for block in file.blocks], file.size, staged)
        staged.chmod(file.mode or 0o644)
        _move_in(staged, volume.resolve(file.path))

    async def VolumePutFiles(self, request: api_pb2.VolumePutFilesRequest) -> None:
        """Version 1: the content was put as source files are."""
        volume = self._volume(request.volume_id)
        if request.disallow_overwrite_existing_files:
            self._refuse_existing(volume, [file.filename for file in request.files])
        async with volume.lock:
            for file in request.files:
                staged = self._world.folder / new_id("up")
                shutil.copyfile(self._world.blobs.file(file.sha256_hex), staged)
                staged.chmod(file.mode or 0o644)
                _move_in(staged, volume.resolve(file.filename))
        volume.commits += 1

    def _refuse_existing(self, volume: Volume, paths: list[str]) -> None:
        for path in paths:
            if os.path.lexists(volume.resolve(path)):
                raise GRPCError(Status.ALREADY_EXISTS, f"{path}: already exists (force=True would overwrite it)")

    async def VolumeListFiles(
        self, request: api_pb2.VolumeListFilesRequest
    ) -> AsyncIterator[api_pb2.VolumeListFilesResponse]:
        entries = await self._entries(request.volume_id, request.path, request.recursive)
        for start in range(0, len(entries), _PAGE):
            yield api_pb2.VolumeListFilesResponse(entries=entries[start : start + _PAGE])

    async def VolumeListFiles2(
        self, request: api_pb2.VolumeListFiles2Request
    ) -> AsyncIterator[api_pb2.VolumeListFiles2Response]:
        entries = await self._entries(request.volume_id, request.path, request.recursive)
        for start in range(0, len(entries), _PAGE):
            yield api_pb2.VolumeListFiles2Response(entries=entries[start : start + _PAGE])

    async def _entries(self, volume_id: str, path: str, recursive: bool) -> list[api_pb2.FileEntry]:
        volume = self._volume(volume_id)
        async with volume.lock:
            return volume.entries(path, recursive=recursive)

    async def VolumeGetFile2(self, request: api_pb2.VolumeGetFile2Request) -> api_pb2.VolumeGetFile2Response:
        volume = self._volume(request.volume_id)
        path = volume.resolve(request.path)
        if not path.is_file():
            raise missing(f"File {request.path!r} in Volume {volume.name!r}")
        pinned = self._world.blobs.pin(path)
        size = pinned.stat().st_size
        end = min(size, request.start + request.len) if request.len else size
        edges = [request.start, *range((request.start // BLOCK_SIZE + 1) * BLOCK_SIZE, end, BLOCK_SIZE), end]
        urls = [
            self._world.blobs.pinned_url(pinned, first, last - first) for first, last in pairwise(edges) if last > first
        ]
        return api_pb2.VolumeGetFile2Response(get_urls=urls, size=size, start=request.start, len=end - request.start)

    async def VolumeRemoveFile(self, request: api_pb2.VolumeRemoveFileRequest) -> None:
        await self._remove(request.volume_id, request.path, request.recursive)

    async def VolumeRemoveFile2(self, request: api_pb2.VolumeRemoveFile2Request) -> None:
        await self._remove(request.volume_id, request.path, request.recursive)

    async def _remove(self, volume_id: str, path: str, recursive: bool) -> None:
        volume = self._volume(volume_id)
        async with volume.lock:
            volume.remove(path, recursive=recursive)
        volume.commits += 1

    def _volume(self, volume_id: str) -> Volume:
        return found(self._world.volumes, volume_id, "Volume")


def _move_in(staged: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        staged.unlink()
        raise GRPCError(Status.ALREADY_EXISTS, f"{target.name} is a directory")
    place(staged, target)
    staged.unlink()
