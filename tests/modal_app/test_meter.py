"""A container's record of what it had and used, written by a process of its own, like a container's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modal_app.cloud.meter import ContainerRecord, Meter, Reservation
from modal_app.cloud.usage import memory_gib, read_cards
from tests.modal_server.fixture import needs_mounts

SCRIPT = str(Path(__file__).with_name("meter_script.py"))
TASK = "ta-1"
H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def smi(tmp_path: Path) -> Path:
    """What the stand-in for nvidia-smi prints, in the driver's own CSV."""
    program, says = tmp_path / "bin" / "nvidia-smi", tmp_path / "cards.csv"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$2" = "--format=csv,noheader,nounits" ] && cat {says}\n')
    program.chmod(0o755)
    return says


def container(folder: Path, case: str, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    variables = {**os.environ, "PATH": path, "MODAL_TASK_ID": TASK, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, SCRIPT, case, *words]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


def record(folder: Path, step: str) -> ContainerRecord:
    return ContainerRecord.of(json.loads((folder / step / f"{TASK}.json").read_text(encoding="utf-8")))


def test_a_record_tells_the_cards_their_peak_and_how_busy_they_were_at_the_ticks(tmp_path: Path, smi: Path) -> None:
    smi.write_text(f"{H100}, 81559, 4, 0\n{H100}, 81559, 4, 0\n")
    first = f"{H100}, 81559, 70000, 100\n{H100}, 81559, 60000, 80\n"
    second = f"{H100}, 81559, 50000, 50\n{H100}, 81559, 65000, [N/A]\n"
    done = container(tmp_path, "two_cards", str(smi), first, second)
    assert done.returncode == 0, done.stderr
    cards = record(tmp_path, "train").cards
    assert [(card.name, card.memory_mib) for card in cards] == [(H100, 81559)] * 2
    assert [card.peak_mib for card in cards] == [70000, 65000]
    assert [card.utilisation for card in cards] == [75.0, 80.0]


def test_the_seconds_begin_with_the_container_and_not_with_the_call(tmp_path: Path) -> None:
    done = container(tmp_path, "late_call")
    assert done.returncode == 0, done.stderr
    said = record(tmp_path, "train")
    assert said.ended
    assert said.began_at - said.booted_at >= 0.5
    assert said.seen_at - said.booted_at == pytest.approx(said.seconds, abs=0.02)


def test_a_killed_container_leaves_a_record_until_its_last_tick(tmp_path: Path) -> None:
    done = container(tmp_path, "killed")
    assert done.returncode == -9
    said = record(tmp_path, "train")
    assert not said.ended
    assert 0.3 <= said.seen_at - said.began_at < 1.3


def test_a_clock_that_is_set_back_takes_no_paid_second_away(tmp_path: Path) -> None:
    done = container(tmp_path, "clock_set_back")
    assert done.returncode == 0, done.stderr
    told = record(tmp_path, "train")
    assert told.seconds >= 0.3
    assert told.seen_at >= told.began_at


def test_a_container_that_works_on_several_steps_tells_each_second_once(tmp_path: Path) -> None:
    done = container(tmp_path, "several_steps")
    assert done.returncode == 0, done.stderr
    first, second = record(tmp_path, "first"), record(tmp_path, "second")
    assert first.seconds + second.seconds == pytest.approx(first.seen_at - first.booted_at, abs=0.05)
    assert first.seconds >= 0.29, "two tenths of a second of work and the pause between, however quickly it booted"
    assert second.seconds >= 0.19, "a tenth of work, and the pause before"
    assert second.boot == 0.0
    assert first.boot is not None
    assert 0 < first.boot <= first.began_at - first.booted_at - 0.39, "until its first call, not its second attempt"
    assert 0.09 <= first.idle <= first.seconds - first.boot - 0.19, "before its second attempt, after the other step"
    assert 0.09 <= second.idle <= second.seconds - 0.09


def test_copying_is_recorded_while_it_goes_on_and_a_reason_may_come_after_the_end(tmp_path: Path) -> None:
    done = container(tmp_path, "copies_and_ends")
    assert done.returncode == 0, done.stderr
    meanwhile, said = (json.loads(line) for line in done.stdout.splitlines())
    assert 0.09 <= meanwhile["copying"] <= said["copying"] - 0.14 <= said["seconds"]
    assert (said["ended"], said["ended_because"]) == (True, "a child process was left")


def test_a_record_names_the_attempts_that_were_made_in_the_container(tmp_path: Path) -> None:
    done = container(tmp_path, "two_attempts")
    assert done.returncode == 0, done.stderr
    assert record(tmp_path, "train").attempts == (2, 3)


@pytest.mark.parametrize("script", ["exit 9", "echo No devices were found", "sleep 0; echo 'a, b'", "kill -9 $$"])
def test_what_nvidia_smi_cannot_report_is_neither_a_card_nor_an_error(
    tmp_path: Path, smi: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert read_cards() == []


def test_a_machine_without_nvidia_smi_has_no_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_cards() == []


def test_a_measurement_that_hung_until_after_the_last_record_is_not_written(tmp_path: Path) -> None:
    """The container may work on another run by then."""
    meter = Meter(tmp_path, step="train/run", call="fc-1", attempt=1, reserved=Reservation(1.0, 1.0))
    meter.end()
    (path,) = tmp_path.iterdir()
    before = path.read_text()
    meter.tick()
    assert path.read_text() == before


def test_a_record_that_cannot_be_written_ends_no_training(tmp_path: Path) -> None:
    (tmp_path / "train").write_text("a file where the folder should be")
    done = container(tmp_path, "ticks_and_trains")
    assert done.stdout == "trained\n", done.stderr


@needs_mounts
def test_processor_time_is_the_containers_own_with_that_of_children_that_have_ended() -> None:
    """In a process namespace of its own, like a container."""
    alone = ["unshare", "--fork", "--pid", "--mount-proc"]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*alone, sys.executable, SCRIPT, "processor_time"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert 0.45 < float(done.stdout) < 0.75  # counted in hundredths, each part rounded down


def test_memory_is_what_is_used_here_and_no_more_than_exists() -> None:
    code = "held = bytearray(b'x') * (400 << 20); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        used = memory_gib()
        holder.communicate(b"\n")
    assert used is not None
    assert 400 / 1024 < used < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    raw: dict[str, Any] = {
        "task": "ta-1", "call": "fc-1", "step": "train/key", "booted_at": 1.0, "began_at": 2.0, "seen_at": 3.0,
        "ended": False, "seconds": 2.0, "attempts": [1], "cores_reserved": 0.125, "cores_used": None,
        "memory_gib_reserved": 0.125, "memory_gib_used": 1.5,
        "boot": 1.0, "idle": 0.0, "copying": 0.5, "ended_because": "a child process was left",
        "cards": [{"name": H100, "memory_mib": 1, "peak_mib": None, "utilisation": None}],
    }  # fmt: skip
    assert json.loads(ContainerRecord.of(raw).to_json()) == raw


def test_an_older_record_tells_nothing_about_idle_seconds_and_is_read(tmp_path: Path) -> None:
    done = container(tmp_path, "late_call")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "train" / f"{TASK}.json"
    new = {"boot", "idle", "copying", "ended_because"}
    older = {name: value for name, value in json.loads(path.read_text(encoding="utf-8")).items() if name not in new}
    path.write_text(json.dumps(older), encoding="utf-8")
    said = record(tmp_path, "train")
    assert (said.boot, said.idle, said.copying, said.ended_because) == (None, 0.0, 0.0, "")
