"""Which processes of a container hold a file of a folder: open, mapped, or as their working directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")


def first_open(root_pid: int, folder: Path) -> str | None:
    """The path relative to `folder` of one entry that `root_pid` or a descendant holds; None when there is none.

    Compared by inode: the container sees the same files under other names.
    """
    names = {(status.st_dev, status.st_ino): name for name, status in _inodes(folder)}
    for pid in _descendants(root_pid):
        for inode in _held(pid):
            if inode in names:
                return names[inode]
    return None


def _inodes(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    yield ".", folder.stat()
    for entry in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            yield entry.relative_to(folder).as_posix(), entry.lstat()


def _descendants(root_pid: int) -> Iterable[int]:
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(status.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    pending, found = [root_pid], []
    while pending:
        pid = pending.pop()
        found.append(pid)
        pending += children.get(pid, [])
    return found


def _held(pid: int) -> Iterator[tuple[int, int]]:
    here = _PROC / str(pid)
    try:
        handles = [here / "cwd", *(here / "fd").iterdir()]
        mapped = (here / "maps").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return
    for handle in handles:
        try:
            status = handle.stat()
        except OSError:
            continue
        yield status.st_dev, status.st_ino
    for line in mapped:
        fields = line.split()
        if len(fields) > 5 and fields[4] != "0":
            major, minor = (int(part, 16) for part in fields[3].split(":"))
            yield os.makedev(major, minor), int(fields[4])
