"""A search on this machine, with workers that train nothing: which runs stop and go on, and in which order."""

from __future__ import annotations

import itertools
import os
import shutil
from dataclasses import dataclass, field, replace

import pytest

from modal_app.halving.choose import who_goes_on
from modal_app.halving.entries import FileEntries, entries_folder, go_of
from modal_app.halving.halve import ask
from modal_app.halving.snapshot import Reading, Snapshot, Why
from modal_app.store.layout import Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import Outcome, OutcomeStatus, StepKind, write_atomically
from runner.errors import SweepError
from runner.executors.local import LocalExecutor
from runner.executors.slots import Slots
from runner.executors.workers import WorkerExit
from runner.follow_up.stage_steps import failed_stages, with_stages
from runner.launch.rungs import put_terms, rungs_of, uneven_rows_note, with_rungs
from runner.request import SearchChoice
from runner.store.ledger import Event, Ledger, Record
from runner.types import Gpu, Plan, Run, StepId
from tests.runner.builders import finish, log_losses, plan, run
from tests.runner.executors.fakes import FakeWorkers

SEARCH = SearchChoice(rungs=(0.2, 0.6), audit=False)
LENGTH = 20
CONFIG = {"adapter": "lora", "max_steps": LENGTH, "val_set_size": 0.1}


@dataclass
class HalvedWorkers(FakeWorkers):
    """Each trains a run from its rung to the next one where it stops, in no time."""

    losses: dict[str, float] = field(default_factory=dict)
    trained: list[tuple[str, int]] = field(default_factory=list)
    """A run, and the rung that it has been trained to; 3 is its end."""

    def _end(self, step: StepId, status: OutcomeStatus) -> WorkerExit:
        alive = self._alive[step]
        rungs = alive.step.rungs
        if rungs is None or step[1] in self.endings:
            return super()._end(step, status)
        entries, (_, key) = FileEntries(entries_folder(self.store, rungs.search)), step
        earlier = [one.result for one in self.store.folder(*step).attempts() if one.result.exists()]
        reached = max((Outcome.from_json(one.read_text()).facts["rung"] for one in earlier), default=0)
        is_asked = not reached or go_of(reached, key) in entries.items()
        for rung in itertools.count(reached + is_asked):
            self.trained += [(key, rung)] if rung > reached else []
            if rung > len(rungs.fractions):
                exited, done = super()._end(step, OutcomeStatus.SUCCEEDED), self.store.folder(*step).done
                trained = {"step": LENGTH, "max_steps": LENGTH, "eval_fingerprint": "rows"}
                write_atomically(done, replace(Outcome.from_json(done.read_text()), facts=trained).to_json())
                return exited
            if not ask(entries, key, rung, Reading(self.losses[key], LENGTH, "rows")).goes_on:
                break
        assert alive.attempt is not None
        facts = {"search": rungs.search, "rung": rung, "step": rungs.steps(LENGTH)[rung - 1], "max_steps": LENGTH}
        outcome = Outcome(OutcomeStatus.AT_RUNG, alive.attempt.number, 0.0, 1.0, facts=facts)
        write_atomically(alive.attempt.result, outcome.to_json())
        self._alive.pop(step).held.close()
        return WorkerExit(step, 4, os.getpid())


def runs_of(count: int, stages: tuple[str, ...] = ("preprocess", "train")) -> list[Run]:
    made = [run(CONFIG | {"learning_rate": number + 1.0}) for number in range(count)]
    return [replace(one, experiment=replace(one.experiment, stages=stages)) for one in made]


def planned(store: Store, runs: list[Run], search: SearchChoice = SEARCH) -> Plan:
    return with_rungs(with_stages(plan(runs, store), store), search, store)


def execute(made: Plan, workers: HalvedWorkers) -> list[Record]:
    ledger = Ledger(workers.store, made.sweep)
    ledger.open(made, "axosweep -m")
    put_terms(made, workers.store)
    LocalExecutor(workers.store, workers, Slots(2), ledger, workers.store.root / "cards").execute(made, lambda: None)
    return ledger.records()


def entries_of(made: Plan, store: Store) -> FileEntries:
    rungs = rungs_of(made)
    assert rungs is not None
    return FileEntries(entries_folder(store, rungs.search))


def halved(store: Store, runs: list[Run]) -> tuple[Plan, HalvedWorkers, list[Record]]:
    """Each run is better than those before it, so that only the newest is among the best when it comes."""
    made = planned(store, runs)
    workers = HalvedWorkers(store, losses={one.key: 9.0 - number for number, one in enumerate(runs)})
    return made, workers, execute(made, workers)


def test_at_the_end_the_best_at_each_rung_have_gone_on_and_nothing_was_trained_twice(store: Store) -> None:
    made, workers, _ = halved(store, runs_of(9))
    snapshot = Snapshot.of(entries_of(made, store).items())
    for rung in (1, 2):
        assert who_goes_on(snapshot, rung).keys() <= snapshot.gone[rung].keys()
    assert len(snapshot.at(1)) == 9
    assert len(workers.trained) == len(set(workers.trained))
    phases = [observe(store, StepKind.TRAIN, one.run.key).phase for one in made.runs]
    assert phases.count(Phase.SUCCEEDED) == len(snapshot.gone[2])
    assert phases.count(Phase.AT_RUNG) == 9 - len(snapshot.gone[2])


def test_a_run_that_goes_on_starts_before_new_ones(store: Store) -> None:
    """The best ones come first, and stop, since one of three goes on."""
    runs = runs_of(9)
    made = planned(store, runs)
    records = execute(made, HalvedWorkers(store, losses={one.key: float(n) for n, one in enumerate(runs)}))
    promotions = [at for at, record in enumerate(records) if record.event is Event.PROMOTED]
    assert promotions
    assert records[promotions[0]].facts == {"rung": 1}
    for at in promotions:
        later = (one for one in records[at:] if one.event is Event.SUBMITTED)
        assert next(later).key == records[at].key


def test_the_same_line_starts_nothing_until_a_run_goes_on(store: Store) -> None:
    runs = runs_of(4)
    made, workers, _ = halved(store, runs)
    (finished,) = [one for one in runs if observe(store, StepKind.TRAIN, one.key).phase is Phase.SUCCEEDED]
    workers.started.clear()
    again = planned(store, runs)
    assert rungs_of(again) == rungs_of(made)
    execute(again, workers)
    assert workers.started == []
    last = next(one.key for one in runs if one is not finished)
    entries_of(made, store).put(go_of(1, last), {"why": Why.ASKED})
    execute(planned(store, runs), workers)
    assert [step.key for step in workers.started] == [last]


def test_a_launcher_that_was_killed_before_it_recorded_a_stop_records_it_when_launched_again(
    store: Store,
) -> None:
    runs = runs_of(4)
    made, workers, _ = halved(store, runs)
    entries = entries_of(made, store)
    stopped = {one.key for one in runs if observe(store, StepKind.TRAIN, one.key).phase is Phase.AT_RUNG}
    for path in (entries.folder / "stop").rglob("*.json"):
        path.unlink()
    workers.started.clear()
    execute(planned(store, runs), workers)
    assert set().union(*Snapshot.of(entries.items()).stopped.values()) == stopped
    assert workers.started == []


def test_runs_that_go_on_start_before_new_ones_when_the_line_is_launched_again(store: Store) -> None:
    runs = runs_of(4)
    made, workers, _ = halved(store, runs)
    stopped = next(one.key for one in runs if observe(store, StepKind.TRAIN, one.key).phase is Phase.AT_RUNG)
    order = [planned_run.run.key for planned_run in made.runs]
    new = order[0] if order[0] != stopped else order[1]
    shutil.rmtree(store.folder(StepKind.TRAIN, new).path)
    entries_of(made, store).put(go_of(1, stopped), {"why": Why.ASKED})
    workers.started.clear()
    execute(
        replace(again := planned(store, runs), runs=tuple(sorted(again.runs, key=lambda one: one.run.key != new))),
        workers,
    )
    assert [step.key for step in workers.started][:2] == [stopped, new]


def test_a_run_that_had_finished_before_is_compared_by_what_it_recorded(store: Store) -> None:
    runs = runs_of(4)
    log_losses(store, runs[0], {4: 0.5, 12: 0.4, LENGTH: 0.3})
    facts = {"step": LENGTH, "max_steps": LENGTH, "eval_fingerprint": "rows"}
    done = Outcome(OutcomeStatus.SUCCEEDED, 1, 0.0, 1.0, facts=facts)
    write_atomically(store.folder(StepKind.TRAIN, runs[0].key).done, done.to_json())
    made, _, _ = halved(store, runs)
    snapshot = Snapshot.of(entries_of(made, store).items())
    for rung in (1, 2):
        assert snapshot.gone[rung][runs[0].key] is Why.BEFORE
        assert who_goes_on(snapshot, rung)[runs[0].key] is Why.TOP


def test_what_follows_a_stopped_run_is_skipped_and_has_not_failed(store: Store) -> None:
    runs = runs_of(4, stages=("preprocess", "train", "merge"))
    made, workers, records = halved(store, runs)
    done = {one.key for one in runs if observe(store, StepKind.TRAIN, one.key).phase is Phase.SUCCEEDED}
    assert {step.run for step in workers.started if step.kind is StepKind.MERGE} == done
    skipped = [record for record in records if record.event is Event.SKIPPED and record.kind is StepKind.MERGE]
    assert len(skipped) == 4 - len(done)
    assert failed_stages(made, store) == {}


def test_a_run_that_fails_before_a_rung_holds_up_no_other(store: Store) -> None:
    runs = runs_of(2)
    made = planned(store, runs)
    workers = HalvedWorkers(store, {runs[0].key: OutcomeStatus.FAILED}, losses={runs[1].key: 1.0})
    execute(made, workers)
    assert observe(store, StepKind.TRAIN, runs[1].key).phase is Phase.SUCCEEDED


def test_a_wider_search_starts_a_stopped_run_only_if_it_goes_on(store: Store) -> None:
    """Its result at the rung is known from the search that has stopped it. The new runs are the worst ones."""
    runs = runs_of(6)
    before, workers, _ = halved(store, runs)
    said = Snapshot.of(entries_of(before, store).items())
    new = runs_of(8)[6:]
    workers.losses |= {one.key: 20.0 for one in new}
    wider = planned(store, [*runs, *new])
    assert {one.run.key: one.at_rung for one in wider.runs if one.at_rung} == {
        one.key: said.last_rung(one.key)
        for one in runs
        if observe(store, StepKind.TRAIN, one.key).phase is Phase.AT_RUNG
    }
    put_terms(wider, store)
    known = Snapshot.of(entries_of(wider, store).items())
    assert known.readings == said.readings
    workers.started.clear()
    execute(wider, workers)
    snapshot = Snapshot.of(entries_of(wider, store).items())
    gone_on = {run for rung in (1, 2) for run in known.stopped.get(rung, ()) if snapshot.has_gone(rung, run)}
    assert {step.key for step in workers.started if step.kind is StepKind.TRAIN} == gone_on | {one.key for one in new}
    assert len(workers.trained) == len(set(workers.trained))


def test_a_search_with_other_rungs_takes_what_is_known_at_the_same_step(store: Store) -> None:
    runs = runs_of(6)
    before, _, _ = halved(store, runs)
    said = Snapshot.of(entries_of(before, store).items())
    other = planned(store, runs, replace(SEARCH, rungs=(0.6, 0.8)))
    put_terms(other, store)
    known = Snapshot.of(entries_of(other, store).items())
    stopped = {run for run in said.at(2) if observe(store, StepKind.TRAIN, run).phase is Phase.AT_RUNG}
    assert known.stopped.get(1, frozenset()) == stopped
    assert {run: known.at(1)[run] for run in stopped} == {run: said.at(2)[run] for run in stopped}
    assert {one.run.key for one in other.runs if one.at_rung} == stopped, "who has stopped at step 4 comes to step 12"


def test_a_run_that_is_beyond_a_rung_without_a_known_loss_is_left_out_there_and_nowhere_else(store: Store) -> None:
    runs = runs_of(6)
    halved(store, runs)
    search = replace(SEARCH, rungs=(0.1, 0.2))  # its first rung is at step 2, where no run was compared
    for _ in range(2):
        other = planned(store, runs, search)
        put_terms(other, store)
    snapshot = Snapshot.of(entries_of(other, store).items())
    assert snapshot.stopped[2]
    assert {snapshot.out[run] for run in snapshot.stopped[2]} == {0}


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (lambda: runs_of(1), "a single run cannot be compared"),
        (lambda: runs_of(2, ("preprocess",)), "stages has no train"),
        (lambda: [run(CONFIG | {"val_set_size": rows}) for rows in (0, 0.1)], "nothing to compare by"),
        (lambda: [run(CONFIG | {"max_steps": steps}) for steps in (20, 30)], "max_steps=20 and 30"),
        (lambda: [run(CONFIG | {"max_steps": 2, "lora_r": rank}) for rank in (1, 2)], "too few steps for these rungs"),
        (
            lambda: [run({"val_set_size": 0.1, "num_epochs": 1}, gpu=Gpu("cpu", count)) for count in (1, 2)],
            "gradient_accumulation_steps x gpu.count=1 and 2",
        ),
        (lambda: [run(CONFIG | {"sequence_len": length}) for length in (64, 128)], "is unknown before"),
        (lambda: [run(CONFIG | {"sequence_len": n, "skip_prepare_dataset": True}) for n in (1, 2)], "of their own"),
        (lambda: [run(CONFIG | {"save_only_model": True, "lora_r": rank}) for rank in (1, 2)], "could not go on from"),
    ],
)
def test_runs_that_do_not_compare_are_refused_before_anything_starts(store: Store, runs: object, expected: str) -> None:
    assert callable(runs)
    with pytest.raises(SweepError, match=expected) as refusal:
        planned(store, runs())
    assert str(refusal.value).startswith("search.rungs=[0.2,0.6]: ")
    assert "\n" not in str(refusal.value)


def test_runs_with_equally_large_batches_compare(store: Store) -> None:
    batches = [{"micro_batch_size": micro, "gradient_accumulation_steps": 8 // micro} for micro in (2, 4)]
    runs = [run({"val_set_size": 0.1, "num_epochs": 1, **batch}) for batch in batches]
    assert rungs_of(planned(store, runs)) is not None


def test_of_runs_that_see_other_numbers_of_rows_by_the_same_step_the_plan_says_so(store: Store) -> None:
    made = planned(store, [run(CONFIG | {"micro_batch_size": size}) for size in (8, 32)])
    assert "a step has 8 to 32 rows (micro_batch_size x gradient_accumulation_steps x gpu.count)" in uneven_rows_note(
        made
    )
    even = [{"micro_batch_size": micro, "gradient_accumulation_steps": 8 // micro} for micro in (2, 4)]
    assert uneven_rows_note(planned(store, [run(CONFIG | batch) for batch in even])) == ""
    assert uneven_rows_note(plan([one.run for one in made.runs], store)) == "", "without rungs"


def test_runs_with_other_datasets_are_compared_if_these_hold_out_the_same_rows(store: Store) -> None:
    runs = [run(CONFIG | {"sequence_len": length}) for length in (64, 128)]
    for one in runs:
        finish(store, StepKind.PREPROCESS, one.data_key, manifest={"eval_fingerprint": "rows", "rows": 7})
    assert rungs_of(planned(store, runs)) is not None
    finish(store, StepKind.PREPROCESS, runs[0].data_key, manifest={"eval_fingerprint": "others", "rows": 7})
    with pytest.raises(SweepError, match="different held-out rows"):
        planned(store, runs)
