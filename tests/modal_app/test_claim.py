from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from modal_app.store.claim import AlreadyClaimed, claim, holder
from modal_app.store.flock import try_lock
from modal_app.store.layout import StepFolder
from tests.waiting import wait_until

SCRIPT = str(Path(__file__).with_name("claim_script.py"))


@pytest.fixture
def folder(tmp_path: Path) -> StepFolder:
    return StepFolder(tmp_path / "step", tmp_path / "step" / "done")


def hold(folder: StepFolder, how: str = "hold", *locks: int) -> subprocess.Popen[str]:
    command = [sys.executable, SCRIPT, str(folder.path), how, *map(str, locks)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=locks)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_holder_is_named_and_a_second_claim_is_refused_at_once(folder: StepFolder) -> None:
    process = hold(folder)
    owner = holder(folder)
    assert owner is not None
    assert (owner.pid, owner.sweep, owner.is_alive()) == (process.pid, "its sweep", True)
    with pytest.raises(AlreadyClaimed), claim(folder):
        pass
    process.kill()
    process.wait()
    assert not owner.is_alive()


def test_a_claim_dies_with_its_process_however_it_dies(folder: StepFolder) -> None:
    process = hold(folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert holder(folder) is None
    with claim(folder, "mine"):
        owner = holder(folder)
        assert owner is not None
        assert owner.pid == os.getpid()
    assert holder(folder) is None


def test_a_claim_lasts_until_the_last_process_that_shares_it_has_ended(folder: StepFolder) -> None:
    with claim(folder) as descriptor:
        command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(descriptor,))
    assert holder(folder) is not None
    with pytest.raises(AlreadyClaimed), claim(folder):
        pass
    child.communicate()
    assert holder(folder) is None


def test_a_forked_child_that_is_given_no_copy_does_not_hold_the_claim(folder: StepFolder) -> None:
    process = hold(folder, "fork")  # its living child has printed that
    assert process.wait() == -signal.SIGKILL
    assert holder(folder) is None


def test_an_inherited_lock_lasts_as_long_as_its_process_and_no_longer_than_that(folder: StepFolder) -> None:
    folder.path.mkdir()
    with folder.lock.open("w") as file:
        assert try_lock(file.fileno())
        process = hold(folder, "keep", file.fileno())  # its child has been forked by now, and lives longer
    with folder.lock.open() as file:
        assert not try_lock(file.fileno())
        process.kill()
        process.wait()
        assert try_lock(file.fileno())


def test_looking_hinders_no_claim(folder: StepFolder) -> None:
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            holder(folder)

    with claim(folder):
        pass
    lookers = [threading.Thread(target=look) for _ in range(4)]
    for looker in lookers:
        looker.start()
    for _ in range(50):
        with claim(folder):
            owner = holder(folder)
            assert owner is not None
            assert owner.pid == os.getpid()
    stop.set()
    for looker in lookers:
        looker.join()


def test_a_step_that_was_never_begun_is_not_locked(folder: StepFolder) -> None:
    assert holder(folder) is None
    assert not folder.path.exists()


def test_of_many_claims_at_once_one_succeeds(folder: StepFolder, tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, SCRIPT, folder.path, "race", tmp_path / "won"],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(5)
    ]
    wait_until(lambda: sum(racer.poll() is None for racer in racers) == 1, "four to give up")
    wait_until((tmp_path / "won").exists, "the fifth to say that it has won")
    for racer in racers:
        racer.kill()
        racer.communicate()
