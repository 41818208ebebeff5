import json
import multiprocessing
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.errors import SweepError
from runner.store.ledger import Event, Ledger, Record, find_sweep, sweep_ids
from tests.runner.builders import plan, run

RECORDS = [
    Record(Event.SUBMITTED, StepKind.PREPROCESS, "data", at=1.0),
    Record(Event.STARTED, StepKind.PREPROCESS, "data", at=2.0, attempt=1, pid=77),
    Record(
        Event.FINISHED,
        StepKind.TRAIN,
        "run",
        at=3.0,
        attempt=0,
        status="failed",
        reason="oom",
        message='"Größe"\n{',
        facts={"phases": {"import": 1.5}, "steps": [1, None]},
    ),
]


@pytest.fixture
def ledger(store: Store) -> Ledger:
    opened = Ledger(store, "sweep")
    opened.folder.mkdir(parents=True)
    return opened


def file_of(ledger: Ledger) -> Path:
    return ledger.folder / "records.jsonl"


def test_what_is_appended_is_read_back_completely_and_in_order(ledger: Ledger) -> None:
    for record in RECORDS:
        ledger.append(record)
    assert ledger.records() == RECORDS


def test_a_sweep_without_records_has_none(ledger: Ledger) -> None:
    assert ledger.records() == []


def test_appending_never_touches_what_is_there(ledger: Ledger) -> None:
    contents = [b""]
    for record in RECORDS:
        ledger.append(record)
        contents.append(file_of(ledger).read_bytes())
    assert all(after.startswith(before) and after != before for before, after in pairwise(contents))


def test_a_kill_at_any_byte_loses_at_most_the_record_being_written(ledger: Ledger) -> None:
    for record in RECORDS:
        ledger.append(record)
    whole = file_of(ledger).read_bytes()
    ends = [position for position, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        file_of(ledger).write_bytes(whole[:cut])
        kept = RECORDS[: sum(end <= cut for end in ends)]  # a complete line counts, with or without its newline
        assert ledger.records() == kept, cut
        ledger.append(RECORDS[0])
        assert ledger.records() == [*kept, RECORDS[0]], cut


def test_lines_that_are_not_records_are_left_out(ledger: Ledger) -> None:
    lines = [b"", b"null", b"[]", b'"x"', b"{}", b'{"event": "unheard"}', b'{"event": "started", "new": 1}', b"\xff"]
    lines += [b'{"event": "launched"}', b'{"event": "launched", "at": null}']
    file_of(ledger).write_bytes(b"\n".join(lines) + b"\n")
    ledger.append(RECORDS[0])
    assert ledger.records() == [RECORDS[0]]


def append_many(store: Store, pid: int, count: int, barrier: Callable[[], int]) -> None:
    ledger = Ledger(store, "sweep")
    barrier()
    for number in range(count):
        ledger.append(Record(Event.STARTED, StepKind.TRAIN, "k" * (number % 50 * 20), attempt=number, pid=pid))


def test_two_launchers_that_append_at_once_lose_nothing(ledger: Ledger, store: Store) -> None:
    context, count = multiprocessing.get_context("fork"), 300
    barrier = context.Barrier(2)
    writers = [context.Process(target=append_many, args=(store, pid, count, barrier.wait)) for pid in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted((record.pid, record.attempt) for record in ledger.records()) == [
        (pid, number) for pid in (1, 2) for number in range(count)
    ]


def test_the_plan_is_written_once_and_every_launch_is_noted(store: Store) -> None:
    runs = [run({"learning_rate": rate}, overrides=[f"learning_rate={rate}"]) for rate in (1, 2)]
    first = plan(runs, store)
    ledger = Ledger(store, first.sweep)
    ledger.open(first, "axosweep -m learning_rate=1,2")
    written = (ledger.folder / "plan.json").read_bytes()
    ledger.open(plan(runs[::-1], store), "axosweep -m learning_rate=2,1")
    assert (ledger.folder / "plan.json").read_bytes() == written
    assert [(record.event, record.message) for record in ledger.records()] == [
        (Event.LAUNCHED, "axosweep -m learning_rate=1,2"),
        (Event.LAUNCHED, "axosweep -m learning_rate=2,1"),
    ]
    ledger.open(first, "axosweep again", "is a larger rate better?")
    ledger.open(first, "axosweep again")
    assert ledger.plan().note == "is a larger rate better?"
    assert [record.facts.get("note") for record in ledger.records()] == [None, None, ledger.plan().note, None]
    assert [(one.key, one.data_key, one.overrides) for one in ledger.plan().runs] == [
        (one.key, one.data_key, one.experiment.overrides) for one in runs
    ]


def test_an_unknown_sweep_has_no_plan(store: Store) -> None:
    with pytest.raises(SweepError, match="There is no sweep missing"):
        Ledger(store, "missing").plan()


def sweeps(store: Store, *names: str) -> None:
    for at, name in enumerate(names):
        folder = store.sweeps / name
        folder.mkdir(parents=True)
        (folder / "plan.json").write_text(json.dumps({"sweep": name, "created_at": at, "runs": []}))
        os.utime(folder / "plan.json", (at, at))


def test_a_sweep_is_found_by_its_beginning_and_an_exact_name_is_never_ambiguous(store: Store) -> None:
    sweeps(store, "lora-123456", "lora-123456-more", "rates-abcdef")
    assert find_sweep(store, "r") == "rates-abcdef"
    assert find_sweep(store, "lora-123456") == "lora-123456"


def test_a_beginning_that_fits_several_names_them(store: Store) -> None:
    sweeps(store, "lora-1", "lora-2", "rates-1")
    with pytest.raises(SweepError, match=r"lora is the beginning of several sweeps' ids: lora-2, lora-1\. Write more"):
        find_sweep(store, "lora")


def test_a_sweep_that_is_not_there_is_answered_with_the_nearest(store: Store) -> None:
    sweeps(store, "lora-123456")
    with pytest.raises(SweepError, match=r"no sweep lroa-123456 .* Did you mean lora-123456\?"):
        find_sweep(store, "lroa-123456")


@pytest.mark.parametrize("asked", [None, "lora"])
def test_a_store_without_sweeps_says_how_to_start_one(store: Store, asked: str | None) -> None:
    with pytest.raises(SweepError, match="Start one: axosweep -m"):
        find_sweep(store, asked)


def test_the_newest_is_the_one_that_was_active_last_and_not_the_one_planned_last(store: Store) -> None:
    sweeps(store, "old", "newer", "newest")
    assert sweep_ids(store) == ["newest", "newer", "old"]
    Ledger(store, "old").append(Record(Event.LAUNCHED))
    assert sweep_ids(store) == ["old", "newest", "newer"]
    assert find_sweep(store, None) == "old"
