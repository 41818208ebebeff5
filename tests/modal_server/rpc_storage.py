"""What is uploaded and stored: blobs, sources, image layers, secrets, dicts."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import AsyncIterator, Iterable

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.modal_server.calls import Result
from tests.modal_server.world import Image, KeyValues, NamedSecret, World, environment_of, found, missing, new_id

_CREATE = (api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING, api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS)
_NAMELESS = (api_pb2.OBJECT_CREATION_TYPE_ANONYMOUS_OWNED_BY_APP, api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL)


class StorageResponder:
    """Answers the Blob, Mount, Image, Secret and Dict calls."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._names: dict[tuple[str, str, str], str] = {}

    async def BlobCreate(self, request: api_pb2.BlobCreateRequest) -> api_pb2.BlobCreateResponse:
        blob_id = new_id("bl")
        answer = api_pb2.BlobCreateResponse(blob_ids=[blob_id])
        answer.upload_urls.items.append(self._world.blobs.blob_url(blob_id))
        return answer

    async def BlobGet(self, request: api_pb2.BlobGetRequest) -> api_pb2.BlobGetResponse:
        return api_pb2.BlobGetResponse(download_url=self._world.blobs.blob_url(request.blob_id))

    async def MountBatchedCheckExistence(
        self, request: api_pb2.MountBatchedCheckExistenceRequest
    ) -> api_pb2.MountBatchedCheckExistenceResponse:
        absent = [digest for digest in request.sha256_hex_hashes if not self._world.blobs.has_file(digest)]
        return api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=absent)

    async def MountPutFile(self, request: api_pb2.MountPutFileRequest) -> api_pb2.MountPutFileResponse:
        if request.HasField("data"):
            self._world.blobs.add_file(request.sha256_hex, data=request.data)
        elif request.data_blob_id:
            self._world.blobs.add_file(request.sha256_hex, blob_id=request.data_blob_id)
        return api_pb2.MountPutFileResponse(exists=self._world.blobs.has_file(request.sha256_hex))

    async def MountGetOrCreate(self, request: api_pb2.MountGetOrCreateRequest) -> api_pb2.MountGetOrCreateResponse:
        """Modal's own mounts, the client and standalone Pythons, exist under any name and are empty."""
        mount_id = new_id("mo")
        self._world.mounts[mount_id] = request
        digest = hashlib.sha256(repr(sorted((f.filename, f.sha256_hex) for f in request.files)).encode()).hexdigest()
        metadata = api_pb2.MountHandleMetadata(content_checksum_sha256_hex=digest)
        return api_pb2.MountGetOrCreateResponse(mount_id=mount_id, handle_metadata=metadata)

    async def ImageGetOrCreate(self, request: api_pb2.ImageGetOrCreateRequest) -> api_pb2.ImageGetOrCreateResponse:
        """Nothing is built: containers run on this machine, with the variables and the folder that the layers name."""
        layer = request.image
        if layer.HasField("build_function"):
            result = Result(
                status=Result.GENERIC_STATUS_FAILURE, exception="run_function is not part of this test tool"
            )
            return api_pb2.ImageGetOrCreateResponse(image_id=new_id("im"), result=result)
        key = hashlib.sha256(layer.SerializeToString(deterministic=True)).hexdigest()[:22]
        image = Image(f"im-{key}", layer, {}, "")
        for base in layer.base_images:
            below = found(self._world.images, base.image_id, "Image")
            image.environment.update(below.environment)
            image.workdir = below.workdir
        for command in layer.dockerfile_commands:
            _apply(image, command)
        self._world.images[image.id] = image
        result = Result(status=Result.GENERIC_STATUS_SUCCESS)
        return api_pb2.ImageGetOrCreateResponse(image_id=image.id, result=result)

    async def SecretGetOrCreate(self, request: api_pb2.SecretGetOrCreateRequest) -> api_pb2.SecretGetOrCreateResponse:
        key = ("secret", environment_of(request.environment_name), request.deployment_name)
        creation = request.object_creation_type
        if creation in _NAMELESS:
            secret = self.add_secret("", dict(request.env_dict))
        elif creation == api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS or (
            creation in _CREATE and key not in self._names
        ):
            secret = self.add_secret(request.deployment_name, dict(request.env_dict), key[1])
        else:
            _refuse_existing(creation, key, self._names)
            secret = self._world.secrets[_named(self._names, key, "Secret")]
        if lacking := sorted(set(request.required_keys) - set(secret.values)):
            raise GRPCError(Status.NOT_FOUND, f"Secret {secret.name!r} lacks the keys {', '.join(lacking)}")
        return api_pb2.SecretGetOrCreateResponse(secret_id=secret.id, metadata=secret.metadata())

    async def SecretGetInfo(self, request: api_pb2.SecretGetInfoRequest) -> api_pb2.SecretGetInfoResponse:
        secret = found(self._world.secrets, request.secret_id, "Secret")
        return api_pb2.SecretGetInfoResponse(metadata=secret.metadata())

    async def SecretUpdate(self, request: api_pb2.SecretUpdateRequest) -> None:
        """Set the named keys; the others stay."""
        values = found(self._world.secrets, request.secret_id, "Secret").values
        values.update({one.key: one.value for one in request.updates})

    async def SecretList(self, request: api_pb2.SecretListRequest) -> api_pb2.SecretListResponse:
        named = [secret for secret in self._world.secrets.values() if secret.name]
        items = [api_pb2.SecretListItem(label=one.name, secret_id=one.id, metadata=one.metadata()) for one in named]
        return api_pb2.SecretListResponse(items=items, environment_name=environment_of(request.environment_name))

    def add_secret(self, name: str, values: dict[str, str], environment: str = "") -> NamedSecret:
        """With a name, it replaces the one of that name."""
        secret = NamedSecret(new_id("st"), name, values)
        self._world.secrets[secret.id] = secret
        if name:
            self._names["secret", environment_of(environment), name] = secret.id
        return secret

    async def DictGetOrCreate(self, request: api_pb2.DictGetOrCreateRequest) -> api_pb2.DictGetOrCreateResponse:
        key = ("dict", environment_of(request.environment_name), request.deployment_name)
        creation = request.object_creation_type
        _refuse_existing(creation, key, self._names)
        if creation in _NAMELESS or (creation in _CREATE and key not in self._names):
            table = KeyValues(new_id("di"), request.deployment_name)
            self._world.dicts[table.id] = table
            if request.deployment_name:
                self._names[key] = table.id
        else:
            table = self._world.dicts[_named(self._names, key, "Dict")]
        return api_pb2.DictGetOrCreateResponse(dict_id=table.id, metadata=api_pb2.DictMetadata(name=table.name))

    async def DictGetById(self, request: api_pb2.DictGetByIdRequest) -> api_pb2.DictGetByIdResponse:
        table = self._dict(request.dict_id)
        return api_pb2.DictGetByIdResponse(dict_id=table.id, metadata=api_pb2.DictMetadata(name=table.name))

    async def DictHeartbeat(self, request: object) -> None:
        return None

    async def DictUpdate(self, request: api_pb2.DictUpdateRequest) -> api_pb2.DictUpdateResponse:
        """One event loop: nothing happens between the check and the change."""
        entries = self._dict(request.dict_id).entries
        created = False
        for update in request.updates:
            if not (request.if_not_exists and update.key in entries):
                entries[update.key] = update.value
                created = True
        return api_pb2.DictUpdateResponse(created=created)

    async def DictGet(self, request: api_pb2.DictGetRequest) -> api_pb2.DictGetResponse:
        value = self._dict(request.dict_id).entries.get(request.key)
        return api_pb2.DictGetResponse(found=value is not None, value=value)

    async def DictPop(self, request: api_pb2.DictPopRequest) -> api_pb2.DictPopResponse:
        value = self._dict(request.dict_id).entries.pop(request.key, None)
        return api_pb2.DictPopResponse(found=value is not None, value=value)

    async def DictContains(self, request: api_pb2.DictContainsRequest) -> api_pb2.DictContainsResponse:
        return api_pb2.DictContainsResponse(found=request.key in self._dict(request.dict_id).entries)

    async def DictLen(self, request: api_pb2.DictLenRequest) -> api_pb2.DictLenResponse:
        return api_pb2.DictLenResponse(len=len(self._dict(request.dict_id).entries))

    async def DictClear(self, request: api_pb2.DictClearRequest) -> None:
        self._dict(request.dict_id).entries.clear()

    async def DictDelete(self, request: api_pb2.DictDeleteRequest) -> None:
        table = self._world.dicts.pop(self._dict(request.dict_id).id)
        self._names = {key: value for key, value in self._names.items() if value != table.id}

    async def DictContents(self, request: api_pb2.DictContentsRequest) -> AsyncIterator[api_pb2.DictEntry]:
        for key, value in list(self._dict(request.dict_id).entries.items()):
            yield api_pb2.DictEntry(key=key, value=value if request.values else b"")

    def _dict(self, dict_id: str) -> KeyValues:
        return found(self._world.dicts, dict_id, "Dict")


def _refuse_existing(creation: int, key: tuple[str, str, str], names: Iterable[tuple[str, str, str]]) -> None:
    if creation == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS and key in names:
        raise GRPCError(Status.ALREADY_EXISTS, f"{key[0].title()} {key[2]!r} already exists")


def _named(names: dict[tuple[str, str, str], str], key: tuple[str, str, str], what: str) -> str:
    if key not in names:
        raise missing(f"{what} {key[2]!r} in environment {key[1]!r}")
    return names[key]


def _apply(image: Image, command: str) -> None:
    """The effect that a Dockerfile line has on processes."""
    instruction, _, rest = command.strip().partition(" ")
    if instruction.upper() == "WORKDIR":
        image.workdir = rest.strip()
    elif instruction.upper() == "ENV":
        name, separator, value = rest.partition("=")
        if not separator:
            name, _, value = rest.partition(" ")
            image.environment[name] = value
            return
        for pair in shlex.split(rest):
            name, _, value = pair.partition("=")
            image.environment[name] = value
