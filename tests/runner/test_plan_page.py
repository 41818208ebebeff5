"""What a plan says about its datasets and models, and the command that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.launch.plan_inputs import HubModel, RunCounts, command, counts, lines, models
from runner.launch.printed_plan import datasets_of
from runner.types import ExecutorChoice, Input, InputKind
from tests.runner.builders import finish, finish_run, plan, run

COMMIT = "c" * 40
ASKED = ["-m", "learning_rate=1e-3,2e-3", "action=plan"]


def test_runs_are_counted_by_what_becomes_of_them(store: Store) -> None:
    done, new = run({"learning_rate": 1e-3}), run({"learning_rate": 2e-3})
    finish_run(store, done, {0: 2.0, 5: 1.0})
    assert counts(plan([done, new, new, done], store)) == RunCounts(new=1, finished=1, duplicates=2)


def test_a_dataset_is_ready_with_its_rows_or_not_prepared_yet(store: Store) -> None:
    short, long = run({"sequence_len": 8}), run({"sequence_len": 16})
    finish(store, StepKind.PREPROCESS, short.data_key, manifest={"rows": 90, "eval_rows": 10})
    said = lines(plan([short, long], store), store, ASKED)
    assert f"data {short.data_key}: ready (90 rows, 10 held out), for 1 run" in said
    assert f"data {long.data_key}: to be tokenized, for 1 run" in said
    assert [(one.done, one.rows) for one in datasets_of(plan([short, long], store), store)] == [
        (True, 90),
        (False, None),
    ]


@pytest.mark.parametrize(
    ("executor", "cached", "says", "fetched"),
    [
        ("local", True, "in this machine's hub cache", True),
        ("local", False, "to be fetched from the hub", False),
        ("modal", True, "fetched from the hub once, before any GPU is rented", None),
    ],
)
def test_a_model_of_the_hub_is_there_or_to_be_fetched(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    executor: str,
    cached: bool,
    says: str,
    fetched: bool | None,
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--owner--model" / "snapshots" / ("d" * 40)).mkdir(parents=True)  # another commit is no help
    if cached:
        (tmp_path / "models--owner--model" / "snapshots" / COMMIT).mkdir(parents=True)
    inputs = [
        Input("base_model", "owner/model", InputKind.HUB, COMMIT),
        Input("datasets.0.path", "owner/rows", InputKind.HUB, COMMIT),
    ]
    config = {"base_model": "owner/model", "datasets": [{"path": "owner/rows"}]}
    runs = [run(config | {"seed": seed}, inputs=inputs, executor=ExecutorChoice(executor)) for seed in (1, 2)]
    planned = plan(runs, store)
    assert [line for line in lines(planned, store, ASKED) if line.startswith("model")] == [f"model owner/model: {says}"]
    assert models(planned) == [HubModel("owner/model", COMMIT, fetched)]


def test_the_command_runs_what_was_planned(store: Store) -> None:
    assert command([*ASKED, "json=true"]) == "axosweep -m learning_rate=1e-3,2e-3"
    one = run({"learning_rate": 1e-3})
    assert lines(plan([one], store), store, ASKED)[-1] == "Run it: axosweep -m learning_rate=1e-3,2e-3"
    finish_run(store, one, {0: 1.0})
    assert not any(line.startswith("Run it") for line in lines(plan([one], store), store, ASKED)), "nothing is left"
