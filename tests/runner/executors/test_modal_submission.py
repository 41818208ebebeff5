"""Which submission shows where a run on Modal is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modal_app.store.layout import SUBMISSION, Store
from runner.errors import SweepError
from runner.executors.modal_submission import submitted_as
from tests.runner.builders import open_sweep, run
from tests.runner.executors.volume_store import submit


def test_a_sweep_that_had_nothing_left_to_do_is_where_its_runs_were_submitted_last(tmp_path: Path) -> None:
    mirror = Store(tmp_path / "modal")
    one, other, third = (run({"seed": seed}) for seed in (1, 2, 3))
    plans = [open_sweep(mirror, runs, name) for runs, name in (((one, other), "a"), ((one, third), "b"))]
    for age, planned in enumerate(plans):
        submit(mirror, planned)
        os.utime(mirror.sweeps / planned.sweep / SUBMISSION, (age, age))
    first, second = (planned.sweep for planned in plans)
    done = open_sweep(mirror, [one, other], "c").sweep
    assert submitted_as(mirror, one.key, done) == submitted_as(mirror, one.key) == second
    assert submitted_as(mirror, other.key, done) == first
    assert submitted_as(mirror, one.key, first) == first
    with pytest.raises(SweepError, match="Run nowhere was never submitted"):
        submitted_as(mirror, "nowhere", done)
