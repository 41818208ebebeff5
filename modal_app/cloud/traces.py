"""What a run has left in its container: how the container was before its first call, and what differs now.

Pure measurement; `reuse` decides what follows. Standard library. Looking costs milliseconds and one nvidia-smi: files
count only in the folders where programs leave them (temporary ones and the home), and no Python environment is walked.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modal_app.cloud.usage import GpuReading, read_cards

TEMPORARY = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
MOST_FILES = 20_000
"""A container with more in these folders cannot be looked at in a moment."""
SHARE, FLOOR_MIB = 0.01, 8
"""How far above its earlier level the memory of a GPU may be, since the driver rounds."""
MOST_NAMES = 5
"""At most so many differences of one kind are named."""

_PROC = Path("/proc")
_NOT_LEFT_BY_A_RUN = (".modal", "__modal", "__pycache__")
"""Names that begin so are Modal's own, or Python's bytecode."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One thing that differs."""

    text: str
    passing: bool = False
    """It may go away by itself in a moment: a process that is ending, memory that a driver has not freed yet."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look."""

    folders: tuple[Path, ...]
    """Whose files count."""
    mounts: tuple[Path, ...]
    """Volumes, of which nothing may be open."""
    most_files: int = MOST_FILES

    @classmethod
    def usual(cls, mounts: Sequence[Path], *others: Path) -> Places:
        """The temporary folders, the home, and others."""
        home = Path.home()
        return cls((*TEMPORARY, *([] if home == Path("/") else [home]), *others), tuple(mounts))


@dataclass(frozen=True, slots=True)
class State:
    """A container at one moment."""

    processes: Mapping[tuple[int, int], str]
    """(pid, start) -> name. A pid alone may be another process later."""
    files: Mapping[str, tuple[int, ...]] | None
    """Path -> inode, mode, and for what is no folder size and time of the last change. None: too many."""
    open: frozenset[str]
    """What of a Volume a process has open, has mapped or works in, and which process."""
    own: Mapping[str, Any] = field(repr=False)
    """Limits, signal handlers, environment, ... of the container's own process, by name. Workers inherit most of it."""
    cards: tuple[GpuReading, ...]


def observe(places: Places) -> State:
    """The container now."""
    return State(_processes(), _files(places), _open(places.mounts), _own(), tuple(read_cards()))


def traces(before: State, now: State) -> list[Trace]:
    """What differs, worst first. If it is empty, another call finds this container as the first one did."""
    started = [f"{pid} ({name})" for (pid, at), name in now.processes.items() if (pid, at) not in before.processes]
    found = [Trace(f"still running: process {_some(started)}", passing=True)] if started else []
    if new := sorted(now.open - before.open):
        found.append(Trace(f"open on a Volume: {_some(new)}", passing=True))
    return (
        found
        + _memory_traces(before.cards, now.cards)
        + _file_traces(before.files, now.files)
        + _own_traces(before.own, now.own)
    )


def _file_traces(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> list[Trace]:
    if before is None or now is None:
        return [Trace("too many files to look at in its temporary folders and its home")]
    changed = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
    return [Trace(f"files that were created, changed or removed: {_some(changed)}")] if changed else []


def _own_traces(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Trace]:
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return [Trace(f"of the container's own process: {_some(changed)}")] if changed else []


def _memory_traces(before: Sequence[GpuReading], now: Sequence[GpuReading]) -> list[Trace]:
    if len(before) != len(now):
        return [Trace(f"nvidia-smi shows {len(now)} GPUs, {len(before)} before", passing=True)]
    return [
        Trace(f"GPU {number}: {_mib(two.used_mib)} in use, {_mib(one.used_mib)} before", passing=True)
        for number, (one, two) in enumerate(zip(before, now, strict=True))
        if one.used_mib != two.used_mib and not _is_back(one.used_mib, two.used_mib)
    ]


def _is_back(before: int | None, now: int | None) -> bool:
    return before is not None and now is not None and now <= before + max(before * SHARE, FLOOR_MIB)


def _mib(used: int | None) -> str:
    return "unknown memory" if used is None else f"{used} MiB"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _processes() -> dict[tuple[int, int], str]:
    """The processes of the whole container, whatever session or group they have moved to. Without zombies, which use
    nothing any more."""
    found = {}
    for pid in _pids():
        with contextlib.suppress(OSError, ValueError, IndexError):
            name, _, rest = (_PROC / pid / "stat").read_text(errors="replace").rpartition(")")
            words = rest.split()
            if not (words[0] in "ZX" and int(words[17]) <= 1):
                found[int(pid), int(words[19])] = name.partition("(")[2]
    return found


def _pids() -> list[str]:
    return [name for name in os.listdir(_PROC) if name.isdecimal()]


def _open(mounts: Sequence[Path]) -> frozenset[str]:
    roots = [os.path.realpath(mount) for mount in mounts]
    return frozenset(
        f"{path} by process {pid}"
        for pid in _pids()
        for path in _held(_PROC / pid)
        if any(path == root or path.startswith(f"{root}/") for root in roots)
    )


def _held(process: Path) -> Iterator[str]:
    """The paths that a process has open, works in or has mapped."""
    links = [process / "cwd", process / "root"]
    with contextlib.suppress(OSError):
        links += (process / "fd").iterdir()
    for link in links:
        with contextlib.suppress(OSError):
            yield os.readlink(link)
    with contextlib.suppress(OSError):
        for line in (process / "maps").read_text(errors="replace").splitlines():
            if (at := line.find("/")) > 0:
                yield line[at:]


def _files(places: Places) -> dict[str, tuple[int, ...]] | None:
    found: dict[str, tuple[int, ...]] = {}
    for path, facts in _walk(places.folders):
        found[path] = facts
        if len(found) > places.most_files:
            return None
    return found


def _walk(folders: Sequence[Path]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """All files, without Python environments and without mounts: those are not this container's disk."""
    python = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix)}
    pending = [str(folder) for folder in folders if folder.is_dir()]
    while pending:
        folder = pending.pop()
        if os.path.realpath(folder) in python:
            continue
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            device = os.stat(folder).st_dev
            for entry in entries:
                if entry.name.startswith(_NOT_LEFT_BY_A_RUN) or entry.name == "site-packages":
                    continue
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode):
                        yield entry.path, (status.st_ino, status.st_mode, status.st_size, status.st_ctime_ns)
                    elif status.st_dev == device:
                        yield entry.path, (status.st_ino, status.st_mode)
                        pending.append(entry.path)


def _own() -> dict[str, Any]:
    """What a later worker would inherit, or a later call would work with."""
    facts: dict[str, Any] = {
        name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")
    }
    facts |= {f"the handler of {one.name}": _named(signal.getsignal(one)) for one in signal.Signals}
    facts |= {f"the variable {name}": value for name, value in os.environ.items() if not name.startswith("MODAL_")}
    facts["the processors that it may use"] = os.sched_getaffinity(0)
    facts["its niceness"] = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(OSError):
        facts["its working directory"] = os.getcwd()
    with contextlib.suppress(OSError):
        facts["its oom_score_adj"] = (_PROC / "self" / "oom_score_adj").read_text()
    with contextlib.suppress(OSError):
        status = (_PROC / "self" / "status").read_text().splitlines()
        names = {"Umask": "its umask", "SigIgn": "the signals that it ignores", "SigCgt": "the signals that it handles"}
        facts |= {names[name]: value for name, _, value in (line.partition(":") for line in status) if name in names}
    return facts


def _named(handler: object) -> str:
    """A signal handler by its name, since Modal's client creates a new function for each input."""
    return f"{getattr(handler, '__module__', '')} {getattr(handler, '__qualname__', handler)}"
