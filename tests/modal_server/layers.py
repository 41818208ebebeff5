"""The sources below the files of containers: folders for each set of them, shared by all containers that have it.

With them lies the bytecode that earlier containers have compiled, as in the image of a build that has run. The folders
are in memory: an overlay takes no two layers of one file system if one lies inside of the other.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import struct
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HOME = "/root"
"""Of containers, where sources are."""
MEMORY = Path("/dev/shm")
_WRITTEN_AT = 1_000_000_000
"""When each source was, so that bytecode counts for it in every layer."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of this machine, and the digest of its content and mode."""

    digest: str
    path: Path

    @classmethod
    def of(cls, path: Path) -> Source:
        return cls(f"{hashlib.sha256(path.read_bytes()).hexdigest()}-{path.stat().st_mode:o}", path)


@cache
def shared_layers() -> Layers:
    """Those of this process."""
    folder = Path(tempfile.mkdtemp(prefix="modal-layers-", dir=MEMORY))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Layers(folder)


class Layers:
    """May be used from any thread. No folder changes once it is made, which its containers would see."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bytecode: dict[tuple[str, str], Path] = {}
        """Digest of a source, tag of an interpreter -> file."""
        self._made: dict[tuple[object, ...], Path] = {}
        self._turn = threading.Lock()

    def layers(self, sources: Mapping[str, Source], hidden: Iterable[str]) -> list[str]:
        """Folders, the top one first, with these files by their paths inside of the container, and their bytecode. Of
        this machine, they hide what is in some places."""
        digests = frozenset((name, source.digest) for name, source in sources.items())
        places = frozenset(hidden)
        with self._turn:
            bytecode = self._once((digests, len(self._bytecode)), lambda folder: self._link_bytecode(sources, folder))
            return [bytecode, self._once((digests, places), lambda folder: _copy(sources, places, folder))]

    def _once(self, key: tuple[object, ...], make: Callable[[Path], None]) -> str:
        if key not in self._made:
            folder = self._folder / f"layer-{len(self._made)}"
            folder.mkdir()
            make(folder)
            self._made[key] = folder
        return str(self._made[key])

    def _link_bytecode(self, sources: Mapping[str, Source], folder: Path) -> None:
        tags = {tag for _, tag in self._bytecode}
        for name, source in sources.items():
            for tag in tags:
                if (source.digest, tag) in self._bytecode:
                    place = (folder / name.lstrip("/")).with_name("__pycache__")
                    place.mkdir(parents=True, exist_ok=True)
                    os.link(self._bytecode[source.digest, tag], place / f"{Path(name).stem}.{tag}")

    def keep_bytecode(self, sources: Mapping[str, Source], upper: Path) -> None:
        """What a container that has ended has compiled of these files."""
        for path in upper.glob(f"{HOME[1:]}/**/__pycache__/*.pyc"):
            module, _, tag = path.name.partition(".")
            source = sources.get(f"/{path.parent.parent.relative_to(upper)}/{module}.py")
            if source is not None and _is_of(path, source):
                with self._turn:
                    if (source.digest, tag) not in self._bytecode:
                        kept = self._folder / f"{source.digest}.{tag}"
                        shutil.copyfile(path, kept)
                        self._bytecode[source.digest, tag] = kept


def _copy(sources: Mapping[str, Source], hidden: Iterable[str], folder: Path) -> None:
    for name in hidden:
        place = folder / name.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        os.setxattr(place, "trusted.overlay.opaque", b"y")
    for name, source in sources.items():
        copy = folder / name.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source.path, copy)  # a command stays one
        os.utime(copy, (_WRITTEN_AT, _WRITTEN_AT))


def _is_of(bytecode: Path, source: Source) -> bool:
    """Neither of a source that a run has changed, nor checked in another way than by its time."""
    with bytecode.open("rb") as file:
        numbers = struct.unpack("<4sIII", file.read(16))
    return numbers[1:] == (0, _WRITTEN_AT, source.path.stat().st_size)
