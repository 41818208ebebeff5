"""What one container sees: this machine read through an overlay, its sources, its own Volumes and temporary folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from modal_proto import api_pb2

from tests.modal_server.interpreter import inspect_interpreter
from tests.modal_server.layers import HOME, Source, shared_layers
from tests.modal_server.volumes import Checkout
from tests.modal_server.world import Image, World

PRIVATE = "/__modal"
_HIDDEN = (HOME, "/tmp", "/home", "/var/tmp")


def sources(world: World, mount_ids: Iterable[str]) -> dict[str, Source]:
    """The files of Modal's mounts by the paths that the client gave them, then those that the test puts over them."""
    mounted = (file for mount_id in mount_ids for file in world.mounts[mount_id].files)
    return {
        **{file.filename: Source(file.sha256_hex, world.blobs.file(file.sha256_hex)) for file in mounted},
        **{name: Source.of(path) for name, path in world.settings.files.items()},
    }


def place_sources(files: Mapping[str, Source], upper: Path, *, mounts: bool) -> None:
    """Below mounts they lie in a layer, and only their folders here: one that an overlay has to copy, since a file is
    made in it, becomes another folder to those who compare."""
    for folder in {HOME, *map(os.path.dirname, files)}:
        (upper / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
    if not mounts:
        for name, source in files.items():
            shutil.copy(source.path, upper / name.lstrip("/"))  # a command stays one


def environment(
    world: World, function: api_pb2.Function, image: Image | None, folder: Path, task_id: str, function_id: str
) -> dict[str, str]:
    """The image's variables, then the test's, then the secrets; Modal's own last."""
    settings = world.settings
    inside = PRIVATE if settings.mounts else str(folder / "private")
    variables = {
        "PATH": os.pathsep.join([str(settings.container_python.parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": HOME if settings.mounts else str(folder / "upper" / HOME.lstrip("/")),
        "LANG": "C.UTF-8",
        **(image.environment if image else {}),
        **settings.container_environment,
    }
    for secret_id in function.secret_ids:
        variables.update(world.secrets[secret_id].values)
    home = variables["HOME"]
    if workdir(image, home) != home:
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [home, variables.get("PYTHONPATH")]))
    return variables | {
        "MODAL_SERVER_URL": f"unix://{inside}/server",
        "MODAL_CONTAINER_ARGUMENTS_PATH": f"{inside}/arguments",
        "MODAL_TASK_ID": task_id,
        "MODAL_FUNCTION_ID": function_id,
        "MODAL_IMAGE_ID": function.image_id,
        "MODAL_IS_REMOTE": "1",
        "MODAL_ENVIRONMENT": "main",
        "MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_UNSPECIFIED",
        "MODAL_REGION": "local",
    }


def workdir(image: Image | None, home: str) -> str:
    """WORKDIR of the image, otherwise the folder of the sources."""
    return image.workdir if image and image.workdir else home


def write_spec(
    world: World,
    folder: Path,
    variables: Mapping[str, str],
    function: api_pb2.Function,
    image: Image | None,
    files: Mapping[str, Source],
    checkouts: Mapping[str, tuple[Checkout, api_pb2.VolumeMount]],
) -> Path:
    """Everything that launch.py needs to know."""
    settings = world.settings
    interpreter = inspect_interpreter(settings.container_python)
    hidden = [*_HIDDEN, *(str(path) for path in settings.hidden)]
    binds: list[tuple[str, str, bool]] = [(str(folder / "private"), PRIVATE, False)]
    for path in [*interpreter.folders, *settings.visible]:
        elsewhere = path.stat().st_dev != Path("/").stat().st_dev
        if elsewhere or any(path.is_relative_to(place) for place in hidden):
            binds.append((str(path), str(path), True))
    binds += [(str(other), str(path), True) for path, other in settings.replaced.items()]
    links = []
    for volume_id, (checkout, mount) in checkouts.items():
        inside = f"{PRIVATE}/volumes/{volume_id}"
        source = checkout.path / mount.sub_path.lstrip("/") if mount.sub_path else checkout.path
        source.mkdir(parents=True, exist_ok=True)
        binds.append((str(source), inside, mount.read_only))
        links.append((inside, mount.mount_path))
    spec = {
        "mounts": settings.mounts,
        "root": str(folder / "root"),
        "upper": str(folder / "upper"),
        "work": str(folder / "work"),
        "layers": shared_layers().layers(files, hidden) if settings.mounts else [],
        "module": function.module_name if "." in function.module_name else "",  # no script: those do what they like
        "binds": binds,
        "links": links,
        "workdir": workdir(image, variables["HOME"]),
        "argv": [str(interpreter.python), "-u", *interpreter.entrypoint],
        "environment": dict(variables),
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    return path
