"""The message of a command that cannot write any more, since its disk is full or the size of files is limited."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modal_app.store.full_disk import FREE_SOME
from modal_app.store.layout import Store
from runner.html_report.finish import leave_report
from runner.store.ledger import Event, Ledger, Record
from tests.runner.removing_store import Command, trained


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """In the block, no file can grow beyond that size: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_command_that_cannot_write_names_the_file_and_the_way_out(store: Store, command: Command) -> None:
    sweep, _ = trained(store, 0.1)
    page = store.root / "page.html"
    with largest_file(1000):
        said = command("report", sweep, "--out", str(page), code=2)
    assert f"{page}: File too large. {FREE_SOME}" in said
    assert not page.exists()


def test_a_sweep_whose_report_does_not_fit_ends_with_the_reason(store: Store) -> None:
    sweep, _ = trained(store, 0.1)
    with largest_file(1000):
        said = leave_report(store, sweep)
    assert said.startswith(f"No report was written: {store.sweeps / sweep / 'report.html'}: File too large.")
    assert said.endswith(FREE_SOME)


def test_a_record_of_which_only_a_part_fits_is_an_error_and_spoils_no_other(store: Store) -> None:
    sweep, _ = trained(store, 0.1)
    ledger = Ledger(store, sweep)
    ledger.append(Record(Event.LAUNCHED, message="first"))
    records = ledger.folder / "records.jsonl"
    with largest_file(records.stat().st_size + 20), pytest.raises(OSError, match="File too large") as caught:
        ledger.append(Record(Event.LAUNCHED, message="does not fit"))
    assert caught.value.filename == str(records)
    ledger.append(Record(Event.LAUNCHED, message="third"))
    assert [record.message for record in ledger.records()] == ["first", "third"]


def test_results_that_cannot_be_printed_are_one_message(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "runner", "status", "--json", "--store", tmp_path],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "No space left on device" in ended.stderr
