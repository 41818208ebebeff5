from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal_app.store.rungs import Rungs
from modal_app.store.step import Device, StepKind
from runner.launch.plan import make_plan, sweep_id
from runner.types import DataChoice, Gpu, Input, InputKind, TrackingChoice
from tests.runner.builders import run

ONE = run({"learning_rate": 1e-3}, overrides=["learning_rate=1e-3"])
TWO = run({"learning_rate": 2e-3}, overrides=["learning_rate=2e-3"])
LONG = run({"learning_rate": 1e-3, "sequence_len": 512})


def nothing_done(kind: StepKind, key: str) -> bool:
    return False


def test_a_run_requested_twice_is_planned_once_and_the_copies_are_counted() -> None:
    plan = make_plan([ONE, TWO, ONE, ONE], "s", nothing_done)
    assert [(one.run.key, one.copies) for one in plan.runs] == [(ONE.key, 3), (TWO.key, 1)]


def test_a_run_requested_twice_keeps_the_words_of_the_first_request() -> None:
    again = run({"learning_rate": 1e-3}, overrides=["learning_rate=0.001"])
    (planned,) = make_plan([ONE, again], "s", nothing_done).runs
    assert planned.step.tracking.name == "learning_rate=1e-3"


def test_runs_that_read_the_same_rows_share_one_dataset() -> None:
    plan = make_plan([ONE, TWO, LONG], "s", nothing_done)
    assert [dataset.runs for dataset in plan.datasets] == [(ONE.key, TWO.key), (LONG.key,)]
    assert [dataset.step.key for dataset in plan.datasets] == [ONE.data_key, LONG.data_key]


def test_finished_runs_are_done_and_the_rest_is_pending() -> None:
    plan = make_plan([ONE, TWO], "s", lambda kind, key: (kind, key) == (StepKind.TRAIN, ONE.key))
    assert [one.run.key for one in plan.pending] == [TWO.key]
    assert [dataset.done for dataset in plan.datasets] == [False]


def test_runs_that_stop_at_rungs_start_in_the_order_of_their_keys_and_others_as_they_are_written() -> None:
    runs = sorted([ONE, TWO, LONG], key=lambda one: one.key, reverse=True)
    plan = make_plan(runs, "s", nothing_done)
    assert [one.run for one in plan.pending] == runs

    halved = [replace(one, step=replace(one.step, rungs=Rungs("s/1", (0.2,), 3))) for one in plan.runs]
    assert [one.run for one in replace(plan, runs=tuple(halved)).pending] == runs[::-1]


def test_a_prepared_dataset_is_done() -> None:
    plan = make_plan([ONE, LONG], "s", lambda kind, key: (kind, key) == (StepKind.PREPROCESS, ONE.data_key))
    assert [dataset.done for dataset in plan.datasets] == [True, False]
    assert len(plan.pending) == 2


@given(st.permutations([ONE.key, TWO.key, LONG.key]))
def test_the_same_question_in_any_order_is_the_same_sweep(keys: list[str]) -> None:
    assert sweep_id("rates", keys) == sweep_id("rates", [ONE.key, TWO.key, LONG.key])


def test_duplicates_and_finished_runs_do_not_change_the_sweep() -> None:
    sweeps = {
        make_plan([ONE, TWO], "s", nothing_done).sweep,
        make_plan([TWO, ONE, TWO], "s", nothing_done).sweep,
        make_plan([ONE, TWO], "s", lambda kind, key: True).sweep,
    }
    assert len(sweeps) == 1


def test_another_name_or_another_run_is_another_sweep() -> None:
    assert len({sweep_id("a", ["1"]), sweep_id("b", ["1"]), sweep_id("a", ["2"]), sweep_id("a", ["1", "2"])}) == 4


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("rates", "rates"),
        ("a" * 59 + "-b", "a" * 59),
        ("a" * 60, "a" * 60),
        ("a" * 60 + "-b", "a" * 60),
        ("a" * 61, "a" * 60),
        ("gradient_accumulation_steps-learning_rate-lora_target_modules", "gradient_accumulation_steps-learning_rate"),
    ],
)
def test_a_long_name_is_cut_after_a_word(name: str, slug: str) -> None:
    assert sweep_id(name, ["key"]).rpartition("-")[0] == slug


@given(st.text())
def test_a_sweep_is_named_by_what_is_safe_in_a_path(name: str) -> None:
    sweep = sweep_id(name, ["key"])
    assert sweep.isascii()
    assert not set(sweep) & set("/\\ \n'\"*?[]")
    assert not sweep.startswith((".", "-"))
    assert len(sweep) <= 70


def test_a_train_step_says_all_that_a_worker_needs() -> None:
    requested = run(
        {"base_model": "owner/model"},
        gpu=Gpu("a100_80gb", 4),
        tracking=TrackingChoice("online", "project", "team", ("tag",)),
        overrides=["lora=r8", "gpu=a100_80gb"],
    )
    (planned,) = make_plan([requested], "s", nothing_done).runs
    step = planned.step
    assert (step.kind, step.key, step.data_key) == (StepKind.TRAIN, requested.key, requested.data_key)
    assert (step.processes, step.device, step.base_model) == (4, Device.CUDA, "owner/model")
    assert (step.tracking.group, step.tracking.name) == (step.sweep, "lora=r8 gpu=a100_80gb")
    assert (step.tracking.mode, step.tracking.project, step.tracking.entity) == ("online", "project", "team")


def test_a_preprocess_step_is_the_same_for_every_run_that_reads_it() -> None:
    seeds = [run({"seed": seed}, data=DataChoice(seed=1), gpu=Gpu("h100", 8)) for seed in (1, 2)]
    one, other = (make_plan([requested], "s", nothing_done).datasets[0].step for requested in seeds)
    assert one.config == other.config == {"seed": 1}
    assert (one.processes, one.device) == (1, Device.CPU)


@pytest.mark.parametrize("identity", [None, "a" * 40])
def test_unresolved_inputs_are_listed_once(identity: str | None) -> None:
    found = Input("base_model", "owner/model", InputKind.HUB, identity, "" if identity else "no answer")
    runs = [run({"base_model": "owner/model", "learning_rate": rate}, inputs=[found]) for rate in (1, 2)]
    assert make_plan(runs, "s", nothing_done).unresolved == (() if identity else (found,))
