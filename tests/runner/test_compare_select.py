from dataclasses import replace
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import FailureReason, OutcomeStatus, StepKind
from runner.compare.ranking import rows_from
from runner.compare.select import conditions, in_order, select
from runner.compare.source import RunFacts, facts_of_sweep
from runner.errors import SweepError
from tests.runner.builders import finish, finish_run, log_losses, open_sweep, run

CONFIG: dict[str, Any] = {"bf16": True, "adapter": None, "datasets": [{"path": "/rows/a.jsonl"}]}
RUNS = [
    run({**CONFIG, "lora_r": rank, "learning_rate": rate}, overrides=[f"lora=r{rank}", f"learning_rate={rate}"])
    for rank in (8, 16)
    for rate in (1e-4, 2e-4)
]


@pytest.fixture
def facts(store: Store) -> list[RunFacts]:
    for place, one in enumerate(RUNS[:3]):
        finish_run(store, one, {0: 5.0, 9: 4.0 - place})
    finish(store, StepKind.TRAIN, RUNS[3].key, OutcomeStatus.FAILED, reason=FailureReason.OOM)
    return facts_of_sweep(store, open_sweep(store, RUNS).sweep)


def left(facts: list[RunFacts], *words: str) -> list[int]:
    keys = [one.key for one in RUNS]
    return [keys.index(one.key) for one in select(facts, conditions(words))]


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        (["lora_r=16"], [2, 3]),
        (["lora_r = 16"], [2, 3]),
        (["learning_rate > 1e-4", "status = failed"], [3]),
        (["learning_rate=1e-4"], [0, 2]),
        (["learning_rate=0.0001", "lora_r=8"], [0]),
        (["learning_rate>1e-4"], [1, 3]),
        (["learning_rate>=1e-4"], [0, 1, 2, 3]),
        (["lora_r!=8"], [2, 3]),
        (["lora=r8"], [0, 1]),
        (["status=failed"], [3]),
        (["status!=failed"], [0, 1, 2]),
        (["status=failed (oom)"], [3]),
        (["status!=failed (nan)"], [0, 1, 2, 3]),
        (["reason=oom"], [3]),
        (["bf16=true", "gpu.type=cpu", "datasets.0.path=a.jsonl"], [0, 1, 2, 3]),
        ([f"key={RUNS[1].key[:6]}"], [1]),
        (["sweep=sweep-"], [0, 1, 2, 3]),
        (["adapter=null"], [0, 1, 2, 3]),
        (["reason!=null"], [3]),
        (["why=null"], [0, 1, 2, 3]),
    ],
)
def test_conditions_choose_runs(facts: list[RunFacts], words: list[str], runs: list[int]) -> None:
    assert left(facts, *words) == runs


def test_a_key_that_looks_like_a_number_is_found_by_its_beginning(facts: list[RunFacts]) -> None:
    keys = ["145922764412", "1459e2764412", "14e922764412"]
    numbers = [replace(one, key=key) for one, key in zip(facts, keys, strict=False)]
    assert [one.key for one in select(numbers, conditions(["key=1459"]))] == keys[:2]
    assert [one.key for one in select(numbers, conditions(["key!=14592"]))] == keys[1:]


def test_a_key_that_no_run_has_is_refused_with_what_was_probably_meant(facts: list[RunFacts]) -> None:
    with pytest.raises(SweepError, match=r"--where lorar: no run here has that key\. Did you mean lora_r"):
        left(facts, "lorar=8")


def test_a_key_that_no_run_has_is_refused_with_the_form_and_the_existing_keys(facts: list[RunFacts]) -> None:
    with pytest.raises(
        SweepError, match=r"KEY=VALUE\. Keys: key, status, .*, learning_rate, lora, lora_r, or any"
    ) as printed:
        left(facts, "final<1.7")
    assert "bf16" not in str(printed.value)


def test_a_word_that_is_not_a_condition_is_refused_with_the_form_of_one(facts: list[RunFacts]) -> None:
    with pytest.raises(SweepError, match=r"--where lora_r: a condition is KEY=VALUE"):
        left(facts, "lora_r")


def test_when_no_run_is_left_the_existing_values_are_listed(facts: list[RunFacts]) -> None:
    with pytest.raises(SweepError, match=r"No run meets the conditions\. lora_r is 8, 16 here\."):
        left(facts, "lora_r=32")


def test_only_the_parameters_that_differ_among_the_chosen_are_shown(facts: list[RunFacts]) -> None:
    assert [row.params for row in rows_from(select(facts, conditions(["lora_r=8"])))] == [
        {"learning_rate": 2e-4},
        {"learning_rate": 1e-4},
    ]


@pytest.mark.parametrize(
    ("key", "reverse", "runs"),
    [
        ("final", False, [2, 1, 0, 3]),
        ("final", True, [0, 1, 2, 3]),
        ("eval_loss", False, [2, 1, 0, 3]),
        ("eval loss", True, [0, 1, 2, 3]),
        ("eval/loss", False, [2, 1, 0, 3]),
        ("learning_rate", False, [2, 0, 1, 3]),
        ("status", True, [2, 1, 0, 3]),
    ],
)
def test_rows_are_sorted_by_a_column_or_a_parameter_and_what_has_none_comes_last(
    store: Store, facts: list[RunFacts], key: str, reverse: bool, runs: list[int]
) -> None:
    finish(store, StepKind.PREPROCESS, RUNS[3].data_key, manifest={"eval_fingerprint": "rows"})
    rows = rows_from(facts)
    assert [row.key for row in in_order(rows, key, reverse=reverse)] == [RUNS[number].key for number in runs]


def test_an_unknown_column_is_refused_with_what_was_probably_meant(facts: list[RunFacts]) -> None:
    with pytest.raises(SweepError, match=r"--sort dolars: no such column\. Did you mean dollars"):
        in_order(rows_from(facts), "dolars", reverse=False)


def test_sorting_keeps_runs_of_other_held_out_rows_apart(store: Store) -> None:
    runs = [run({"sequence_len": length, "learning_rate": rate}) for length in (1, 2) for rate in (1, 2)]
    for one, held_out, loss in zip(runs, "aabb", (4.0, 3.0, 2.0, 1.0), strict=True):
        finish_run(store, one, {9: loss}, eval_fingerprint=held_out)
    log_losses(store, runs[0], {10: 5.0})
    rows = rows_from(facts_of_sweep(store, open_sweep(store, runs).sweep))
    ordered = in_order(rows, "learning_rate", reverse=True)
    assert [(row.eval_fingerprint, row.params["learning_rate"]) for row in ordered] == [
        ("a", 2), ("a", 1), ("b", 2), ("b", 1),
    ]  # fmt: skip
