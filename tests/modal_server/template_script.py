"""A process that has imported Modal's entrypoint, and forks into containers: `template_script.py SOCKET [PACKAGES]`.

It imports what every container imports first, before any of them is started, much like a container of Modal's that
begins from a memory snapshot. From then on, a container does what launch.py and Modal's own entrypoint do. A connection
to SOCKET is one container: it sends the path of the container's specification and two descriptors for what it prints,
and gets the process id, then the exit code. The container ends with its connection. All end with this process's stdin.
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
from collections.abc import Callable
from typing import Any, NoReturn

run_container = runpy.run_path(os.path.join(os.path.dirname(__file__), "launch.py"))["run"]
TESTS = os.path.join(os.path.dirname(__file__), "..")
install_popen = runpy.run_path(os.path.join(TESTS, "forked_trainer", "popen.py"))["install"]
run_to_end: Callable[[Callable[[], object]], NoReturn] = runpy.run_path(os.path.join(TESTS, "run_to_end.py"))[
    "run_to_end"
]
ENTRYPOINT = "modal._container_entrypoint"


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
            run_container(json.load(stream), run_entrypoint)
    for descriptor in descriptors:
        os.close(descriptor)
    line.send(b"%d\n" % pid)
    return pid


def main(path: str) -> None:
    """Serve until stdin ends."""
    waiting = selectors.DefaultSelector()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(64)
    os.rename(f"{path}.new", path)
    import_entrypoint()
    install_popen()
    waiting.register(listener, selectors.EVENT_READ)
    waiting.register(sys.stdin, selectors.EVENT_READ)
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
