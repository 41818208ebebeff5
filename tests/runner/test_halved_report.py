"""The report of a sweep whose runs stop at rungs, as values. No browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from modal_app.store.layout import Store
from runner.html_report.finish import leave_report
from runner.html_report.gather import gather
from tests.runner.halved_store import halved_sweep
from tests.runner.judged_store import draw_losses, write_losses


def written(store: Store, sweep: str) -> dict[str, Any]:
    """What the file holds that a launch leaves."""
    page = Path(leave_report(store, sweep).removeprefix("Report: ")).read_text(encoding="utf-8")
    found = re.search(r'<script[^>]* id="values"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found is not None
    values: dict[str, Any] = json.loads(found[1])
    return values


def test_the_report_that_a_launch_leaves_is_over_and_has_the_verdict(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sweep = halved_sweep(store)  # its launcher is this process, which lives
    for number, one in enumerate((sweep.winner, sweep.audited)):
        write_losses(store, one, draw_losses(1.0 + number, own=number + 1))
    values = written(store, sweep.id)
    assert (values["going_on"], values["headway"]) == (False, None), "runs at a rung have ended"
    assert [one["lead"].startswith("Take") for one in values["verdicts"]] == [True]


def test_the_report_says_why_each_run_stopped_or_went_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sweep = halved_sweep(store)
    why = {one["key"]: [rung["why"] for rung in one["rungs"]] for one in gather(store, sweep.id)["runs"]}
    assert why[sweep.stopped.key] == ["3rd of 6"]
    assert why[sweep.promoted.key] == ["2nd of 6, among the best", "2nd of 3"]
    assert why[sweep.audited.key] == ["5th of 6, audit", "3rd of 3, audit"]
