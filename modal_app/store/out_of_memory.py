"""Out of memory: an error that says so, and processes that the kernel has killed for it. Standard library."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

EXIT_CODE = 112
"""Of a process that ran out of memory before it could record anything."""
_CGROUPS = Path("/sys/fs/cgroup")
_TYPES = {"OutOfMemoryError", "MemoryError"}
_OF_GPUS = {"OutOfMemoryError"}
_TEXTS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc",
          "failed to map segment from shared object")  # fmt: skip
"""As CUDA, PyTorch, the C library, C++ and the dynamic loader write it: their exceptions have no type of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one of its causes, says that there was no memory."""
    return any(_says_so(one) for one in chain(error))


class Memory(StrEnum):
    """Which memory an allocation requested. Unknown for a process that the kernel has killed."""

    GPU = "gpu"
    MACHINE = "machine"


def where_out_of_memory(error: BaseException) -> Memory:
    """Which memory was exhausted, according to an error. torch's OutOfMemoryError is always about a GPU's."""
    return Memory.GPU if any(_of_a_gpu(one) for one in chain(error)) else Memory.MACHINE


def _of_a_gpu(error: BaseException) -> bool:
    named = bool({base.__name__ for base in type(error).__mro__} & _OF_GPUS)
    return named or ("cuda" in str(error).lower() and _says_so(error))


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _says_so(error: BaseException) -> bool:
    named = bool({base.__name__ for base in type(error).__mro__} & _TYPES)
    number = isinstance(error, OSError) and error.errno == errno.ENOMEM
    text = str(error).lower()
    return named or number or any(one in text for one in _TEXTS)


def memory_limit() -> str:
    """`ulimit -v` of this process, for a message; empty without one."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return "" if limit == resource.RLIM_INFINITY else f" (ulimit -v limits this process to {limit / 2**30:.1f} GiB)"


class KillCount:
    """Counts the processes of this control group that the kernel has killed since this object was created."""

    def __init__(self, root: Path = _CGROUPS, groups: Path = Path("/proc/self/cgroup")) -> None:
        self._root, self._groups = root, groups
        self._seen = self._read()

    def take(self) -> bool | None:
        """Whether there is a kill that was not counted yet; it counts from now on. None if the kernel does not report
        kills."""
        now = self._read()
        if now is None or self._seen is None:
            return None
        if now > self._seen:
            self._seen += 1
            return True
        return False

    def _read(self) -> int | None:
        for path in self._files():
            try:
                lines = path.read_text(encoding="ascii").splitlines()
            except (OSError, ValueError):
                continue
            for name, _, number in (line.partition(" ") for line in lines):
                if name == "oom_kill" and number.isdecimal():
                    return int(number)
        return None

    def _files(self) -> Iterator[Path]:
        """memory.events of version 2, and memory.oom_control of version 1. In a container, the group's own path may
        not be visible, and its files are at the top."""
        try:
            lines = self._groups.read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
            if controllers == "":
                yield from (self._root / place / "memory.events" for place in (path.lstrip("/"), ""))
            elif "memory" in controllers.split(","):
                top = self._root / "memory"
                yield from (top / place / "memory.oom_control" for place in (path.lstrip("/"), ""))
