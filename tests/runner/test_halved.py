"""A sweep whose runs stop at rungs, as people and programs see it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modal_app.halving.entries import go_of, loss_of
from modal_app.halving.snapshot import Reading, Snapshot, Terms, Why
from modal_app.process.tracking import TrackingRecord
from modal_app.store.claim import claim
from modal_app.store.layout import Store
from modal_app.store.step import Outcome, OutcomeStatus, StepKind
from runner.cli import main
from runner.compare.csv_form import rows_csv
from runner.compare.halved import Audit, HalvedSearch, ResumedRuns, audit_text, halved, missed_text, saved_text
from runner.compare.pair import pair_of
from runner.compare.ranking import EVAL_LOSS, Row, compare_sweep
from runner.compare.row_losses import judgeable
from runner.compare.select import in_order
from runner.compare.source import facts_of_sweep
from runner.compare.table import rungs_of as rungs_at
from runner.errors import SweepError
from runner.follow_up.subjects import subjects
from runner.html_report.search import FINISHED, outcome
from runner.show.following import headway_of_sweep, lines_of
from runner.show.rung_words import rung_words
from runner.show.screen import Size, screen
from runner.show.sweep_view import SweepView
from runner.store.run_state import RunStatus
from runner.store.searches import RungReached, Search, reached_by_run, searches_of
from runner.wandb.local_runs import local_run
from tests.runner.builders import begin_attempt, finish_run, open_sweep, run
from tests.runner.halved_store import HalvedSweep, best_run_first, entries_of, halved_sweep
from tests.runner.judged_store import draw_losses, write_losses


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, HalvedSweep]:
    """A store that all of these tests read, and none changes."""
    store = Store(tmp_path_factory.mktemp("halved"))
    return store, halved_sweep(store)


StoredSweep = tuple[Store, HalvedSweep]


def printed(found: StoredSweep, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main([*words, "--store", str(found[0].root)])
    return capsys.readouterr().out


def compared(found: StoredSweep, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    output: dict[str, Any] = json.loads(printed(found, capsys, "compare", *words, "--json"))
    return output


def rows_of(found: StoredSweep) -> dict[str, Row]:
    return {row.key: row for row in compare_sweep(found[0], found[1].id)}


def test_what_a_run_has_reached_is_read_back(found: StoredSweep) -> None:
    store, sweep = found
    (search,) = searches_of(store, sweep.id)
    by_key = search.reached
    assert [(one.rung, one.step, one.loss) for one in by_key[sweep.promoted.key]] == [(1, 12, 1.2), (2, 36, 0.9)]
    assert [one.promoted for one in by_key[sweep.promoted.key]] == [True, False]
    assert by_key[sweep.audited.key][0].why is Why.AUDIT
    assert [(one.place, one.of) for one in by_key[sweep.winner.key]] == [(1, 6), (1, 3)]
    assert by_key[sweep.diverged.key][0].place == 6


def test_of_several_searches_only_what_was_reached_at_the_steps_of_the_newest_is_shown() -> None:
    def search(**reached: tuple[RungReached, ...]) -> Search:
        snapshot = Snapshot(Terms({}, (0.2, 0.6), 3))
        return Search("sweep/own", (0.2, 0.6), 3, True, tuple(reached), reached, snapshot)

    newest = search(a=(RungReached(1, 8, 1.0, 1, 2, Why.BEFORE), RungReached(2, 12, 0.9, 1, 1)))
    audited = RungReached(2, 8, 1.0, 3, 3, Why.AUDIT)
    older = search(
        a=(RungReached(1, 4, 2.0, 1, 3), audited), b=(RungReached(1, 4, 3.0, 2, 3), replace(audited, loss=4.0))
    )
    assert reached_by_run([search(), newest, older]) == {
        "a": (RungReached(1, 8, 1.0, 1, 2, Why.AUDIT), RungReached(2, 12, 0.9, 1, 1)),
        "b": (RungReached(1, 8, 4.0, 3, 3, Why.AUDIT),),
    }


def test_a_stopped_run_is_never_ranked_against_finished_ones(found: StoredSweep) -> None:
    _, sweep = found
    rows = rows_of(found)
    assert list(rows)[:3] == [sweep.winner.key, sweep.audited.key, sweep.promoted.key]
    assert [row.key for row in rows.values() if row.is_best] == [sweep.winner.key]
    assert not any(row.can_win for row in rows.values() if row.rung)


@pytest.mark.parametrize("column", ["final", "best"])
def test_sorted_by_the_metric_a_stopped_run_comes_last_as_it_has_none_in_the_table(
    found: StoredSweep, column: str
) -> None:
    _, sweep = found
    ordered = in_order([*rows_of(found).values()], column, reverse=True)
    assert [row.key for row in ordered[:2]] == [sweep.audited.key, sweep.winner.key]


def test_a_stopped_seed_is_not_part_of_its_settings_mean(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = (run({"learning_rate": 1.0, "seed": seed}) for seed in (1, 2))
    finish_run(store, first, {0: 3.0, 9: 2.0})
    finish_run(store, second, {0: 3.0, 4: 0.5})
    folder = store.folder(StepKind.TRAIN, second.key)
    folder.done.unlink()
    ended = Outcome(OutcomeStatus.AT_RUNG, 1, 1.0, 2.0, facts={"rung": 1, "eval_fingerprint": "rows"})
    folder.attempt(1).result.write_text(ended.to_json())
    best, stopped = compare_sweep(store, open_sweep(store, [first, second]).sweep)
    assert (best.key, best.final, best.over_seeds) == (first.key, 2.0, None)
    assert (stopped.can_win, stopped.setting) == (False, best.setting)


def test_a_stopped_run_is_not_judged_by_the_losses_that_it_has_so_far(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sweep = halved_sweep(store)
    for number, one in enumerate((sweep.stopped, sweep.promoted, sweep.winner, sweep.audited)):
        write_losses(store, one, draw_losses(0.1 if one is sweep.stopped else 1.0 + number, own=number + 1))
    rows = compare_sweep(store, sweep.id)
    assert {row.key for row in judgeable(rows)} == {sweep.winner.key, sweep.audited.key}


def test_the_table_has_a_column_for_each_rung_and_no_end_of_a_stopped_run(
    found: StoredSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, sweep = found
    lines = printed(found, capsys, "compare", "--md").splitlines()
    heads = [cell.strip() for cell in lines[2].split("|")]
    cells = {
        row[2]: dict(zip(heads, row, strict=True))
        for line in lines
        if len(row := [cell.strip() for cell in line.split("|")]) == len(heads)
    }
    promoted, diverged = cells[sweep.promoted.key], cells[sweep.diverged.key]
    assert (promoted["rung 1"], promoted["rung 2"]) == ("1.2000", "0.9000")
    assert (promoted["eval loss"], promoted["best"], promoted["status"]) == ("", "", "stopped at rung 2")
    assert (diverged["rung 1"], diverged["rung 2"]) == ("diverged", "")
    assert cells[sweep.winner.key]["eval loss"] == "0.6000"
    assert [cells[one.key]["why"] for one in (sweep.winner, sweep.promoted, sweep.audited)] == [
        "1st of 3, among the best", "2nd of 3", "3rd of 3, audit",
    ]  # fmt: skip
    assert (cells[sweep.stopped.key]["why"], diverged["why"]) == ("3rd of 6", "diverged"), "the place now, not then"


def test_rungs_at_different_steps_share_no_column(found: StoredSweep) -> None:
    """For example, searches of two sweeps, or of one whose rungs were changed."""
    _, sweep = found
    rows = rows_of(found)
    other = replace(rows[sweep.stopped.key], rungs=(RungReached(1, 30, 0.9, 1, 1),))
    unknown = replace(rows[sweep.diverged.key], rungs=(RungReached(1, 0, None, 1, 1),))
    assert [one.text for one in rungs_at([rows[sweep.winner.key], other, unknown])] == ["1, step 12", "1, step 30", "2"]
    assert [one.text for one in rungs_at([rows[sweep.stopped.key], unknown])] == ["1"]
    winner, stopped = csv.DictReader(io.StringIO(rows_csv([rows[sweep.winner.key], other], EVAL_LOSS)))
    assert (winner["rung.1.step.12"], winner["rung.1.step.30"]) == ("1.0", "")
    assert (stopped["rung.1.step.12"], stopped["rung.1.step.30"]) == ("", "0.9")


def test_two_runs_that_were_compared_at_different_steps_have_no_difference(found: StoredSweep) -> None:
    store, sweep = found
    facts = {one.key: one for one in facts_of_sweep(store, sweep.id)}
    other = replace(facts[sweep.stopped.key], rungs=(RungReached(1, 30, 0.9, 1, 1),))
    assert pair_of([facts[sweep.winner.key], other], EVAL_LOSS).difference is None


def test_csv_has_the_loss_and_the_place_at_each_rung(found: StoredSweep, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["key"]: row for row in csv.DictReader(io.StringIO(printed(found, capsys, "compare", "--csv")))}
    assert (rows[found[1].stopped.key]["rung.1"], rows[found[1].stopped.key]["rung.2"]) == ("1.3", "")
    stopped, promoted = rows[found[1].stopped.key], rows[found[1].promoted.key]
    assert (stopped["rung"], stopped["place.1"], stopped["of.1"], stopped["why.1"]) == ("1", "3", "6", "")
    assert (promoted["place.1"], promoted["why.1"], promoted["place.2"]) == ("2", "top", "2")


def test_json_says_what_was_saved_and_what_the_audit_found(
    found: StoredSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    _, sweep = found
    (search,) = compared(found, capsys)["searches"]
    assert (search["runs"], search["stopped"], search["promoted"], search["waiting"]) == (6, 4, 1, 0)
    assert (search["steps"], search["steps_saved"]) == (360, 3 * 48 + 24)
    assert search["seconds_saved"] == pytest.approx(0.5 * 168)
    assert search["audit"] == {
        "chosen": 1, "waiting": 0, "runs": 1, "best_run": sweep.audited.key, "best": 1.1, "winner": 0.6, "regret": 0.0,
    }  # fmt: skip


def test_a_part_of_a_search_says_nothing_about_the_complete_search(
    found: StoredSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(found, capsys, "--where", "learning_rate<0.0004")["searches"] == []


def test_an_audited_run_that_ends_better_than_all_others_is_a_regret(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sweep = halved_sweep(store, audited=0.5)
    found = halved(searches_of(store, sweep.id)[0], compare_sweep(store, sweep.id))
    assert found.audit is not None
    assert found.audit.regret == pytest.approx(0.1)
    assert "would have missed 0.1000" in audit_text(found.audit)
    assert saved_text(found).startswith("Stopping at rungs has saved 47 % of the 360 steps of all 6 runs")


@pytest.mark.parametrize("word", ["why=audit", "why=among the best", "why=top", "why=null"])
def test_runs_are_chosen_by_why_they_went_on_from_their_last_rung(
    found: StoredSweep, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    _, sweep = found
    went_on = {"why=audit": {sweep.audited.key}, "why=null": {row.key for row in rows_of(found).values() if row.rung}}
    keys = {one["key"] for one in compared(found, capsys, "--where", word)["runs"]}
    assert keys == went_on.get(word, {sweep.winner.key})


def test_by_another_metric_nothing_is_said_of_what_stopping_has_missed(
    found: StoredSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    read = compared(found, capsys, "--metric", "loss", "--maximize")
    assert [(one["stopped"], one["audit"], one["resumed"]) for one in read["searches"]] == [(4, None, None)]
    notes = " ".join(read["notes"])
    assert "Stopping at rungs has saved 47 %" in notes
    assert "missed" not in notes


def test_a_run_that_is_now_among_the_best_did_not_need_the_audit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sweep, best = best_run_first(store)
    rows = compare_sweep(store, sweep)
    (search,) = searches_of(store, sweep)
    assert (rows[0].key, rows[0].rungs[0].place, rows[0].rungs[0].why) == (best.key, 1, Why.AUDIT)
    audit = halved(search, rows).audit
    assert audit is not None
    assert (audit.chosen, audit.runs, audit.winner, audit.regret) == (1, 0, 0.5, None)
    assert outcome(rows[0], search) == FINISHED


def test_what_stopping_saves_is_not_said_before_all_runs_have_ended(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sweep = halved_sweep(store)
    folder = store.folder(StepKind.TRAIN, sweep.winner.key)
    folder.done.unlink()
    folder.attempt(1).result.unlink()
    with claim(folder, sweep.id):
        begin_attempt(store, StepKind.TRAIN, sweep.winner.key)
        found = halved(searches_of(store, sweep.id)[0], compare_sweep(store, sweep.id))
    assert (found.waiting, found.stopped) == (1, 4)
    assert saved_text(found) == "It is not known yet what stopping at rungs saves: 1 of 6 runs has not ended."


@pytest.mark.parametrize(
    ("audit", "says"),
    [
        (
            Audit(0, 0, 0, None, None, 1.0, None),
            "It is unknown what stopping has missed: this search has no run that is never stopped",
        ),
        (
            Audit(2, 1, 0, None, None, 1.0, None),
            "It is not known yet what stopping has missed: 2 runs are never stopped (the audit).",
        ),
        (
            Audit(1, 0, 0, None, None, 1.0, None),
            ": 1 run is never stopped (the audit), but none that would have stopped has finished.",
        ),
        (Audit(3, 0, 3, "key", 2.0, 1.5, 0.0), ": the best of 3 ended at 2.0000, the best other run at 1.5000."),
    ],
)
def test_the_audit_says_no_more_than_its_runs_show(audit: Audit, says: str) -> None:
    assert says in audit_text(audit)


def test_a_resumed_run_shows_what_stopping_has_missed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sweep = halved_sweep(store, audited=0.7)
    entries_of(store, sweep.id).put(go_of(2, sweep.promoted.key), {"why": Why.ASKED})
    finish_run(store, sweep.promoted, {60: 0.55})
    found = halved(searches_of(store, sweep.id)[0], compare_sweep(store, sweep.id))
    assert found.resumed is not None
    assert (found.resumed.runs, found.resumed.best_run, found.resumed.best) == (1, sweep.promoted.key, 0.55)
    assert found.resumed.regret == pytest.approx(0.05)
    assert found.audit is not None
    assert found.audit.winner == 0.6, "what the search itself has finished"
    known = "A run that had stopped was resumed, and ended at 0.5500, 0.0500 better than the best run that the search"
    assert known in missed_text(found)
    assert "unknown" not in missed_text(replace(found, audit=None))


def test_a_stopped_run_that_a_sweep_without_rungs_has_finished_counts_as_resumed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sweep = halved_sweep(store)
    finish_run(store, sweep.stopped, {60: 0.5})
    found = halved(searches_of(store, sweep.id)[0], compare_sweep(store, sweep.id))
    assert found.audit is not None
    assert found.audit.winner == 0.6, "what the search itself has finished"
    assert found.resumed is not None
    assert found.resumed.best_run == sweep.stopped.key
    assert found.resumed.regret == pytest.approx(0.1)


def test_without_a_finished_audit_run_it_is_unknown_what_stopping_has_missed() -> None:
    plain = HalvedSearch("sweep/own", (0.2,), 3, 9, 6, 0, 0, 90, 60, None, None, None)
    assert missed_text(plain) == "It is unknown what stopping has missed: search.audit=false leaves the audit out."
    no_better = missed_text(replace(plain, resumed=ResumedRuns(2, "key", 1.0, 0.0)))
    assert no_better.startswith("It is unknown what stopping has missed")
    assert no_better.endswith(
        "2 runs that had stopped were resumed, and the best of them ended at 1.0000, no better than "
        "the best run that the search has finished."
    )


def test_two_runs_compare_at_the_last_rung_that_both_have_reached(
    found: StoredSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    _, sweep = found
    pair = compared(found, capsys, sweep.winner.key, sweep.promoted.key)
    assert (pair["rung"], pair["difference"]) == (2, pytest.approx(0.1))
    pair = compared(found, capsys, sweep.winner.key, sweep.stopped.key)
    assert (pair["rung"], pair["difference"]) == (1, pytest.approx(0.3))
    assert f"axosweep resume {sweep.stopped.key}" in pair["notes"][0]
    pair = compared(found, capsys, sweep.winner.key, sweep.audited.key)
    assert (pair["rung"], pair["difference"]) == (None, pytest.approx(0.5))


def test_its_status_names_the_rung_wherever_a_status_is_shown(
    found: StoredSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    _, sweep = found
    assert f"{sweep.stopped.key}: stopped at rung 1" in printed(found, capsys, "ls", sweep.stopped.key)
    assert json.loads(printed(found, capsys, "ls", sweep.promoted.key, "--json"))["rung"] == 2
    assert "stopped at rung" in printed(found, capsys, "status")
    assert len(compared(found, capsys, "--where", "status=stopped at rung 1")["runs"]) == 3
    assert len(compared(found, capsys, "--where", "status=stopped at rung")["runs"]) == 4


def test_what_needs_a_finished_run_names_the_way_to_finish_it(found: StoredSweep) -> None:
    store, sweep = found
    way = f"stopped at rung 1 of its search. To finish it, use `axosweep resume {sweep.stopped.key}`"
    with pytest.raises(SweepError, match=way):
        subjects([store], sweep.stopped.key)


def test_the_live_view_says_where_each_run_has_stopped(found: StoredSweep) -> None:
    store, sweep = found
    facts = facts_of_sweep(store, sweep.id)
    headway = headway_of_sweep(store, sweep.id, facts, now=2000.0)
    assert headway.counted == "2 of 6 done, 3 stopped at rung 1, 1 at rung 2"
    assert (headway.is_over, headway.part) == (True, 1.0), "stopped runs have ended"
    drawn = [line.plain for line in screen(lines_of(store, facts), headway, Size(120, 20), now=2000.0)]
    (promoted,) = [line for line in drawn if f"{sweep.promoted.experiment.axolotl['learning_rate']}" in line]
    assert promoted.split("  ")[0] == "▪"
    assert promoted.endswith("stopped at rung 2  0.9000, 2nd of 3")
    assert drawn[-1].startswith("▪")
    (stopped,) = [line for line in lines_of(store, facts) if line.key == sweep.stopped.key]
    text = "stopped at rung 1  1.3000, 3rd of 6  step 12/60  loss 1.400  eval loss 1.300"
    assert stopped.text().endswith(text), "what it has reached there, which its log does not have"


def test_in_a_pipe_a_run_at_a_rung_has_a_line_when_it_goes_on_and_none_when_others_come(tmp_path: Path) -> None:
    store, printed = Store(tmp_path), io.StringIO()
    sweep = halved_sweep(store)
    stopped = store.folder(StepKind.TRAIN, sweep.stopped.key)
    view = SweepView(store, sweep.id, Console(file=printed, width=200))

    def new_lines() -> list[str]:
        before = len(printed.getvalue())
        view.update()
        return printed.getvalue()[before:].splitlines()

    assert any(line.endswith("stopped at rung 1  1.3000, 3rd of 6") for line in new_lines())
    entries = entries_of(store, sweep.id)
    entries.put(loss_of(1, "other"), Reading(0.1, 60, "rows").to_json())
    assert new_lines() == []
    entries.put(go_of(1, sweep.stopped.key), {"why": Why.TOP})
    with claim(stopped, sweep.id):
        begin_attempt(store, StepKind.TRAIN, sweep.stopped.key)
        (line,) = new_lines()
    assert line.endswith(": running  rung 1: 1.3000, 4th of 7, promoted")


@pytest.mark.parametrize(
    ("status", "why", "was_stopped", "words"),
    [
        (RunStatus.RUNNING, None, False, "rung 1: 1.0000, 3rd of 7"),
        (RunStatus.RUNNING, Why.TOP, False, "rung 1: 1.0000, 3rd of 7, continues"),
        (RunStatus.RUNNING, Why.AUDIT, False, "rung 1: 1.0000, 3rd of 7, continues (audit)"),
        (RunStatus.PENDING, Why.TOP, True, "rung 1: 1.0000, 3rd of 7, promoted"),
        (RunStatus.RUNNING, Why.ASKED, True, "rung 1: 1.0000, 3rd of 7, resumed"),
        (RunStatus.AT_RUNG, None, True, "1.0000, 3rd of 7"),
        (RunStatus.AT_RUNG, Why.TOP, True, "1.0000, 3rd of 7, promoted"),
        (RunStatus.SUCCEEDED, Why.TOP, False, ""),
    ],
)
def test_a_run_at_a_rung_is_described_in_a_few_words(
    status: RunStatus, why: Why | None, was_stopped: bool, words: str
) -> None:
    assert rung_words(status, RungReached(1, 12, 1.0, 3, 7, why, was_stopped)) == words


def test_a_stopped_run_is_synced_as_finished_with_its_rung(found: StoredSweep) -> None:
    store, sweep = found
    record = TrackingRecord("id", sweep.id)
    synced = {row.key: local_run(store, row, record, sweep.id, None) for row in rows_of(found).values()}
    stopped, winner = synced[sweep.promoted.key], synced[sweep.winner.key]
    assert (stopped.finished, stopped.summary["rung"], stopped.summary["stopped_at_rung"]) == (True, 2, 2)
    assert (winner.finished, winner.summary["rung"], winner.summary["stopped_at_rung"]) == (True, 2, 0)
