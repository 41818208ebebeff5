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
    """The values in the file that a launch leaves."""
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


def test_the_effects_of_parameters_are_drawn_from_the_losses_where_all_runs_compare(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sweep = halved_sweep(store)
    found = gather(store, sweep.id)["analysis"]
    at_rung = {sweep.stopped.key: 1.3, sweep.promoted.key: 1.2, sweep.winner.key: 1.0, sweep.audited.key: 1.5}
    assert at_rung.items() <= dict(zip(found["measured"], found["losses"], strict=True)).items()
    assert (len(found["measured"]), found["rung_step"]) == (5, 12), "not the one that diverged before"
    assert {one["name"]: one["runs"] for one in found["effects"]} == {"learning_rate": 5, "lora_r": 5}
    assert len(found["keys"]) == 2, "only finished runs have a price to compare"
