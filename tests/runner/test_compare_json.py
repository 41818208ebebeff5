"""What compare prints, compared with its documented schema, with a run in each status."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.claim import claim
from modal_app.store.layout import Store
from modal_app.store.step import FailureReason, OutcomeStatus, StepKind
from runner.cli import main
from runner.compare.comparison import Comparison
from runner.compare.ranking import Row
from runner.types import DataChoice, Run
from scripts.json_schemas import FILES, adapter, text_of
from tests.runner.builders import begin_attempt, finish, finish_run, log_losses, open_sweep, run
from tests.runner.test_report import strict_json

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("succeeded", "failed", "running", "diverged", "blocked", "pending")


@pytest.fixture
def kinds(store: Store) -> Iterator[dict[str, Run]]:
    """A run of each status, by the name of the status."""
    runs = {kind: run({"learning_rate": place + 1, "seed": 1}) for place, kind in enumerate(KINDS)}
    runs["blocked"] = run({"learning_rate": 9, "seed": 1}, data=DataChoice(seed=5))
    open_sweep(store, list(runs.values()), "kinds")
    finish_run(store, runs["succeeded"], {0: 3.0, 9: 1.0})
    finish(store, StepKind.TRAIN, runs["failed"].key, OutcomeStatus.FAILED, reason=FailureReason.OOM, message="too big")
    log_losses(store, runs["diverged"], {0: 3.0, 5: 0.5})
    with store.folder(StepKind.TRAIN, runs["diverged"].key).metrics.open("a") as file:
        file.write(json.dumps({"step": 9, "eval_loss": None, "not_finite": ["eval_loss"]}) + "\n")
    finish(store, StepKind.TRAIN, runs["diverged"].key, OutcomeStatus.FAILED, reason=FailureReason.NAN, message="nan")
    data = runs["blocked"].data_key
    finish(store, StepKind.PREPROCESS, data, OutcomeStatus.FAILED, message="no row is left")
    with claim(store.folder(StepKind.TRAIN, runs["running"].key)):
        begin_attempt(store, StepKind.TRAIN, runs["running"].key)
        log_losses(store, runs["running"], {0: 3.0, 5: 0.1})
        yield runs


def printed(store: Store, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "--store", str(store.root)]) == 0
    return capsys.readouterr().out


def test_each_kind_of_run_appears_as_what_it_is_and_only_the_finished_one_wins(
    store: Store, kinds: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {one["key"]: one for one in strict_json(printed(store, capsys, "compare", "--json"))["runs"]}
    output = {kind: rows[one.key] for kind, one in kinds.items()}
    assert {kind: (row["status"], row["reason"]) for kind, row in output.items()} == {
        "succeeded": ("succeeded", None),
        "failed": ("failed", "oom"),
        "running": ("running", None),
        "diverged": ("failed", "nan"),
        "blocked": ("blocked", None),
        "pending": ("pending", None),
    }
    assert {kind: row["flags"] for kind, row in output.items() if row["flags"]} == {"diverged": ["diverged"]}
    assert [kind for kind, row in output.items() if row["is_best"]] == ["succeeded"]
    assert (output["diverged"]["final"], output["diverged"]["best"]) == (None, 0.5)
    assert (output["failed"]["message"], output["pending"]["message"]) == ("too big", "")
    assert output["blocked"]["message"].endswith("could not be prepared: no row is left")
    assert (output["running"]["final"], output["running"]["step"], output["pending"]["step"]) == (0.1, 5, None)


def test_the_table_shows_them_all_with_the_reasons_below(
    store: Store, kinds: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(store, capsys, "compare")
    for one in kinds.values():
        assert one.key in text
    row = next(line for line in text.splitlines() if kinds["diverged"].key in line)
    assert "nan  " in row
    assert row.rstrip().endswith("diverged  failed (nan)")
    assert f"{kinds['failed'].key} failed (oom): too big\n" in text


def test_a_nan_in_a_log_that_succeeded_all_the_same_cannot_win(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, good = run({"learning_rate": 1}), run({"learning_rate": 2})
    open_sweep(store, [broken, good])
    finish_run(store, good, {9: 2.0})
    finish_run(store, broken, {9: 1.0})
    with store.folder(StepKind.TRAIN, broken.key).metrics.open("a") as file:
        file.write('{"step": 7, "loss": null, "not_finite": ["loss"]}\n')
    read = strict_json(printed(store, capsys, "compare", "--json"))["runs"]
    assert [(one["key"], one["is_best"]) for one in read] == [(good.key, True), (broken.key, False)]


@pytest.mark.parametrize("verb", FILES)
def test_the_documented_schema_is_that_of_the_code(verb: str) -> None:
    """scripts/json_schemas.py renews it."""
    assert (ROOT / "docs" / f"{verb}.schema.json").read_text(encoding="utf-8") == text_of(verb)


@pytest.mark.parametrize(
    "words",
    [
        ("compare", "--json"),
        ("compare", "--json", "--over", "learning_rate"),
        ("compare", "--json", "--all", "--metric", "eval/loss", "--maximize"),
        ("compare", "--json", "SUCCEEDED", "DIVERGED"),
        ("best", "--json"),
    ],
)
def test_what_is_printed_fits_its_schema(
    store: Store, kinds: dict[str, Run], capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    requested = [kinds[word.lower()].key if word.lower() in kinds else word for word in words]
    adapter(words[0]).validate_json(printed(store, capsys, *requested), strict=True)


def test_a_comparison_has_exactly_the_documented_fields(
    store: Store, kinds: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    read: dict[str, Any] = json.loads(printed(store, capsys, "compare", "--json"))
    assert set(read) == {one.name for one in dataclasses.fields(Comparison)}
    for row in read["runs"]:
        assert set(row) == {one.name for one in dataclasses.fields(Row)}


def test_every_documented_column_is_in_the_page() -> None:
    page = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    missing = [one.name for one in dataclasses.fields(Row) if f"`{one.name}`" not in page]
    assert not missing
