"""What of this machine a launch may use: cores and cards that its own process may use, and no others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modal_app.store.step import Device
from runner.errors import SweepError
from runner.executors.cards import lock_cards, release
from runner.executors.slots import machine_slots


@pytest.fixture
def four_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi that lists four cards, one of them in parts."""
    program = tmp_path / "nvidia-smi"
    cards = [f"GPU {number}: NVIDIA A100-SXM4-40GB (UUID: GPU-{number})" for number in range(4)]
    program.write_text(
        "\n".join(["#!/bin/sh", "cat <<'END'", *cards, "  MIG 3g.20gb Device 0: (UUID: MIG-1)", "END\n"])
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


@pytest.mark.usefixtures("four_cards")
@pytest.mark.parametrize(
    ("visible", "cards"),
    [
        (None, ("0", "1", "2", "3")),
        ("2,3", ("2", "3")),
        ("3, 1", ("3", "1")),
        ("GPU-2,MIG-1", ("GPU-2", "MIG-1")),
        ("1,-1,2", ("1",)),  # as CUDA reads it: nothing after one that does not exist
    ],
)
def test_runs_get_the_cards_that_the_user_has_left_visible(
    visible: str | None, cards: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = machine_slots(Device.CUDA, 1, None)
    assert (found.total, found.cards) == (len(cards), cards)


@pytest.mark.usefixtures("four_cards")
def test_too_few_visible_cards_are_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SweepError, match="but the machine has 0 that CUDA_VISIBLE_DEVICES= names"):
        machine_slots(Device.CUDA, 1, None)


def test_an_nvidia_smi_that_cannot_be_run_means_no_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text("not a program")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SweepError, match="but the machine has 0"):
        machine_slots(Device.CUDA, 1, None)


@pytest.mark.usefixtures("four_cards")
def test_a_card_is_locked_under_any_of_its_names_and_a_launch_gets_all_that_it_needs_or_none(tmp_path: Path) -> None:
    first = lock_cards(tmp_path / "cards", ["2"], 1)
    assert list(first) == ["2"]
    assert lock_cards(tmp_path / "cards", ["GPU-2"], 1) == {}
    assert lock_cards(tmp_path / "cards", ["2", "1", "0"], 3) == {}
    others = lock_cards(tmp_path / "cards", ["2", "1", "0", "3"], 2)
    assert list(others) == ["1", "0"]
    release(first)
    first = lock_cards(tmp_path / "cards", ["2", "1"], 1)
    assert list(first) == ["2"]
    release(others | first)
    part = lock_cards(tmp_path / "cards", ["MIG-GPU-1/1/0"], 1)  # as older drivers name a part of a card
    assert lock_cards(tmp_path / "cards", ["MIG-GPU-1/1/0"], 1) == {}
    release(part)


def test_as_many_runs_as_cores_that_this_process_may_use() -> None:
    """Those of a batch job, of a container, or of taskset."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine_slots(Device.CPU, 1, None).total == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_room_on_a_cpu_is_its_cores() -> None:
    slots = machine_slots(Device.CPU, 64, parallel=3)
    assert slots.total >= 1
    assert slots.parallel == 3
