"""Runs one container: python -I -S launch.py SPEC, or a fork of template_script.py. Standard library only.

With mounts: this process watches from outside; process 1 of a private process namespace waits for the entrypoint inside
a private file system. SIGINT is passed on to the entrypoint, SIGTERM ends everything inside at once. Without mounts: it
becomes the entrypoint.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)
Start = Callable[[dict[str, Any]], NoReturn]


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, options: str | None = None) -> None:
    arguments = [None if value is None else value.encode() for value in (source, target, kind, options)]
    check(libc.mount(*arguments[:3], ctypes.c_ulong(flags), arguments[3]), f"mount {source} on {target}")


def bind(source: str, target: str, read_only: bool) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "x").close()
    mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        mount(None, target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def build_root(spec: dict[str, Any]) -> None:
    root = spec["root"]
    mount(None, "/", flags=MS_REC | MS_PRIVATE)
    layers = ":".join([*spec["layers"], "/"])
    mount("overlay", root, "overlay", options=f"lowerdir={layers},upperdir={spec['upper']},workdir={spec['work']}")
    mount("/dev", root + "/dev", flags=MS_BIND | MS_REC)
    mount("tmpfs", root + "/dev/shm", "tmpfs")
    mount("/sys", root + "/sys", flags=MS_BIND | MS_REC)
    for source, target, read_only in spec["binds"]:
        bind(source, root + target, read_only)
    for target, link in spec["links"]:
        os.makedirs(os.path.dirname(root + link), exist_ok=True)
        os.symlink(target, root + link)
    os.makedirs(root + "/tmp", exist_ok=True)
    os.chmod(root + "/tmp", 0o1777)


def pass_on(signals: dict[signal.Signals, signal.Signals]) -> list[int]:
    """Install the handlers before the process exists to which signals are passed on; returns where to put that
    process."""
    receiver: list[int] = []

    def handle(number: int, frame: object) -> None:
        if receiver:
            os.kill(receiver[0], signals[signal.Signals(number)])

    for number in signals:
        signal.signal(number, handle)
    return receiver


def wait_for(pid: int) -> int:
    """Reap all children until `pid` ends; returns its code as a shell shows it."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def execute(spec: dict[str, Any]) -> NoReturn:
    os.execve(spec["argv"][0], spec["argv"], spec["environment"])


def become_entrypoint(spec: dict[str, Any], start: Start) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.setsid()
    os.chdir(spec["workdir"])
    start(spec)


def be_process_one(spec: dict[str, Any], start: Start) -> NoReturn:
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    mount("proc", spec["root"] + "/proc", "proc")
    os.chroot(spec["root"])
    entrypoint = pass_on({signal.SIGINT: signal.SIGINT})
    pid = os.fork()
    if pid == 0:
        become_entrypoint(spec, start)
    entrypoint.append(pid)
    os._exit(wait_for(pid))


def run(spec: dict[str, Any], start: Start) -> NoReturn:
    """Become the container, in which `start` becomes its entrypoint."""
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if not spec["mounts"]:
        become_entrypoint(spec, start)
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWPID), "unshare")
    build_root(spec)
    inside = pass_on({signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGKILL})
    pid = os.fork()
    if pid == 0:
        be_process_one(spec, start)
    inside.append(pid)
    os._exit(wait_for(pid))


if __name__ == "__main__":
    with open(sys.argv[1]) as stream:
        run(json.load(stream), execute)
