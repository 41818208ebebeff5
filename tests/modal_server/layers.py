"""The sources below the files of containers: one folder for each set of them, shared by all containers that have it.

With them lies the bytecode that earlier containers have compiled, as in the image of a build that has run. The folders
are in memory: an overlay takes no two layers of one file system if one lies inside of the other.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
    """May be used from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bytecode: dict[tuple[str, str], Path] = {}
        """Digest of a source, tag of an interpreter -> file."""
        self._layers: dict[tuple[object, ...], Path] = {}
        self._turn = threading.Lock()

    def layer(self, sources: Mapping[str, Source], hidden: Iterable[str]) -> Path:
        """A folder with these files, by their paths inside of the container, that hides what this machine has in some
        folders. It never changes."""
        digests = frozenset((name, source.digest) for name, source in sources.items())
        with self._turn:
            key = (digests, frozenset(hidden), len(self._bytecode))
            if key not in self._layers:
                self._layers[key] = self._make(sources, hidden, self._folder / f"layer-{len(self._layers)}")
            return self._layers[key]

    def _make(self, sources: Mapping[str, Source], hidden: Iterable[str], folder: Path) -> Path:
        folder.mkdir()
        for name in hidden:
            place = folder / name.lstrip("/")
            place.mkdir(parents=True, exist_ok=True)
            os.setxattr(place, "trusted.overlay.opaque", b"y")
        tags = {tag for _, tag in self._bytecode}
        for name, source in sources.items():
            target = folder / name.lstrip("/")
            _link(self._copy(source), target)
            for tag in tags:
                if (source.digest, tag) in self._bytecode:
                    _link(self._bytecode[source.digest, tag], target.parent / "__pycache__" / f"{target.stem}.{tag}")
        return folder

    def _copy(self, source: Source) -> Path:
        copy = self._folder / source.digest
        if not copy.exists():
            shutil.copy(source.path, copy)  # a command stays one
            os.utime(copy, (_WRITTEN_AT, _WRITTEN_AT))
        return copy

    def keep_bytecode(self, sources: Mapping[str, Source], upper: Path) -> None:
        """What a container that has ended has compiled of these files."""
        for path in upper.glob("root/**/__pycache__/*.pyc"):
            module, _, tag = path.name.partition(".")
            source = sources.get(f"/{path.parent.parent.relative_to(upper)}/{module}.py")
            if source is not None:
                with self._turn:
                    self._keep(source, tag, path.read_bytes())

    def _keep(self, source: Source, tag: str, bytecode: bytes) -> None:
        size = (self._folder / source.digest).stat().st_size
        is_of_source = bytecode[4:16] == b"".join(number.to_bytes(4, "little") for number in (0, _WRITTEN_AT, size))
        if is_of_source and (source.digest, tag) not in self._bytecode:
            kept = self._folder / f"{source.digest}.{tag}"
            kept.write_bytes(bytecode)
            self._bytecode[source.digest, tag] = kept


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target)
