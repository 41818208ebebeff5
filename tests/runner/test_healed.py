"""A run whose batch is not the requested one is marked wherever it is shown."""

import csv
import io
import json

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.compare.comparison import SweepSelection, comparison
from runner.compare.csv_form import rows_csv
from runner.compare.ranking import EVAL_LOSS, Row, compare_sweep
from runner.compare.show import Form, show
from runner.html_report.gather import gather
from tests.runner.builders import finish_run, open_sweep, run

CHANGE = "micro_batch_size 4 -> 2 after out of memory"
MIXED = "Runs with a smaller micro batch take the same rows in each step"


@pytest.fixture
def sweep(store: Store) -> str:
    """Two runs, the second one healed."""
    runs = [run({"micro_batch_size": 4, "learning_rate": rate}) for rate in (1, 2)]
    planned = open_sweep(store, runs)
    for number, one in enumerate(runs):
        finish_run(store, one, {0: 2.0, 10: 1.0 - number / 10})
    done = store.folder(StepKind.TRAIN, runs[1].key).done
    facts = {"smaller_batch": {"micro_batch_size": 2, "gradient_accumulation_steps": 2}}
    done.write_text(json.dumps(json.loads(done.read_text()) | {"facts": facts}))
    store.folder(StepKind.TRAIN, runs[1].key).config.write_text("micro_batch_size: 4\n")
    return planned.sweep


def rows_of(store: Store, sweep: str) -> tuple[Row, Row]:
    healed, other = compare_sweep(store, sweep)
    return healed, other


def test_its_row_says_what_was_changed_and_the_others_say_nothing(store: Store, sweep: str) -> None:
    healed, other = rows_of(store, sweep)
    assert (healed.healed, healed.flags) == (CHANGE, ("healed",))
    assert (other.healed, other.flags) == (None, ())
    lines = {line["key"]: line for line in csv.DictReader(io.StringIO(rows_csv([healed, other], EVAL_LOSS)))}
    assert (lines[healed.key]["healed"], lines[other.key]["healed"]) == (CHANGE, "")


def test_every_table_says_it_and_that_a_ranking_mixes_both_kinds(
    store: Store, sweep: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, selections = rows_of(store, sweep), [SweepSelection(store, sweep)]
    result = comparison(rows, selections)
    assert result.notes[0] == f"{rows[0].key}: {CHANGE}."
    assert result.notes[1].startswith(MIXED)
    assert comparison(rows[1:], selections).notes == ()
    assert len(comparison(rows[:1], selections).notes) == 1, "nothing is mixed"
    for form in (Form.TABLE, Form.MARKDOWN):
        show(result, selections, form)
        printed = capsys.readouterr().out
        assert "healed" in printed
        assert f"{rows[0].key}: {CHANGE}." in printed
        assert MIXED in printed


def test_the_report_says_it_next_to_the_run_and_in_its_config(store: Store, sweep: str) -> None:
    values = gather(store, sweep)
    assert [one["flags"] for one in values["runs"]] == [[CHANGE], []]
    assert values["reproduce"]["best"]["config"].startswith(f"# {CHANGE}\n")
