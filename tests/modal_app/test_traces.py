"""What is left in a container, tested with this machine's own processes and files."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app.cloud import traces
from modal_app.cloud.traces import Places, State, observe
from modal_app.cloud.usage import GpuReading

PYTEST = "the variable PYTEST_CURRENT_TEST"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in ("temporary", "volume"):
        (tmp_path / name).mkdir()
    return Places((tmp_path / "temporary",), (tmp_path / "volume",))


@pytest.fixture
def before(places: Places) -> State:
    (places.folders[0] / "old").write_text("old")
    return observe(places)


def left(before: State, places: Places) -> list[str]:
    """Other tests' processes come and go on this machine, so this test looks only at its own."""
    now = observe(places)
    mine = {key: name for key, name in now.processes.items() if name.startswith("left-behind")}
    own = {**now.own, PYTEST: before.own[PYTEST]}
    now = dataclasses.replace(now, processes={**before.processes, **mine}, own=own)
    return [one.text for one in traces.traces(before, now)]


@pytest.fixture
def child(places: Places) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, with an open file of the Volume."""
    named = "import sys; open('/proc/self/comm', 'w').write('left-behind'); print(flush=True); sys.stdin.read()"
    with open(places.mounts[0] / "held", "w") as held:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", named], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            pass_fds=[held.fileno()],
        )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def test_an_untouched_container_has_no_traces(before: State, places: Places) -> None:
    folder = places.folders[0]
    (folder / "comes-and-goes").write_text("")
    (folder / "comes-and-goes").unlink()
    (folder / "__pycache__").mkdir()
    assert left(before, places) == []


def test_a_process_and_what_it_holds_open_are_named(
    before: State, places: Places, child: subprocess.Popen[bytes]
) -> None:
    process, held = left(before, places)
    assert process == f"still running: process {child.pid} (left-behind)"
    assert held == f"open on a Volume: {places.mounts[0].resolve()}/held by process {child.pid}"


def test_a_process_that_has_ended_and_was_not_waited_for_is_gone(
    before: State, places: Places, child: subprocess.Popen[bytes]
) -> None:
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert left(before, places) == []


@pytest.mark.parametrize("act", ["create", "change", "remove", "chmod", "link"])
def test_every_change_of_a_file_is_seen(before: State, places: Places, act: str) -> None:
    old, new = places.folders[0] / "old", places.folders[0] / "new"
    match act:
        case "create":
            new.mkdir()
        case "change":
            times = old.stat()
            old.write_text("new")
            os.utime(old, ns=(times.st_atime_ns, times.st_mtime_ns))
        case "remove":
            old.unlink()
        case "chmod":
            old.chmod(0o600)
        case "link":
            new.symlink_to(old)
    (said,) = left(before, places)
    assert said.startswith("files that were created, changed or removed: ")
    assert str(new if new.exists() else old) in said


def test_too_many_files_are_not_looked_at_and_said_to_be(before: State, places: Places) -> None:
    (places.folders[0] / "new").touch()
    assert left(before, dataclasses.replace(places, most_files=1)) == [
        "too many files to look at in its temporary folders and its home"
    ]


def test_what_a_worker_would_inherit_is_seen(before: State, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    monkeypatch.setenv("LEFT", "behind")
    mask = os.umask(0o077)
    try:
        resource.setrlimit(resource.RLIMIT_NPROC, (4096, hard))
        (said,) = left(before, places)
    finally:
        signal.signal(signal.SIGUSR2, handler)
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
        os.umask(mask)
    for what in ("RLIMIT_NPROC", "the handler of SIGUSR2", "the signals that it ignores", "its umask", "variable LEFT"):
        assert what in said


@pytest.mark.parametrize(
    ("used", "then", "clean"),
    [(0, 8, True), (0, 9, False), (4000, 4040, True), (4000, 4041, False), (4000, 100, True), (0, None, False)],
)
def test_the_memory_of_a_gpu_may_be_one_percent_above_its_level_before(
    before: State, used: int, then: int | None, clean: bool
) -> None:
    first = dataclasses.replace(before, cards=(GpuReading("card", 80_000, used, 0),))
    later = dataclasses.replace(before, cards=(GpuReading("card", 80_000, then, 0),))
    found = traces.traces(first, later)
    assert (found == []) is clean
    assert all(one.passing for one in found), "a driver may take a moment"
    assert traces.traces(first, before)[0].text == "nvidia-smi shows 0 GPUs, 1 before"
