"""What a plan will take and cost: from a store's records, at a table's rates."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from modal_app.cloud.meter import Card, ContainerRecord
from modal_app.halving.choose import is_audited
from modal_app.store.layout import SUBMISSION, Store
from modal_app.store.rungs import Rungs
from modal_app.store.step import Outcome, OutcomeStatus, StepKind, write_atomically
from runner.cost.prices import rates_from
from runner.cost.spent import money, planned_rates
from runner.cost.types import NOTHING, Length, Phases, Prediction, Range, Rows
from runner.estimate.plan import plan_cost
from runner.estimate.records import KnownRecords, read_past
from runner.estimate.rows import rows_before_preparing
from runner.estimate.types import THIS_MACHINE, PlanCost, Pool, RunCost
from runner.estimate.words import cost_lines, printed_cost, spread
from runner.types import (
    DatasetSize,
    ExecutorChoice,
    Experiment,
    Gpu,
    Input,
    InputKind,
    ModelFacts,
    Plan,
    PriceTable,
    Run,
)
from tests.runner.builders import finish, open_sweep, plan, run

TABLE = PriceTable("2026-09-20", "a page", {"h100": 0.001, "l4": 0.0002}, cpu=0.00001, memory=0.000001, volume=0.09)
TODAY = datetime.date(2026, 9, 21)
RATES = rates_from(TABLE, {}, TODAY)
TINY: dict[str, Any] = {"base_model": "tiny", "adapter": "lora", "micro_batch_size": 10, "num_epochs": 1,
                        "sequence_len": 100, "val_set_size": 0.1}  # fmt: skip
MANIFEST = {"rows": 1000, "eval_rows": 100, "tokens": 50_000, "longest_row": 100, "seconds": 4.0}
PHASES = {"load": 2.0, "first": 1.0, "train": 9.9, "eval": 2.0, "save": 1.0}
MODAL = ExecutorChoice("modal")


def finish_run(store: Store, one: Run, *, seconds: float = 16.0, **facts: Any) -> None:
    """A run of 100 steps with what its worker leaves."""
    open_sweep(store, [one])
    folder = store.folder(StepKind.TRAIN, one.key)
    requested = {"axolotl": dict(one.experiment.axolotl), "data_key": one.data_key,
             "gpu": {"type": one.experiment.gpu.type, "count": 1},
             "inputs": [{"at": it.at, "text": it.text, "identity": it.identity} for it in one.inputs]}  # fmt: skip
    write_atomically(folder.identity, json.dumps(requested))
    known = {"step": 100, "phases": PHASES, "cpu": PHASES, "resumed_from": 0, "early_stopped": False}
    outcome = Outcome(OutcomeStatus.SUCCEEDED, 1, 1000.0, 1000.0 + seconds, facts=known | facts)
    write_atomically(folder.done, outcome.to_json())
    finish(store, StepKind.PREPROCESS, one.data_key, manifest=MANIFEST)


def rent(store: Store, one: Run, seconds: float, card: str = "NVIDIA H100 80GB HBM3") -> None:
    folder = store.folder(StepKind.TRAIN, one.key).containers
    folder.mkdir(parents=True)
    record = ContainerRecord("task", "call", "train/x", 0.0, 1.0, 2.0, True, seconds, (1,),
                             (Card(card, None, None, None),), 0.125, 2.0, 0.125, 5.0)  # fmt: skip
    write_atomically(folder / "task.json", record.to_json())


def cost_of(planned: Plan, store: Store, most: int | None = 2, *, rented: bool = False) -> PlanCost:
    pools = {one.run.key: Pool("h100" if rented else THIS_MACHINE, most) for one in planned.pending}
    return plan_cost(planned, store, [store], RATES if rented else None, pools)


def mirror(store: Store) -> Store:
    (store.root / "modal" / "sweeps").mkdir(parents=True)
    return Store(store.root / "modal")


def test_a_sweep_on_this_machine_has_seconds_and_no_dollars(store: Store) -> None:
    finish_run(store, run(TINY | {"lora_r": 8}))
    more = [run(TINY | {"lora_r": 8, "max_steps": 200, "learning_rate": 0.001 * (number + 1)}) for number in range(3)]
    cost = cost_of(plan(more, store), store)
    expected = 3.1 + 199 * 0.1 + 2.0 + 1.0
    (first, *_) = cost.runs
    assert first.prediction is not None
    assert first.prediction.seconds.likely == pytest.approx(expected)
    assert cost.dollars is None
    assert cost.wall is not None
    assert cost.wall.high > 2 * expected  # two at a time, so one waits
    assert cost.at_a_time == 2
    lines = cost_lines(cost, {one.key: "a name" for one in cost.runs})
    assert not any("$" in line for line in lines)
    assert lines[0] == "cost    26 s (20 s to 32 s) a run; 200 steps (set by max_steps; prepared rows); from 1 record"


def test_with_rungs_a_plan_costs_from_what_the_fewest_runs_do_to_all_of_it(store: Store) -> None:
    finish_run(store, run(TINY))
    grid = plan([run(TINY | {"learning_rate": 0.001 * (number + 1)}) for number in range(12)], store)
    full = cost_of(grid, store, rented=True)
    rungs = Rungs("s/1", (0.2, 0.6), 3)
    halved = cost_of(
        replace(grid, runs=tuple(replace(one, step=replace(one.step, rungs=rungs)) for one in grid.runs)),
        store,
        rented=True,
    )
    assert (halved.dollars, halved.wall) == (full.dollars, full.wall), "the most: what a budget is compared with"
    audited = sum(is_audited(one.run.key) for one in grid.pending)
    done = 12 * 0.2 + (4 + 8 * audited / 12) * 0.4 + (1 + 8 * audited / 12 + 3 * audited / 12) * 0.4
    assert halved.least.steps == pytest.approx(done / 12)
    printed = printed_cost(halved).halved
    assert printed is not None
    assert printed.audited == audited
    assert printed_cost(full).halved is None
    longest = full.runs[0].prediction
    assert longest is not None
    assert printed.wall_seconds is not None
    assert printed.wall_seconds.likely >= longest.rented.likely, "a run goes to its end"
    line = cost_lines(halved, {one.key: "x" for one in halved.runs})[-1]
    assert printed.dollars is not None
    assert line.startswith(f"rungs   at least {spread(printed.dollars, money)}, ")
    assert f"{100 * done / 12:.0f} % of the steps: at 20 % and 60 % of the steps, the best 1 in 3 continues" in line


def test_with_rungs_each_run_pays_for_its_start_and_a_promoted_run_for_one_more() -> None:
    phases, nothing = Phases(start=30.0, train=38.0, eval=1.0, save=1.0), Range.exactly(0.0)
    took = Prediction(Range.exactly(70.0), phases, Range.exactly(30.0), nothing, nothing, "1 record")
    one = RunCost("a", Length(10, 1, nothing, 0, 0, 0.0, 0, "max_steps"), took, dollars=Range(0.5, 1.0, 2.0))
    halved = PlanCost((one,) * 9, NOTHING, NOTHING, None, 9, RATES, rungs=Rungs("s/1", (0.5,), 3))
    rest = 0.4 * (9 * 0.5 + 3 * 0.5)
    expected = Range(0.5 * (0.6 * 9 + rest), 0.6 * 12 + rest, 2.0 * (0.6 * 12 + rest))
    assert halved.least_dollars is not None
    assert asdict(halved.least_dollars) == pytest.approx(asdict(expected))
    line = cost_lines(halved, {"a": "x"})[-1]
    assert "stopping saves no dollars here" in line, "the second starts cost as much as the steps that are saved"
    assert "saves no dollars" not in cost_lines(replace(halved, rungs=Rungs("s/1", (0.1,), 3)), {"a": "x"})[-1]


@pytest.mark.parametrize(
    ("audited", "audit", "says"),
    [
        (0, True, " No run is audited, so the results will not show whether a stopped run would have been better"),
        (1, True, " 1 of the runs is audited: an audited run never stops"),
        (2, True, " 2 of the runs are audited: an audited run never stops"),
        (0, False, "when they reached the rung."),
    ],
)
def test_a_plan_with_rungs_names_how_many_runs_are_audited(audited: int, audit: bool, says: str) -> None:
    rungs = Rungs("s/1", (0.5,), 3, audit=audit)
    cost = PlanCost((RunCost("a"),) * 9, NOTHING, NOTHING, None, 1, None, rungs=rungs, audited=audited)
    assert cost_lines(cost, {"a": "x"})[-1].endswith(says)


def test_a_run_that_on_oom_has_to_halve_costs_what_the_smaller_batch_does_and_the_starts_before(store: Store) -> None:
    finish_run(store, run(TINY, gpu=Gpu("h100", 1), executor=MODAL))
    requested = run(TINY | {"max_steps": 9}, gpu=Gpu("h100", 1), executor=MODAL)
    smaller = {"micro_batch_size": 5, "gradient_accumulation_steps": 2}
    halved = run(TINY | {"max_steps": 9} | smaller, gpu=Gpu("h100", 1), executor=MODAL)
    (of_halved,) = cost_of(plan([halved], store), store, rented=True).runs
    cost = plan_cost(
        plan([requested], store), store, [store], RATES, {requested.key: Pool("h100", 2)}, {requested.key: 1}
    )
    (found,) = cost.runs
    assert found.prediction is not None
    assert of_halved.prediction is not None
    start = of_halved.prediction.phases.start
    assert start > 0
    assert found.prediction.seconds.likely == pytest.approx(of_halved.prediction.seconds.likely + start)
    assert found.prediction.booting.likely == 2 * of_halved.prediction.booting.likely > 0
    assert (
        " a run with micro_batch_size=5, after the tries that are out of memory; "
        in cost_lines(cost, {requested.key: "x"})[0]
    )


def test_runs_that_are_done_cost_nothing_and_nothing_is_said(store: Store) -> None:
    done = run(TINY)
    finish_run(store, done)
    cost = cost_of(plan([done], store), store)
    assert cost.runs == ()
    assert cost_lines(cost, {}) == []


def test_without_a_record_a_cpu_is_unknown_and_says_why(store: Store) -> None:
    one = run({**TINY, "max_steps": 5})
    cost = cost_of(plan([one], store), store)
    (line,) = cost_lines(cost, {one.key: "x"})
    assert line.startswith("cost    unknown: 5 steps")
    assert "no similar run was trained on this CPU yet" in line
    assert cost.wall is None


def test_a_copy_in_the_store_is_the_model_that_it_is_a_copy_of(store: Store) -> None:
    def reads(path: str, content: str, **changes: Any) -> Run:
        model = Input("base_model", path, InputKind.FOLDER, content * 64)
        return run(TINY | {"base_model": path, "max_steps": 100} | changes, inputs=[model])

    finish_run(store, reads("/models/tiny", "a"))
    copy = str(store.inputs / ("a" * 16))
    finish_run(store, reads(copy, "a", seed=2))
    finish_run(store, reads("/models/other", "b"))
    expected = [
        (reads(copy, "a", seed=3), "2 records"),
        (reads("/elsewhere", "a", seed=4), "2 records"),
        (reads("/models/tiny", "b", seed=5), "1 record"),
        (reads("/models/tiny", "c", seed=5), "2 records"),  # trained further, and as fast as before
        (reads("/elsewhere", "c", seed=6), ""),
    ]
    cost = cost_of(plan([one for one, _ in expected], store), store)
    found = {one.key: one.prediction.basis if one.prediction else "" for one in cost.runs}
    assert found == {one.key: basis for one, basis in expected}


def test_a_rented_run_is_its_boot_and_seconds_at_the_rates_of_its_card_cores_and_memory(store: Store) -> None:
    there = mirror(store)
    gpu = Gpu("h100", 1)
    done, new = (run(TINY | {"seed": seed}, gpu=gpu, executor=MODAL) for seed in (1, 2))
    finish_run(there, done)
    rent(there, done, seconds=46.0)
    finish(there, StepKind.PREPROCESS, new.data_key, manifest=MANIFEST)
    cost = cost_of(plan([new], there), there, rented=True)
    (one,) = cost.runs
    assert one.dollars is not None
    assert one.dollars.likely == pytest.approx((30.0 + 16.0) * (0.001 + 2.0 * 0.00001 + 16.0 * 0.000001), rel=1e-3)
    assert cost.preparing == Range.exactly(0.0)
    assert cost.dollars == one.dollars
    rented = printed_cost(cost).runs[0].rented_seconds
    assert rented is not None
    assert rented.likely == pytest.approx(46.0, rel=0.01)
    assert any("rates: table of 2026-09-20" in line for line in cost_lines(cost, {new.key: "x"}))


def test_a_dataset_that_will_be_prepared_is_part_of_the_total(store: Store) -> None:
    there = mirror(store)
    done, new = (run(TINY | {"seed": seed}, gpu=Gpu("h100", 1), executor=MODAL) for seed in (1, 2))
    finish_run(there, done)
    cost = cost_of(plan([replace_steps(new)], there), there, rented=True)
    assert cost.dollars is not None
    assert cost.preparing is not None
    assert cost.preparing.likely > 0
    assert cost.runs[0].dollars is not None
    assert cost.dollars.likely == pytest.approx(cost.preparing.likely + cost.runs[0].dollars.likely)


def replace_steps(one: Run) -> Run:
    return run({**one.experiment.axolotl, "max_steps": 10}, gpu=one.experiment.gpu, executor=MODAL)


def test_the_card_that_it_really_had_is_what_its_speed_is_of(store: Store) -> None:
    there = mirror(store)
    done = run(TINY, gpu=Gpu("h100", 1), executor=MODAL)
    finish_run(there, done)
    rent(there, done, 40.0, card="NVIDIA H200")
    assert [one.shape.gpu for one in read_past([there]).runs] == ["h200"]


@pytest.mark.parametrize("facts", [{"resumed_from": 50}, {"early_stopped": True}, {"step": 0}, {"phases": None}])
def test_an_incomplete_run_gives_no_speed(store: Store, facts: dict[str, Any]) -> None:
    finish_run(store, run(TINY), **facts)
    assert read_past([store]).runs == ()


def test_a_run_that_cannot_be_read_tells_no_speed(store: Store) -> None:
    (store.runs / "unreadable" / "result.json").mkdir(parents=True)
    assert read_past([store]).runs == ()


def test_a_dataset_cut_shorter_is_as_long_in_its_rows_as_before(store: Store, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "x", "instruction": "x", "output": "y"}\n' * 1100)
    whole = TINY | {"datasets": [{"path": str(rows), "type": "alpaca"}]}
    (first,) = cost_of(plan([run(whole)], store), store).runs  # never prepared: four characters a token
    assert first.length is not None
    assert (first.length.steps, first.length.micro_tokens.low) == (99, 10 * 49 / 4)
    finish_run(store, run(whole))
    half = run(TINY | {"datasets": [{"path": str(rows), "type": "alpaca", "split": "train[:550]"}]})
    (one,) = cost_of(plan([half], store), store).runs
    assert one.length is not None
    assert (one.length.steps, one.length.source) == (50, "rows counted in the file")
    assert one.length.micro_tokens == read_past([store]).runs[0].length.micro_tokens


@pytest.mark.parametrize(
    ("part", "rows"),
    [
        ({}, 1000),
        ({"split": "train[:10%]"}, 100),
        ({"split": "train[100:300]"}, 200),
        ({"shards": 4}, 250),
        ({"weight": 0.1}, 100),
        ({"type": "completion"}, 2000),  # a row of 200 tokens becomes two of at most 100
        ({"data_files": "a.jsonl"}, None),
    ],
)
def test_a_part_of_a_declared_dataset_is_priced_as_that_part(part: dict[str, Any], rows: int | None) -> None:
    datasets = [{"path": "owner/rows", "type": "alpaca", **part}]
    requested = run(TINY | {"datasets": datasets, "val_set_size": 0}).experiment
    found = rows_before_preparing(replace(requested, sizes={"owner/rows": DatasetSize(1000, 200.0)}), KnownRecords())
    assert (found and found.rows) == rows


def test_files_and_declared_datasets_add_up(tmp_path: Path) -> None:
    rows, tests = tmp_path / "rows.jsonl", tmp_path / "tests.jsonl"
    rows.write_text('{"instruction": "xxxxx", "output": "y"}\n' * 500)
    tests.write_text('{"instruction": "xxxxx", "output": "y"}\n' * 30)
    config = {"datasets": [{"path": str(rows), "type": "alpaca"}, {"path": "owner/rows", "type": "alpaca"}]}
    sizes = {"owner/rows": DatasetSize(1500, 50.0)}
    held_out = rows_before_preparing(replace(run(TINY | config).experiment, sizes=sizes), KnownRecords())
    assert held_out == Rows(1800, 200, (500 * 10 + 1500 * 50) / 2000, None, "rows as conf/dataset declares them")
    tested = {"test_datasets": [{"path": str(tests), "type": "alpaca"}], "val_set_size": 0}
    found = rows_before_preparing(replace(run(TINY | config | tested).experiment, sizes=sizes), KnownRecords())
    assert found is not None
    assert (found.rows, found.eval_rows) == (2000, 30)


def test_a_declared_size_tells_the_steps_and_is_said_to(store: Store) -> None:
    config = {**TINY, "base_model": "model", "datasets": [{"path": "owner/rows", "split": "train[:500]"}]}
    facts = ModelFacts("model", 8_000_000_000, 32, 4096, 32, 8, 128, 14336, 128256, False, 8192, "here")
    requested: Experiment = run(config, gpu=Gpu("h100", 1), executor=MODAL).experiment
    sized = replace(requested, sizes={"owner/rows": DatasetSize(1000, 50.0)}, model=facts)
    there = mirror(store)
    one = replace(run(config, gpu=Gpu("h100", 1), executor=MODAL), experiment=sized)
    cost = cost_of(plan([one], there), there, rented=True)
    assert cost.runs[0].length is not None
    assert (cost.runs[0].length.steps, cost.runs[0].length.evals) == (45, 2)
    (line, *_) = cost_lines(cost, {one.key: "x"})
    assert "45 steps (rows as conf/dataset declares them); from a published speed (QwenLM/Qwen's README)" in line
    unsized = replace(one, experiment=replace(sized, sizes={}))
    cost = cost_of(plan([unsized], there), there, rented=True)
    assert "is unknown until its dataset is prepared" in cost.runs[0].reason
    assert cost.dollars is None


def test_where_checkpoints_are_most_of_the_price_the_line_says_so_and_what_fewer_would_cost(store: Store) -> None:
    there, gpu = mirror(store), Gpu("h100", 1)
    facts = ModelFacts("model", 8_000_000_000, 32, 4096, 32, 8, 128, 14336, 128256, False, 8192, "here")

    def priced(**changes: Any) -> tuple[str, RunCost]:
        config = {**TINY, "base_model": "model", "adapter": None, "max_steps": 40, **changes}
        requested = run(config, gpu=gpu, executor=MODAL)
        one = replace(requested, experiment=replace(requested.experiment, model=facts))
        cost = cost_of(plan([one], there), there, rented=True)
        (printed,) = printed_cost(cost).runs
        assert printed.phases is not None
        assert printed.seconds is not None
        assert sum(asdict(printed.phases).values()) == pytest.approx(printed.seconds.likely)
        return cost_lines(cost, {one.key: "x"})[0], cost.runs[0]

    line, many = priced(saves_per_epoch=8)
    once, few = priced(saves_per_epoch=1)
    assert "; spent on: saving 88%" in line
    assert many.fewer_saves is not None
    assert few.dollars is not None
    assert many.fewer_saves.dollars == pytest.approx(few.dollars.likely)
    assert line.endswith(f"(9 saves; with one an epoch about {money(few.dollars.likely)}: saves_per_epoch=1)")
    assert "; spent on: saving" in once
    assert few.fewer_saves is None
    assert priced(save_steps=5)[0].endswith("saves_per_epoch=1 '~save_steps'; the second word leaves save_steps out)")
    assert "spent on" not in priced(adapter="lora", max_steps=100_000)[0]


def test_a_fallback_that_is_dearer_raises_the_upper_end(store: Store) -> None:
    there = mirror(store)
    done, alone, either = (
        run(TINY | {"seed": seed}, gpu=Gpu("l4", 1, fallback), executor=MODAL)
        for seed, fallback in ((1, ()), (2, ()), (3, ("h100",)))
    )
    finish_run(there, done)
    costs = [cost_of(plan([replace_gpu(one)], there), there, rented=True).runs[0].dollars for one in (alone, either)]
    assert costs[0] is not None
    assert costs[1] is not None
    assert costs[1].likely == pytest.approx(costs[0].likely)
    assert costs[1].high > 3 * costs[0].high


def replace_gpu(one: Run) -> Run:
    return run({**one.experiment.axolotl, "max_steps": 100}, gpu=one.experiment.gpu, executor=MODAL)


def test_a_plan_takes_the_rates_that_modal_said_last_unless_they_are_old_or_others_are_given(store: Store) -> None:
    path = store.sweeps / "before" / SUBMISSION
    path.parent.mkdir(parents=True)
    said = rates_from(TABLE, {"gpu_hour_cost_h100": 7.2, "gpu_hour_cost_b200": 10.8}, TODAY)
    path.write_text(json.dumps({"rates": said.as_json()}))
    assert planned_rates(store, TABLE, TODAY).of("h100") == 0.002
    assert planned_rates(store, TABLE, TODAY).of("l4") == 0.0002
    assert planned_rates(store, TABLE, TODAY).of("b200") == 0.003, "the table need not have each card"
    assert planned_rates(store, TABLE, TODAY + datetime.timedelta(days=91)).of("h100") == 0.001
    assert planned_rates(store, replace(TABLE, given=("gpu.h100",)), TODAY).of("h100") == 0.001
