"""Which processes of a container use a file of a folder: open, mapped, or as their working directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def first_open(root_pid: int, folder: Path) -> str | None:
    """The path, relative to `folder`, of one entry that `root_pid` or a descendant uses; None if there is none.

    Compared by inode: the container sees the same files under other names.
    """
    held = {inode for pid in _descendants(root_pid) for inode in _held(pid)}
    status = folder.stat()
    if (status.st_dev, status.st_ino) in held:
        return "."
    ours = {inode for device, inode in held if device == status.st_dev}
    return next((name for name, inode in _entries(folder) if inode in ours), None)


def _entries(folder: Path) -> Iterator[tuple[str, int]]:
    """Everything below it on its own file system, with the inodes."""
    pending = [""]
    while pending:
        place = pending.pop()
        with contextlib.suppress(FileNotFoundError), os.scandir(f"{folder}/{place}") as entries:
            for entry in entries:
                yield place + entry.name, entry.inode()
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{place}{entry.name}/")


def _descendants(root_pid: int) -> Iterable[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as stat:
                    status = stat.read()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(status.rpartition(")")[2].split()[1]), []).append(int(name))
    pending, found = [root_pid], []
    while pending:
        pid = pending.pop()
        found.append(pid)
        pending += children.get(pid, [])
    return found


def _held(pid: int) -> Iterator[tuple[int, int]]:
    here = f"/proc/{pid}"
    try:
        handles = [f"{here}/cwd", *(f"{here}/fd/{name}" for name in os.listdir(f"{here}/fd"))]
        with open(f"{here}/maps") as maps:
            mapped = maps.read().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return
    for handle in handles:
        with contextlib.suppress(OSError):
            status = os.stat(handle)
            yield status.st_dev, status.st_ino
    for device, inode in {(fields[3], fields[4]) for line in mapped if len(fields := line.split()) > 5}:
        if inode != "0":
            major, minor = (int(part, 16) for part in device.split(":"))
            yield os.makedev(major, minor), int(inode)
