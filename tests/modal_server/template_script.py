"""A process that has imported Modal's entrypoint, and forks into containers: `template_script.py SOCKET [PACKAGES]`.

It imports what every container imports first, before any of them is started, much like a container of Modal's that
begins from a memory snapshot. From then on, a container does what launch.py and Modal's own entrypoint do. A connection
to SOCKET is one container: it sends the path of the container's specification and two descriptors for what it prints,
and gets the process id, then the exit code. The container ends with its connection. All end with this process's stdin.

A specification may also be that of a process like this one, which has imported the code of containers as well. Many
containers have the same code, and importing it takes longer than what most of them do.
"""

import contextlib
import json
import os
import random
import runpy
import selectors
import signal
import socket
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

launch = types.SimpleNamespace(**runpy.run_path(os.path.join(os.path.dirname(__file__), "launch.py")))
TESTS = os.path.join(os.path.dirname(__file__), "..")
install_popen = runpy.run_path(os.path.join(TESTS, "forked_trainer", "popen.py"))["install"]
run_to_end: Callable[[Callable[[], object]], NoReturn] = runpy.run_path(os.path.join(TESTS, "run_to_end.py"))[
    "run_to_end"
]
ENTRYPOINT = "modal._container_entrypoint"
SOURCES = "/root"
MNT_DETACH = 2


def run_entrypoint(spec: dict[str, Any]) -> NoReturn:
    """As `python -u -m ENTRYPOINT` in a new interpreter."""
    os.environ.clear()
    os.environ.update(spec["environment"])
    sys.path[:0] = [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [ENTRYPOINT]
    random.seed()
    run_to_end(lambda: runpy.run_module(ENTRYPOINT, run_name="__main__", alter_sys=True))


def fork(line: socket.socket) -> int:
    """Start the container of a new connection; returns its process."""
    message, descriptors, _, _ = socket.recv_fds(line, 4096, 2)
    pid = os.fork()
    if pid == 0:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in enumerate((nothing, *descriptors)):
            os.dup2(descriptor, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        with open(message) as stream:
            spec = json.load(stream)
        if "socket" in spec:
            preload(spec)
        launch.run(spec, run_entrypoint)
    for descriptor in descriptors:
        os.close(descriptor)
    line.send(b"%d\n" % pid)
    return pid


def preload(spec: dict[str, Any]) -> NoReturn:
    """Import the module where it is in a container, and listen at the socket. End if that fails, as it then does in
    each container. Of the environment, such code may read its home when it is imported, and nothing else."""
    try:
        launch.check(launch.libc.prctl(launch.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        launch.check(launch.libc.unshare(launch.CLONE_NEWNS), "unshare")
        launch.mount(None, "/", flags=launch.MS_REC | launch.MS_PRIVATE)
        layers = ":".join(f"{layer}{SOURCES}" for layer in spec["layers"])
        launch.mount("overlay", SOURCES, "overlay", options=f"lowerdir={layers}")
        os.environ["HOME"] = SOURCES
        sys.path.insert(0, SOURCES)
        __import__(spec["module"])
        sys.path.remove(SOURCES)
        for place in [one for one in sys.path_importer_cache if one.startswith(SOURCES)]:
            del sys.path_importer_cache[place]
        launch.check(launch.libc.umount2(SOURCES.encode(), MNT_DETACH), "umount2")
        assert threading.active_count() == 1
        serve(listen(spec["socket"]), selectors.DefaultSelector())
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(64)
    os.rename(f"{path}.new", path)
    return listener


def main(path: str) -> None:
    """Serve until stdin ends."""
    listener, waiting = listen(path), selectors.DefaultSelector()
    import_entrypoint()
    install_popen()
    waiting.register(sys.stdin, selectors.EVENT_READ)
    serve(listener, waiting)


def serve(listener: socket.socket, waiting: selectors.BaseSelector) -> NoReturn:
    waiting.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is sys.stdin:
                os.kill(0, signal.SIGKILL)  # its own group: all of its containers
            elif key.fileobj is listener:
                line, _ = listener.accept()
                pid = fork(line)
                waiting.register(line, selectors.EVENT_READ, pid)
                waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, line))
            elif isinstance(key.fileobj, socket.socket):
                waiting.unregister(key.fileobj)  # the process that started the container has ended
                with contextlib.suppress(ProcessLookupError):
                    os.kill(key.data, signal.SIGKILL)
            else:
                waiting.unregister(key.fileobj)
                report(*key.data)
                os.close(key.fd)
                with contextlib.suppress(KeyError):
                    waiting.unregister(key.data[1])
                key.data[1].close()


def report(pid: int, line: socket.socket) -> None:
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        line.send(b"%d\n" % os.waitstatus_to_exitcode(status))


def import_entrypoint() -> None:
    """Import the entrypoint, and forget its own module, so that it can be run."""
    __import__(ENTRYPOINT)
    del sys.modules[ENTRYPOINT]
    assert threading.active_count() == 1


if __name__ == "__main__":
    sys.path[:] = [*sys.path[1:], *sys.argv[2:]]  # without this folder
    main(sys.argv[1])
