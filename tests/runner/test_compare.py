import json
import math
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modal_app.store.claim import claim
from modal_app.store.layout import Store
from modal_app.store.step import FailureReason, OutcomeStatus, StepKind
from runner.compare.params import differing_params, label, show_value, shown_params
from runner.compare.ranking import Row, compare_sweep
from runner.compare.settings import settings_of
from runner.show.status import sweep_status
from runner.store.ledger import Event, Ledger, Record
from runner.types import Gpu, Run
from tests.runner.builders import begin_attempt, finish, finish_run, log_losses, open_sweep, run


def rows_of(store: Store, runs: list[Run]) -> dict[str, Row]:
    return {row.key: row for row in compare_sweep(store, open_sweep(store, runs).sweep)}


def best_of(rows: dict[str, Row]) -> list[str]:
    return [row.key for row in rows.values() if row.is_best]


def at_rate(rate: float, **more: Any) -> Run:
    return run({"learning_rate": rate, **more})


def test_only_the_parameters_that_differ_are_shown() -> None:
    configs = [{"lr": 1, "seed": 7, "rank": 8}, {"lr": 2, "seed": 7, "rank": 8}, {"lr": 1, "seed": 7, "rank": 16}]
    assert differing_params(configs) == [{"lr": 1, "rank": 8}, {"lr": 2, "rank": 8}, {"lr": 1, "rank": 16}]


def test_a_parameter_that_only_repeats_another_is_dropped_and_the_telling_one_stays() -> None:
    configs = [{"alpha": 2 * rank, "lora_r": rank, "path": f"r{rank}"} for rank in (8, 16, 8)]
    assert differing_params(configs) == [{"lora_r": 8}, {"lora_r": 16}, {"lora_r": 8}]


def test_a_parameter_that_some_runs_lack_differs() -> None:
    assert differing_params([{"warmup": 3}, {}]) == [{"warmup": 3}, {"warmup": None}]


def test_one_run_differs_from_nothing() -> None:
    assert differing_params([{"lr": 1}]) == [{}]
    assert differing_params([]) == []


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2)), max_size=6))
def test_what_is_shown_tells_apart_all_that_differ(configs: list[dict[str, Any]]) -> None:
    """No parameter is dropped if it is the only difference between two runs."""
    shown = [json.dumps(params, sort_keys=True) for params in differing_params(configs)]
    for one, config in enumerate(configs):
        for other, against in enumerate(configs):
            assert (shown[one] == shown[other]) is (config == against)


def test_nested_parameters_and_the_gpu_count_have_dotted_names(store: Store) -> None:
    def one(rows: str, count: int) -> Run:
        return run({"datasets": [{"path": rows, "type": "alpaca"}]}, gpu=Gpu("cpu", count))

    runs = [one("a", 1), one("b", 1), one("a", 2)]
    rows = rows_of(store, runs)
    assert rows[runs[1].key].params == {"datasets.0.path": "b", "gpu.count": 1}
    assert rows[runs[2].key].params == {"datasets.0.path": "a", "gpu.count": 2}


def test_rows_are_ranked_by_the_final_loss_and_the_best_is_marked_once(store: Store) -> None:
    runs = [at_rate(rate) for rate in (1, 2, 3)]
    for one, final in zip(runs, (2.0, 1.0, 3.0), strict=True):
        finish_run(store, one, {0: 9.0, 5: 0.5, 9: final})
    rows = rows_of(store, runs)
    assert [row.final for row in rows.values()] == [1.0, 2.0, 3.0]
    assert best_of(rows) == [runs[1].key]
    best = rows[runs[1].key]
    assert (best.first, best.best, best.final, best.step, best.status, best.attempts) == (9, 0.5, 1, 9, "succeeded", 1)
    assert best.seconds == 2.5


def test_equal_losses_have_one_best_and_it_is_the_one_requested_first(store: Store) -> None:
    runs = [at_rate(rate) for rate in (1, 2)]
    for one in runs:
        finish_run(store, one, {9: 1.0})
    assert best_of(rows_of(store, runs)) == [runs[0].key]


def test_runs_are_ranked_only_within_the_same_held_out_rows(store: Store) -> None:
    runs = [at_rate(rate, sequence_len=length) for length in (1, 2) for rate in (1, 2)]
    for one, loss, rows in zip(runs, (4.0, 3.0, 2.0, 1.0), "aabb", strict=True):
        finish_run(store, one, {9: loss}, eval_fingerprint=rows)
    ranked = rows_of(store, runs)
    assert [(row.eval_fingerprint, row.final) for row in ranked.values()] == [("a", 3), ("a", 4), ("b", 1), ("b", 2)]
    assert best_of(ranked) == [runs[1].key, runs[3].key]


def test_two_datasets_with_the_same_held_out_rows_are_ranked_together(store: Store) -> None:
    runs = [at_rate(1, sequence_len=length) for length in (1, 2)]
    for one, loss in zip(runs, (2.0, 1.0), strict=True):
        finish_run(store, one, {9: loss}, eval_fingerprint="same")
    assert best_of(rows_of(store, runs)) == [runs[1].key]


def test_nan_and_infinity_never_win(store: Store) -> None:
    runs = [at_rate(rate) for rate in (1, 2, 3)]
    for one, loss in zip(runs, (math.nan, -math.inf, 5.0), strict=True):
        finish_run(store, one, {0: 1.0, 9: loss})
    rows = rows_of(store, runs)
    assert best_of(rows) == [runs[2].key]
    assert next(iter(rows)) == runs[2].key


def test_a_run_that_has_not_succeeded_never_wins_however_low_its_loss(store: Store) -> None:
    good, stopped, absent = (at_rate(rate) for rate in (1, 2, 3))
    finish_run(store, good, {9: 5.0})
    log_losses(store, stopped, {5: 0.1})
    finish(store, StepKind.TRAIN, stopped.key, OutcomeStatus.STOPPED)
    rows = rows_of(store, [absent, stopped, good])
    assert best_of(rows) == [good.key]
    assert [row.status for row in rows.values()] == ["succeeded", "pending", "stopped"]


def test_a_setting_wins_by_the_mean_of_its_seeds_and_not_by_one_that_was_lucky(store: Store) -> None:
    lucky, unlucky, even, evener = (at_rate(rate, seed=seed) for rate in (1, 2) for seed in (1, 2))
    for one, loss in ((lucky, 1.0), (unlucky, 3.0), (even, 1.9), (evener, 1.8)):
        finish_run(store, one, {9: loss})
    once = at_rate(3, seed=1)
    finish_run(store, once, {9: 1.95})
    rows = rows_of(store, [lucky, unlucky, even, evener, once])
    assert list(rows) == [evener.key, even.key, once.key, lucky.key, unlucky.key]
    assert best_of(rows) == [evener.key]
    spread = rows[even.key].over_seeds
    assert spread is not None
    assert (spread.n, round(spread.mean, 4), round(spread.sd, 4)) == (2, 1.85, 0.0707)
    assert rows[once.key].over_seeds is None


def test_a_setting_of_which_a_seed_has_diverged_does_not_win(store: Store) -> None:
    good, broken, other = at_rate(1, seed=1), at_rate(1, seed=2), at_rate(2, seed=1)
    for one, loss in ((good, 1.0), (broken, math.nan), (other, 2.0)):
        finish_run(store, one, {9: loss})
    assert best_of(rows_of(store, [good, broken, other])) == [other.key]


def test_a_setting_of_which_a_seed_was_stopped_for_a_nan_does_not_win(store: Store) -> None:
    good, better, broken, other = (at_rate(rate, seed=seed) for rate, seed in ((1, 1), (1, 2), (1, 3), (2, 1)))
    for one, loss in ((good, 1.0), (better, 0.9), (other, 2.0)):
        finish_run(store, one, {9: loss})
    log_losses(store, broken, {9: 1.1})
    finish(store, StepKind.PREPROCESS, broken.data_key, manifest={"eval_fingerprint": "rows", "rows": 7})
    finish(store, StepKind.TRAIN, broken.key, OutcomeStatus.FAILED, reason=FailureReason.NAN, message="loss")
    rows = rows_of(store, [good, better, broken, other])
    assert rows[broken.key].status == "failed"
    assert best_of(rows) == [other.key]


def test_a_setting_of_which_a_seed_ended_far_above_its_start_does_not_win(store: Store) -> None:
    good, worse, other = at_rate(1, seed=1), at_rate(1, seed=2), at_rate(2, seed=1)
    for one, losses in ((good, {0: 1.0, 9: 0.1}), (worse, {0: 1.0, 9: 1.7}), (other, {0: 1.0, 9: 0.95})):
        finish_run(store, one, losses)
    rows = rows_of(store, [good, worse, other])
    assert "diverged" in rows[worse.key].flags
    assert best_of(rows) == [other.key]


def test_the_same_run_in_two_places_is_not_two_seeds() -> None:
    assert len(set(settings_of([{"lr": 1, "seed": 1}, {"lr": 1, "seed": 1}]))) == 2
    assert len(set(settings_of([{"lr": 1, "seed": 1}, {"lr": 1, "seed": 2}]))) == 1


def test_no_run_wins_when_the_held_out_rows_are_not_known(store: Store) -> None:
    """The datasets may have been different ones."""
    runs = [at_rate(1, sequence_len=length) for length in (1, 2)]
    known = at_rate(1, sequence_len=3)
    for one in runs:
        log_losses(store, one, {9: 1.0})
        finish(store, StepKind.TRAIN, one.key)
    finish_run(store, known, {9: 5.0})
    rows = rows_of(store, [*runs, known])
    assert best_of(rows) == [known.key]
    assert next(iter(rows)) == known.key


def test_a_failure_says_its_class_its_message_and_its_log(store: Store) -> None:
    one = at_rate(1)
    finish(store, StepKind.TRAIN, one.key, OutcomeStatus.FAILED, reason=FailureReason.OOM, message="earlier")
    attempt = finish(store, StepKind.TRAIN, one.key, OutcomeStatus.FAILED, reason=FailureReason.NAN, message="loss")
    row = rows_of(store, [one])[one.key]
    assert (row.status, row.reason, row.message) == ("failed", "nan", "loss")
    assert (row.log, row.attempts) == (str(attempt.log), 2)


def test_a_run_whose_dataset_failed_is_blocked_and_says_why(store: Store) -> None:
    one = at_rate(1)
    attempt = finish(store, StepKind.PREPROCESS, one.data_key, OutcomeStatus.FAILED, message="no rows are left")
    row = rows_of(store, [one])[one.key]
    assert row.status == "blocked"
    assert row.message == f"its dataset {one.data_key} could not be prepared: no rows are left"
    assert row.log == str(attempt.log)


def test_a_run_that_no_worker_could_begin_says_why_until_it_is_requested_again(store: Store) -> None:
    """Its folder does not show it, but the ledger does."""
    one, other = at_rate(1), at_rate(1, sequence_len=9)
    ledger = Ledger(store, open_sweep(store, [one, other]).sweep)
    lost = Record(
        Event.FINISHED, status="lost", message="its worker ended before the step started", facts={"log": "warm.log"}
    )
    ledger.append(replace(lost, kind=StepKind.PREPROCESS, key=one.data_key))
    ledger.append(replace(lost, kind=StepKind.TRAIN, key=other.key))
    rows = {row.key: row for row in compare_sweep(store, ledger.folder.name)}
    assert (rows[one.key].status, rows[other.key].status) == ("blocked", "lost")
    assert (rows[one.key].reason, rows[other.key].reason) == (None, FailureReason.LOST)
    assert rows[one.key].message == f"its dataset {one.data_key} could not be prepared: {lost.message}"
    assert [row.log for row in rows.values()] == ["warm.log", "warm.log"]
    assert sweep_status(store, ledger.folder.name).counts == {"blocked": 1, "lost": 1}
    ledger.append(Record(Event.LAUNCHED))
    assert [row.status for row in compare_sweep(store, ledger.folder.name)] == ["pending", "pending"]


def test_a_run_that_was_cancelled_before_it_started_is_stopped_and_not_lost_or_blocked(store: Store) -> None:
    one = at_rate(1)
    ledger = Ledger(store, open_sweep(store, [one]).sweep)
    ended = Record(Event.FINISHED, StepKind.TRAIN, one.key, status="stopped", message="cancelled before it started")
    ledger.append(ended)
    ledger.append(replace(ended, kind=StepKind.PREPROCESS, key=one.data_key, status="lost", message="nothing works"))
    (row,) = compare_sweep(store, ledger.folder.name)
    assert (row.status, row.reason, row.message) == ("stopped", None, "cancelled before it started")
    assert sweep_status(store, ledger.folder.name).counts == {"stopped": 1}


def test_a_running_run_shows_how_far_it_is(store: Store) -> None:
    one = at_rate(1)
    with claim(store.folder(StepKind.TRAIN, one.key)):
        attempt = begin_attempt(store, StepKind.TRAIN, one.key)
        attempt.train_state.write_text('{"max_steps": 50}')
        log_losses(store, one, {10: 2.0})
        row = rows_of(store, [one])[one.key]
    assert (row.status, row.step, row.max_steps, row.final, row.seconds) == ("running", 10, 50, 2.0, None)


def test_a_run_without_evaluation_has_a_row_and_wins_nothing(store: Store) -> None:
    one = at_rate(1)
    finish_run(store, one, {})
    row = rows_of(store, [one])[one.key]
    assert (row.status, row.final, row.best, row.is_best) == ("succeeded", None, None, False)


def test_a_label_reads_as_on_the_command_line() -> None:
    assert label({"learning_rate": 1e-4, "lora_r": 8, "model": "/a/long/way/to/rows.jsonl"}) == (
        "learning_rate=0.0001 lora_r=8 model=to/rows.jsonl"
    )
    assert show_value(None) == ""
    assert show_value(False) == "False"


def test_runs_that_differ_in_too_much_are_shown_by_their_overrides() -> None:
    many = [{f"key_{number}": number >> place & 1 for number in range(40)} for place in range(6)]
    requested = [(f"base={base}.yml", f"learning_rate={rate}", "gpu=h100") for base in "abc" for rate in (0, 1)]
    assert shown_params(many, requested)[1] == {"learning_rate": "1", "base": "a.yml"}
    few = [{"lora_r": 8}, {"lora_r": 16}]
    assert shown_params(few, [("lora=r8",), ("lora=r16",)]) == few
    assert len(shown_params(many, [()] * 6)[0]) > 12, "words that distinguish nothing are no help"


def test_a_column_that_says_nothing_is_left_out_unless_it_alone_tells_two_runs_apart() -> None:
    quiet: list[dict[str, Any]] = [
        {"lora_r": 8, "load_in_4bit": None},
        {"lora_r": 16, "load_in_4bit": False},
        {"lora_r": 32},
    ]
    assert differing_params(quiet) == [{"lora_r": 8}, {"lora_r": 16}, {"lora_r": 32}]
    alone: list[dict[str, Any]] = [{"load_in_4bit": None}, {"load_in_4bit": False}]
    assert differing_params(alone) == alone


def test_a_label_has_no_key_that_a_run_does_not_set() -> None:
    assert label({"adapter": "lora", "load_in_4bit": None}) == "adapter=lora"
