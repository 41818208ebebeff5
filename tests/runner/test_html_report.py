"""The report as values and as a file: its content, and that it loads and sends nothing. No browser."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store, after_key
from modal_app.store.step import FailureReason, OutcomeStatus, StepKind
from runner import cli, html_report
from runner.compare.ranking import compare_sweep
from runner.html_report.finish import leave_report
from runner.html_report.gather import gather
from runner.html_report.page import html, write_report
from runner.types import Plan
from tests.runner.builders import finish, finish_run, open_sweep, run
from tests.runner.judged_store import judged_sweep
from tests.runner.report_store import HOSTILE, SECRET, RunsByStatus, answered, sweep_of_every_kind, synthetic_sweep

LARGEST_BYTES = 6_000_000


@pytest.fixture
def every_kind(store: Store) -> Iterator[tuple[Plan, RunsByStatus]]:
    with sweep_of_every_kind(store) as made:
        yield made


def by_key(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["key"]: one for one in values["runs"]}


class Elements(HTMLParser):
    """Every element with its attributes, and the text of the scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


def test_each_run_has_its_status(store: Store, every_kind: tuple[Plan, RunsByStatus]) -> None:
    planned, by_status = every_kind
    values = gather(store, planned.sweep)
    runs = by_key(values)
    states = {
        by_status.failed.key: ("failed", "oom"),
        by_status.diverged.key: ("failed", "nan"),
        by_status.running.key: ("running", None),
        by_status.blocked.key: ("blocked", None),
        by_status.pending.key: ("pending", None),
    }
    assert {key: (runs[key]["status"], runs[key]["reason"]) for key in states} == states
    assert set(values["counts"].split(", ")) >= {"3 succeeded", "1 failed (oom)", "1 failed (nan)"}
    assert values["going_on"]
    assert values["headway"]["counted"] == "3 of 8 done, 2 failed, 1 blocked, 1 running"
    assert "diverged" in runs[by_status.diverged.key]["flags"]
    assert all(runs[key]["ranked"] is None for key in states), "a loss that is not final gives no rank"
    assert len(values["analysis"]["keys"]) == 3
    printed = {failure["key"]: failure for failure in values["failures"]}
    assert {key: failure["reason"] for key, failure in printed.items()} == {
        by_status.failed.key: "oom",
        by_status.diverged.key: "nan",
        by_status.blocked.key: None,
    }
    assert printed[by_status.blocked.key]["tail"] == "every row was longer than sequence_len"
    assert printed[by_status.failed.key]["tail"].endswith("\nCUDA ***"), "the last lines, without colours and secrets"
    assert "5 of 8 runs are not ranked" in " ".join(values["answer"])


def test_what_users_and_logs_say_is_never_markup_and_no_secret_is_in_the_file(
    store: Store, every_kind: tuple[Plan, RunsByStatus]
) -> None:
    planned, _ = every_kind
    text = write_report(store, planned.sweep).read_text(encoding="utf-8")
    assert SECRET not in text
    elements = Elements(text)
    assert [tag for tag, _ in elements.found].count("script") == 3
    assert not [tag for tag, _ in elements.found if tag == "img"]
    assert "<" not in elements.scripts[0], "else a comment that is begun in it would take in the rest of the page"
    values = json.loads(elements.scripts[0])
    assert HOSTILE in json.dumps([one["params"] for one in values["runs"]], ensure_ascii=False)


def test_the_file_loads_nothing_and_forbids_itself_to(store: Store) -> None:
    planned = synthetic_sweep(store, 6)
    text = write_report(store, planned.sweep).read_text(encoding="utf-8")
    elements = Elements(text)
    addresses = [value for _, given in elements.found for name, value in given.items() if name in ("src", "href")]
    assert set(addresses) == {"data:,"}
    assert not [tag for tag, _ in elements.found if tag in ("iframe", "object", "embed", "base", "form")]
    (policy,) = [given["content"] for _, given in elements.found if "http-equiv" in given]
    assert "default-src 'none'" in str(policy)
    assert "connect-src 'none'" in str(policy)
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"@import|url\(", style)


@pytest.mark.medium
def test_a_report_of_200_runs_is_small_and_quickly_written(store: Store) -> None:
    planned = synthetic_sweep(store, 200)
    before = time.process_time()
    path = write_report(store, planned.sweep)
    assert time.process_time() - before < 3.0, "it is written at the end of every sweep, so it has to be fast"
    assert path.stat().st_size < LARGEST_BYTES
    assert path == store.sweeps / planned.sweep / "report.html"


def test_curves_run_against_steps_tokens_seconds_and_the_dollars_paid_until_then(store: Store) -> None:
    planned = synthetic_sweep(store, 4, points=50)
    for one in gather(store, planned.sweep)["runs"]:
        train, evaluation = one["curves"]["train"], one["curves"]["eval"]
        assert set(train) == {"step", "y", "tokens", "seconds", "dollars"}
        assert train["tokens"][-1] == train["step"][-1] * 4096
        assert evaluation["tokens"] == [step * 4096 for step in evaluation["step"]], "an eval line tells no tokens"
        assert 0 < train["dollars"][0] < train["dollars"][-1] < one["dollars"]
        assert train["dollars"] == sorted(train["dollars"])


def test_the_receipt_adds_up_to_what_was_paid_and_names_the_share_of_training(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = synthetic_sweep(store, 4)
    values = gather(store, planned.sweep)
    for one in values["runs"]:
        paid = sum(seconds for name, seconds in one["parts"].items() if name != "queue")
        assert paid == pytest.approx(one["paid"], abs=0.01)
        assert one["parts"]["boot"] == pytest.approx(10.0)
        assert one["parts"]["first step"] == 4.0
    whole = values["receipt"]
    training = whole["parts"]["train"] + whole["parts"]["first step"]
    assert whole["paid"] == pytest.approx(sum(one["paid"] for one in values["runs"]))
    assert whole["training_share"] == pytest.approx(training / whole["paid"], abs=1e-4)
    assert cli.main(["compare", planned.sweep, "--receipt", "--store", str(store.root)]) == 0
    said = capsys.readouterr().out
    assert f"{whole['training_share']:.0%} of {whole['paid']:.0f} paid seconds" in said, "one definition of the share"
    assert whole["containers"] == "4 runs in 4 containers."
    assert whole["containers"] in said


def test_the_answer_claims_no_more_than_the_runs_show(store: Store) -> None:
    runs = [run({"lora_r": rank, "seed": seed}) for rank in (8, 16) for seed in (1, 2)]
    planned = open_sweep(store, runs)
    for index, one in enumerate(runs):
        finish_run(store, one, {1: 2.0, 2: 1.0 + 0.1 * index}, eval_fingerprint="same rows")
    said = " ".join(gather(store, planned.sweep)["answer"])
    assert (
        "lora_r=8 has the lowest mean eval_loss: 1.0500 ± 0.0707 over 2 seeds, 0.2000 below the next (lora_r=16)"
        in said
    )
    assert "differ only in their seed vary by 0.0707" in said
    assert "The lead is 2.8 times its standard error, 0.0707." in said


def finished(store: Store, finals: Mapping[tuple[int, int], float], first_step: int = 0) -> Plan:
    """A sweep over rank and seed; `finals`: (rank, seed) -> final loss."""
    runs = {(rank, seed): run({"lora_r": rank, "seed": seed}) for rank, seed in finals}
    planned = open_sweep(store, list(runs.values()))
    for chosen, one in runs.items():
        finish_run(store, one, {first_step: 2.0, 9: finals[chosen]}, eval_fingerprint="same rows")
    return planned


def test_a_lucky_seed_does_not_win_over_a_setting_with_the_better_mean(store: Store) -> None:
    planned = finished(store, {(8, 1): 1.0, (8, 2): 1.8, (16, 1): 1.2, (16, 2): 1.3})
    values = gather(store, planned.sweep)
    best = values["card"]
    assert best["params"] == [["lora_r", "16"]]
    assert (best["mean"], best["n"], best["low"], best["high"]) == (1.25, 2, 1.2, 1.3)
    assert best["sd"] == pytest.approx(0.0707107)
    assert best["before"] == 2.0
    assert best["before_is"] == "the base model"
    assert {one["params"]["lora_r"] for one in values["runs"] if one["is_best"]} == {16}
    assert values["reproduce"]["best"]["key"] == best["runs"][0], "of its runs, the one with the lowest loss"
    (winner,) = [row.key for row in compare_sweep(store, planned.sweep) if row.is_best]
    assert winner == best["runs"][0], "`axosweep best` names the same run"
    assert "can explain the lead" in " ".join(values["answer"])


@pytest.mark.parametrize("second", [2.0, 2.5])
def test_seeds_that_all_reach_the_same_loss_leave_a_report(store: Store, second: float) -> None:
    runs = [run({"learning_rate": rate, "seed": seed}) for rate in (1, 2) for seed in (1, 2)]
    for one, final in zip(runs, (2.0, 2.0, second, second), strict=True):
        finish_run(store, one, {0: 3.0, 9: final})
    answer = " ".join(gather(store, open_sweep(store, runs).sweep)["answer"])
    assert answer.endswith("Runs that differ only in their seed vary by 0.0000 (standard deviation of eval_loss).")


def test_a_setting_of_which_one_seed_diverged_does_not_win(store: Store) -> None:
    planned = finished(store, {(8, 1): 1.0, (8, 2): math.nan, (16, 1): 1.2, (16, 2): 1.3})
    assert gather(store, planned.sweep)["card"]["params"] == [["lora_r", "16"]]


def test_the_report_and_compare_name_the_same_winner_if_a_seed_was_stopped_for_a_nan(store: Store) -> None:
    planned = finished(store, {(8, 1): 1.0, (8, 2): 1.1, (8, 3): 1.1, (16, 1): 1.2, (16, 2): 1.3})
    stopped = planned.runs[2].run.key
    store.folder(StepKind.TRAIN, stopped).done.unlink()
    finish(store, StepKind.TRAIN, stopped, OutcomeStatus.FAILED, reason=FailureReason.NAN, message="loss")
    assert gather(store, planned.sweep)["card"]["params"] == [["lora_r", "16"]]
    (winner,) = [row for row in compare_sweep(store, planned.sweep) if row.is_best]
    assert winner.params["lora_r"] == 16


def test_without_an_evaluation_before_training_the_card_claims_no_gain(store: Store) -> None:
    values = gather(store, finished(store, {(8, 1): 1.0, (16, 1): 1.2}, first_step=3).sweep)
    assert values["card"]["before"] is None
    assert not values["card"]["repeated"]
    assert values["seeds"] == []


def test_the_config_of_the_best_run_has_its_special_tokens_and_no_secret(store: Store) -> None:
    planned = finished(store, {(8, 1): 1.0, (16, 1): 1.2})
    config = store.folder(StepKind.TRAIN, planned.runs[0].run.key).config
    config.write_text(f"hub_token: {SECRET}\npad_token: <|end_of_text|>\n")
    assert gather(store, planned.sweep)["reproduce"]["best"]["config"] == "hub_token: ***\npad_token: <|end_of_text|>\n"


def test_the_gain_of_a_run_that_started_from_a_checkpoint_is_over_that_checkpoint(store: Store) -> None:
    planned = finished(store, {(8, 1): 1.0, (16, 1): 1.2}, first_step=3)
    identity = store.folder(StepKind.TRAIN, planned.runs[0].run.key).identity
    identity.write_text(json.dumps(json.loads(identity.read_text()) | {"from": {"run": "0" * 12, "step": 3}}))
    best = gather(store, planned.sweep)["card"]
    assert (best["before"], best["before_is"]) == (2.0, "its start checkpoint")


def test_the_card_has_two_answers_of_the_base_model_and_of_the_best_setting(store: Store) -> None:
    planned = finished(store, {(8, 1): 1.0, (8, 2): 1.1, (16, 1): 1.2, (16, 2): 1.3})
    best = gather(store, planned.sweep)["card"]["runs"]
    options = {"prompts": "inputs/a.jsonl", "greedy": True, "max_tokens": 9, "base": "b"}
    for one in planned.runs:
        said = ["same", "right", "right", "other"] if one.run.key in best else ["same", "no", "no", "no"]
        answered(store, after_key(one.run.key, "1"), options, said, "right")
    assert len(gather(store, planned.sweep)["card"]["samples"]["columns"]) == 1, "no base model has answered"
    answered(store, after_key("", "2"), options, ["same", "right", SECRET, "wrong"], "right")
    samples = gather(store, planned.sweep)["card"]["samples"]
    assert samples["prompts"] == ["question 2", "question 3"], "the first at which the two differ"
    base, ours = samples["columns"]
    assert (base["run"], base["said"], base["exact"]) == ("base", ["***", "wrong"], 1)
    assert (ours["run"], ours["said"], ours["is_right"]) == (best[0], ["right", "other"], [True, False])
    assert ours["exact"] == 2, "of all prompts, not of the shown ones"


def test_runs_of_other_held_out_rows_are_answered_apart(store: Store) -> None:
    runs = [run({"lora_r": rank, "seed": seed}) for rank in (8, 16) for seed in (1, 2)]
    planned = open_sweep(store, runs)
    for one in runs:
        seed = one.experiment.axolotl["seed"]
        finish_run(store, one, {1: 2.0, 2: 1.0 + seed}, eval_fingerprint=f"rows of seed {seed}")
    values = gather(store, planned.sweep)
    said = " ".join(values["answer"])
    assert "not ranked together" in said
    assert len([line for line in values["answer"] if "lowest final" in line]) == 2
    assert len(values["analysis"]["keys"]) == 2, "statistics are of one set of held-out rows"


def test_a_sweep_of_which_nothing_has_begun_has_a_report_too(store: Store) -> None:
    planned = open_sweep(store, [run({"lora_r": 8}), run({"lora_r": 16})])
    values = gather(store, planned.sweep)
    assert values["answer"] == ["No run has finished with its eval_loss yet: 2 pending."]
    assert values["analysis"]["effects"] == []
    assert html(values)


def test_a_sweep_ends_with_a_line_about_its_report_whatever_lies_in_its_store(store: Store) -> None:
    planned = synthetic_sweep(store, 2, points=8)
    page = store.sweeps / planned.sweep / "report.html"
    assert leave_report(store, planned.sweep) == f"Report: {page}"
    assert leave_report(store, "nothing") == f"No report was written: There is no sweep nothing in {store.sweeps}."
    page.unlink()
    page.mkdir()
    assert leave_report(store, planned.sweep).startswith("No report was written: ")
    page.rmdir()
    done = store.folder(StepKind.TRAIN, planned.runs[0].run.key).done
    done.write_text("[3]")
    assert leave_report(store, planned.sweep) == f"Report: {page}", "a damaged result is one finished run less"
    store.folder(StepKind.TRAIN, planned.runs[0].run.key).identity.write_text('{"axolotl": 3}')
    assert leave_report(store, planned.sweep) == f"Report: {page}", "a damaged request is skipped"
    page.unlink()
    requested = store.sweeps / planned.sweep / "plan.json"
    requested.write_text(json.dumps(json.loads(requested.read_text()) | {"commit": []}))
    said = leave_report(store, planned.sweep)
    assert said.startswith("No report was written: TypeError")
    assert said.endswith(f"axosweep report {planned.sweep} --store {store.root}")
    assert not page.exists()


def test_the_verb_writes_where_it_should_and_does_not_overwrite_other_files(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = synthetic_sweep(store, 2, points=8)
    out = tmp_path / "page.html"
    words = ["report", planned.sweep[:8], "--store", str(store.root), "--out", str(out)]
    assert cli.main(words) == 0
    assert str(out) in capsys.readouterr().out
    assert cli.main(words) == 0, "a report may be written again"
    out.write_text("my own notes")
    assert cli.main(words) == 2
    assert out.read_text() == "my own notes"
    assert "Name another" in capsys.readouterr().err
    assert cli.main(["report", "--store", str(tmp_path / "nothing")]) == 2


def test_the_reproducibility_block_names_command_lock_and_data(store: Store) -> None:
    planned = synthetic_sweep(store, 3, points=8)
    identity = store.folder(StepKind.TRAIN, planned.runs[0].run.key).identity
    identity.write_text(json.dumps(json.loads(identity.read_text()) | {"trainer_lock": "lock-1"}))
    block = gather(store, planned.sweep)["reproduce"]
    assert block["command"] == "axosweep -m"
    assert block["locks"] == ["lock-1"]
    assert block["commits"] == [], "nothing records the commit of the launch"
    requested = store.sweeps / planned.sweep / "plan.json"
    requested.write_text(json.dumps(json.loads(requested.read_text()) | {"commit": "c0ffee"}))
    assert gather(store, planned.sweep)["reproduce"]["commits"] == ["c0ffee"], "a mirror knows no more than the plan"
    first = planned.runs[0].run.key
    store.folder(StepKind.TRAIN, first).attempt(1).step.write_text('{"tracking": {"commit": "beef"}}')
    assert gather(store, planned.sweep)["reproduce"]["commits"] == ["beef"]
    assert {one["key"] for one in block["datasets"]} == {one.run.data_key for one in planned.runs}
    assert block["best"]["overrides"].startswith("lora_r=")


def test_the_charts_library_is_the_one_that_its_page_names() -> None:
    vendor = Path(html_report.__file__).parent / "vendor"
    digest = hashlib.sha256((vendor / "echarts.min.js").read_bytes()).hexdigest()
    assert digest in (vendor / "README.md").read_text()


def test_a_verdict_takes_the_place_of_guesses_about_chance(store: Store) -> None:
    sweep, runs = judged_sweep(store, {1e-4: 1.5, 2e-4: 1.501, 1e-3: 1.8})
    values = gather(store, sweep)
    (verdict,) = values["verdicts"]
    assert verdict["lead"].startswith(
        "Two settings cannot be told apart: learning_rate=0.0001; learning_rate=0.0002. The other "
        "one does worse. This holds with 95 % confidence for these runs; each setting has one seed"
    )
    assert [one["is_best"] for one in verdict["settings"]] == [True, True, False]
    assert [one["is_best"] for one in values["runs"]] == [True, True, False]
    assert values["runs"][2]["difference"] == pytest.approx(0.3)
    assert values["card"]["is_shared"]
    assert "chance" not in " ".join(values["answer"])
    for one in runs:
        store.folder(StepKind.TRAIN, one.key).losses.unlink()
    values = gather(store, sweep)
    assert (values["verdicts"], values["card"]["is_shared"]) == ([], False)
    assert "the size of chance differences is unknown" in " ".join(values["answer"])


def test_one_setting_that_is_better_than_all_is_the_one_to_take(store: Store) -> None:
    sweep, _ = judged_sweep(store, {1e-4: 1.5, 2e-4: 1.6, 1e-3: 1.8}, seeds=3)
    values = gather(store, sweep)
    assert values["verdicts"][0]["lead"] == (
        "Take learning_rate=0.0001: it does better than both others. "
        "This holds with 95 % confidence, for other seeds as well."
    )
    assert not values["card"]["is_shared"]
