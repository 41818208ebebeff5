"""Folders as Volumes see them: what is in one, what has changed since, and copying exactly that to another."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

Stamp = tuple[object, ...]
Manifest = dict[str, Stamp]
_PARTIAL = ".modal-partial"
_FOLDER: Stamp = ("folder",)


def scan(root: Path) -> Manifest:
    """Path relative to `root` -> a stamp that is new whenever the entry was touched."""
    manifest: Manifest = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        # Programs still work in it: what vanishes while it is read was a temporary file.
        with contextlib.suppress(FileNotFoundError), os.scandir(f"{root}/{folder}") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    name, stamp = folder + entry.name, _stamp(entry)
                    manifest[name] = stamp
                    if stamp == _FOLDER:
                        pending.append(f"{name}/")
    return manifest


def stamps(root: Path, names: Iterable[str]) -> Manifest:
    """What `scan` has for these names, without those that do not exist."""
    manifest: Manifest = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            manifest[name] = _stamp_of(root / name)
    return manifest


def _stamp(entry: os.DirEntry[str]) -> Stamp:
    if entry.is_dir(follow_symlinks=False):
        return _FOLDER
    return _of_file(entry.path, entry.stat(follow_symlinks=False))


def _stamp_of(path: Path) -> Stamp:
    status = path.lstat()
    return _FOLDER if stat.S_ISDIR(status.st_mode) else _of_file(str(path), status)


def _of_file(path: str, status: os.stat_result) -> Stamp:
    if stat.S_ISLNK(status.st_mode):
        return "link", os.readlink(path)
    return "file", status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode


def size_in(stamp: Stamp | None) -> int:
    """The bytes of the file that a stamp is of; 0 for anything else."""
    return int(str(stamp[2])) if stamp and stamp[0] == "file" else 0


def differences(before: Manifest, after: Manifest) -> tuple[list[str], list[str]]:
    """(new or changed, removed) entries. New folders come before their contents, removed ones after them."""
    changed = sorted(name for name, stamp in after.items() if before.get(name) != stamp)
    removed = sorted((name for name in before if name not in after), reverse=True)
    return changed, removed


def carry_over(source: Path, target: Path, changed: Iterable[str], removed: Iterable[str]) -> None:
    """Copy the changed names from `source` to `target`, and remove the removed ones there."""
    for name in removed:
        _remove(target / name)
    for name in changed:
        with contextlib.suppress(FileNotFoundError):
            place(source / name, target / name)


def place(source: Path, target: Path, *, link: bool = False) -> None:
    """Copy one entry. A file is replaced by renaming, so that a process that has the old one open still sees it
    unchanged."""
    ours, theirs = _mode(target), os.lstat(source).st_mode
    if ours is None:
        os.makedirs(target.parent, exist_ok=True)
    if stat.S_ISDIR(theirs):
        if ours is not None and not stat.S_ISDIR(ours):
            target.unlink()
        target.mkdir(exist_ok=True)
        return
    if ours is not None and stat.S_ISDIR(ours):
        shutil.rmtree(target)
    partial = target.with_name(target.name[:200] + _PARTIAL)
    partial.unlink(missing_ok=True)
    if stat.S_ISLNK(theirs):
        partial.symlink_to(os.readlink(source))
    elif link:
        os.link(source, partial)
    else:
        shutil.copy2(source, partial)
    os.replace(partial, target)


def _mode(path: Path) -> int | None:
    """None if it does not exist."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None


def copy_tree(source: Path, target: Path, *, link: bool) -> None:
    """A private copy; with `link`, its files are shared, which only readers may use."""
    target.mkdir(parents=True, exist_ok=True)
    for name in sorted(scan(source)):
        place(source / name, target / name, link=link)


def _remove(path: Path) -> None:
    """A folder stays if something was added to it meanwhile."""
    if path.is_dir() and not path.is_symlink():
        with contextlib.suppress(OSError):
            path.rmdir()
    else:
        path.unlink(missing_ok=True)
