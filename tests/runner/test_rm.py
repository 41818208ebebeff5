"""`axosweep rm` in a store on this machine: what is removed, and that what another run needs stays."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, replace

import pytest

from modal_app.halving.entries import go_of
from modal_app.store.claim import claim, this_process
from modal_app.store.layout import Store
from modal_app.store.state import Phase
from modal_app.store.step import OutcomeStatus, StepKind, write_atomically
from runner.files import local_removal
from runner.files.local_removal import remove_here
from runner.files.removal_plan import Choice, ToDelete, runs_to_remove
from runner.files.run_files import LocalFiles
from runner.files.stock import take_stock
from runner.launch.plan import make_plan
from runner.store.ledger import Event, Ledger, Record
from runner.store.served import noted
from tests.runner.builders import finish, run
from tests.runner.halved_store import entries_of, halved_sweep
from tests.runner.removing_store import Command, answering, asked_after, asked_for, kept_input, keys, phase, trained
from tests.runner.run_files_store import make_files, merge


def test_a_removed_run_is_gone_but_for_the_question(store: Store, command: Command) -> None:
    sweep, (one, other) = trained(store, 0.1, 0.2)
    merge(store, one, "abc")
    store.folder(StepKind.TRAIN, one.key).latest.symlink_to("attempt-1")
    size = sum(path.stat().st_size for path in store.folder(StepKind.TRAIN, one.key).path.rglob("*") if path.is_file())
    requested = store.folder(StepKind.TRAIN, one.key).identity.read_text()
    printed = command("rm", one.key, "--yes", "--json")
    assert keys(printed) == {one.key}
    assert size - 1000 < printed["freed"] <= size
    home = store.folder(StepKind.TRAIN, one.key)
    assert {path.name for path in home.path.iterdir()} == {"run.json", "removed.json", "lock"}
    assert home.identity.read_text() == requested
    assert phase(store, other) is Phase.SUCCEEDED
    rows = {row["key"]: row for row in command("compare", sweep, "--json")["runs"]}
    assert (rows[one.key]["status"], rows[other.key]["status"]) == ("removed", "succeeded")
    assert rows[one.key]["params"], "the request is still known"
    assert command("status", "--json")["sweeps"][0]["counts"] == {"succeeded": 1, "removed": 1}
    assert not keys(command("rm", one.key, "--yes", "--json")), "a second time there is nothing"
    assert "was removed, and its log with it" in command("logs", one.key, code=2)


def test_a_removed_run_is_trained_again_when_it_is_requested(store: Store, command: Command) -> None:
    _, (one,) = trained(store, 0.1)
    command("rm", one.key, "--yes")
    plan = make_plan([one], "again", lambda kind, key: store.folder(kind, key).done.exists())
    assert [planned.run.key for planned in plan.pending] == [one.key]
    finish(store, StepKind.TRAIN, one.key)
    assert phase(store, one) is Phase.SUCCEEDED
    assert command("status", "--json")["sweeps"][0]["counts"] == {"succeeded": 1}


def test_without_a_terminal_or_yes_nothing_is_removed(store: Store, command: Command) -> None:
    _, (one,) = trained(store, 0.1)
    kept_input(store, "a" * 16)
    for words in (["rm", one.key], ["gc"]):
        assert "--yes" in command(*words, code=2)
        assert "would be freed" in command(*words, "--dry-run")
    assert phase(store, one) is Phase.SUCCEEDED
    assert (store.inputs / ("a" * 16)).exists()


def test_a_sweep_gives_up_the_runs_that_no_other_sweep_has(store: Store, command: Command) -> None:
    first, (one, shared) = trained(store, 0.1, 0.2, name="first")
    second, _ = trained(store, 0.2, 0.3, name="second")
    printed = command("rm", first, "--yes", "--json")
    assert keys(printed) == {one.key}
    assert printed["kept"] == [{"key": shared.key, "why": f"{second} has it, too"}]
    assert phase(store, shared) is Phase.SUCCEEDED
    assert keys(command("rm", first, second, "--yes", "--json")) == {shared.key, trained_key(0.3)}


def test_the_runs_of_a_sweep_stay_while_a_plan_that_may_have_them_cannot_be_read(
    store: Store, command: Command
) -> None:
    first, (one,) = trained(store, 0.1, name="first")
    second, _ = trained(store, 0.1, name="second")
    (store.sweeps / second / "plan.json").write_text("{")
    printed = command("rm", first, "--yes", "--json")
    why = f"sweeps/{second}/plan.json cannot be read, and may have it, too"
    assert printed["kept"] == [{"key": one.key, "why": why}]
    assert phase(store, one) is Phase.SUCCEEDED
    assert keys(command("rm", one.key, "--yes", "--json")) == {one.key}


def trained_key(rate: float) -> str:
    return run({"learning_rate": rate, "base_model": "tiny"}).key


def test_a_run_named_itself_goes_though_two_sweeps_have_it(store: Store, command: Command) -> None:
    trained(store, 0.1, 0.2, name="first")
    _, (shared, _) = trained(store, 0.2, 0.3, name="second")
    printed = command("rm", shared.key, "--yes", "--json")
    assert keys(printed) == {shared.key}
    assert printed["to_delete"][0]["note"] == "of 2 sweeps"


def test_a_run_that_a_process_works_on_is_not_removed(store: Store, command: Command) -> None:
    sweep, (one, other) = trained(store, 0.1, 0.2)
    with claim(store.folder(StepKind.TRAIN, one.key)):
        printed = command("rm", one.key, "--yes", code=2)
        assert f"axosweep cancel {one.key}" in printed
        printed = command("rm", sweep, "--yes", "--json")
    assert keys(printed) == {other.key}
    assert keys(printed, "kept") == {one.key}
    assert phase(store, one) is Phase.SUCCEEDED


def test_a_run_that_is_merged_just_now_is_not_removed(store: Store, command: Command) -> None:
    _, (one,) = trained(store, 0.1)
    with claim(merge(store, one, "abc")):
        assert "works on it" in command("rm", one.key, "--yes", code=2)
    assert phase(store, one) is Phase.SUCCEEDED


def test_a_run_that_is_served_is_not_removed_and_the_refusal_is_one_line_with_the_way_out(
    store: Store, command: Command
) -> None:
    sweep, (one, other) = trained(store, 0.1, 0.2)
    with noted(store, [one.key]):
        printed = command("rm", one.key, "--yes", code=2)
        assert f"{one.key} has to stay: process {os.getpid()} serves it" in printed
        assert f"Ctrl-C there, or kill {os.getpid()}, stops it" in printed
        assert printed.count("\n") == 1
        printed = command("rm", sweep, "--yes", "--json")
    assert (keys(printed), keys(printed, "kept")) == ({other.key}, {one.key})
    assert keys(command("rm", one.key, "--yes", "--json")) == {one.key}, "its server has ended"


def test_a_server_that_was_killed_keeps_nothing_and_the_next_clears_its_note(store: Store, command: Command) -> None:
    _, (one, other) = trained(store, 0.1, 0.2)
    dead = replace(this_process(""), start_time=1)
    note = store.root / "served" / "1234-abcd.json"
    note.parent.mkdir()
    note.write_text(json.dumps({"owner": asdict(dead), "runs": [one.key]}))
    assert keys(command("rm", one.key, "--yes", "--json")) == {one.key}
    with noted(store, [other.key]):
        assert not note.exists()
    assert not list(note.parent.iterdir())


def test_what_is_begun_between_the_question_and_the_answer_is_spared(store: Store) -> None:
    _, (one,) = trained(store, 0.1)
    stock = take_stock(LocalFiles(store))
    removal = runs_to_remove(stock, Choice(every=True), lambda key: "")
    with claim(store.folder(StepKind.TRAIN, one.key)):
        done = remove_here(store, removal)
    assert not done.to_delete
    assert [kept.key for kept in done.kept] == [one.key]
    assert phase(store, one) is Phase.SUCCEEDED


def test_a_run_that_a_live_launch_has_not_come_to_yet_is_not_removed(store: Store, command: Command) -> None:
    sweep, (one, other) = trained(store, 0.1, 0.2)
    store.folder(StepKind.TRAIN, one.key).done.unlink()
    record = Record(Event.LAUNCHED, facts={"launcher": asdict(this_process(sweep))})
    Ledger(store, sweep).append(record)
    printed = command("rm", sweep, "--dry-run", "--json")
    assert (keys(printed), keys(printed, "kept")) == ({other.key}, {one.key})


def test_a_run_that_another_was_started_from_stays_as_long_as_that_does(store: Store, command: Command) -> None:
    _, (parent, child) = trained(store, 0.1, 0.2)
    identity = store.folder(StepKind.TRAIN, child.key).identity
    write_atomically(identity, json.dumps(json.loads(identity.read_text()) | {"from": {"run": parent.key, "step": 20}}))
    assert f"{child.key} was started from it" in command("rm", parent.key, "--yes", code=2)
    assert f"{child.key} was started from it" in command("rm", parent.key, "--checkpoints", "--yes", code=2)
    assert keys(command("rm", parent.key, child.key, "--yes", "--json")) == {parent.key, child.key}


def test_checkpoints_go_alone_and_of_finished_runs_only(store: Store, command: Command) -> None:
    sweep, (one, other) = trained(store, 0.1, 0.2)
    store.folder(StepKind.TRAIN, other.key).done.unlink()
    printed = command("rm", sweep, "--checkpoints", "--yes", "--json")
    assert (keys(printed), keys(printed, "kept")) == ({one.key}, {other.key})
    model = store.folder(StepKind.TRAIN, one.key).model
    assert {path.name for path in model.iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "debug.log"
    }  # fmt: skip
    assert phase(store, one) is Phase.SUCCEEDED
    assert list(store.folder(StepKind.TRAIN, other.key).model.glob("checkpoint-*"))
    assert one.key not in keys(command("rm", "--checkpoints", "--json", "--dry-run"))


def test_the_checkpoints_of_other_runs_and_of_a_run_that_a_process_works_on_stay(
    store: Store, command: Command
) -> None:
    sweep, (one, other) = trained(store, 0.1, 0.2)
    assert keys(command("rm", one.key, "--checkpoints", "--dry-run", "--json")) == {one.key}
    with claim(merge(store, other, "abc")):
        printed = command("rm", sweep, "--checkpoints", "--yes", "--json")
    assert (keys(printed), keys(printed, "kept")) == ({one.key}, {other.key})
    assert list(store.folder(StepKind.TRAIN, other.key).model.glob("checkpoint-*"))


def test_a_run_that_stopped_at_a_rung_keeps_its_checkpoints_unless_it_is_named(store: Store, command: Command) -> None:
    sweep = halved_sweep(store)
    (store.sweeps / sweep.id / "records.jsonl").write_text("")
    for one in (sweep.winner, sweep.stopped, sweep.promoted):
        make_files(store, one)
    printed = command("rm", sweep.id, "--checkpoints", "--yes", "--json")
    assert keys(printed) == {sweep.winner.key}
    why = {one["key"]: one["why"] for one in printed["kept"]}
    assert why == {
        one.key: f"it stopped at rung {rung} of a search, and may still go on from its checkpoints; name the run to "
        "remove them"
        for one, rung in ((sweep.stopped, 1), (sweep.promoted, 2))
    }
    entries_of(store, sweep.id).put(go_of(2, sweep.promoted.key), {"why": "top"})
    command("rm", sweep.promoted.key, "--checkpoints", "--dry-run", "--json", code=2)  # it goes on
    (offered,) = command("rm", sweep.stopped.key, "--checkpoints", "--dry-run", "--json")["to_delete"]
    assert offered["note"].endswith("; it stopped at rung 1 of a search, and may still go on, and would begin again")
    (offered,) = command("rm", sweep.stopped.key, "--dry-run", "--json")["to_delete"]
    assert offered["note"] == "it stopped at rung 1 of a search, and may still go on"


def test_only_what_is_old_enough_goes(store: Store, command: Command) -> None:
    _, (old, new) = trained(store, 0.1, 0.2)
    past = time.time() - 40 * 86400
    for path in store.folder(StepKind.TRAIN, old.key).path.rglob("*"):
        os.utime(path, (past, past))
    assert keys(command("rm", "--older-than", "30d", "--yes", "--json")) == {old.key}
    assert phase(store, new) is Phase.SUCCEEDED
    assert "12h, 30d" in command("rm", "--older-than", "soon", code=2)


@pytest.mark.parametrize(("words", "expected"), [((), "Name runs or sweeps"), (("nope",), "no run or sweep nope")])
def test_a_mistake_is_one_message(store: Store, command: Command, words: tuple[str, ...], expected: str) -> None:
    trained(store, 0.1)
    assert expected in command("rm", *words, "--yes", code=2)


def test_a_removal_that_was_killed_leaves_nothing_that_looks_complete_and_gc_ends_it(
    store: Store, command: Command
) -> None:
    """Killed after everything was moved to the trash, and before anything was deleted."""
    _, (one, _) = trained(store, 0.1, 0.2)
    removal = runs_to_remove(take_stock(LocalFiles(store)), Choice(runs=frozenset([one.key])), lambda key: "")
    local_removal._set_aside(store, removal.to_delete[0])
    assert phase(store, one) is Phase.ABSENT
    assert command("status", "--json")["sweeps"][0]["counts"] == {"succeeded": 1, "removed": 1}
    printed = command("gc", "--yes", "--json")
    assert [one["note"] for one in printed["to_delete"]] == ["an interrupted removal"]
    assert not list(store.root.rglob(".trash-*"))


def test_a_removal_killed_in_the_middle_of_setting_aside_has_taken_the_word_done_first(store: Store) -> None:
    _, (one,) = trained(store, 0.1)
    (whole,) = runs_to_remove(take_stock(LocalFiles(store)), Choice(every=True), lambda key: "").to_delete
    for count in range(1, len(whole.paths)):
        local_removal._set_aside(store, ToDelete(whole.kind, one.key, whole.paths[count - 1 : count], 0))
        assert phase(store, one) is not Phase.SUCCEEDED, whole.paths[:count]


def test_a_failed_dataset_of_a_removed_run_does_not_hide_that_it_was_removed(store: Store, command: Command) -> None:
    one = run({"learning_rate": 0.1})
    asked_for(store, [one], "failed")
    finish(store, StepKind.PREPROCESS, one.data_key, OutcomeStatus.FAILED)
    finish(store, StepKind.TRAIN, one.key, OutcomeStatus.FAILED)
    command("rm", one.key, "--yes")
    assert command("status", "--json")["sweeps"][0]["counts"] == {"removed": 1}


def test_a_run_with_a_follow_up_step_that_has_not_begun_is_not_removed(store: Store, command: Command) -> None:
    sweep, (one, other) = trained(store, 0.1, 0.2)
    step = answering(one.key, "abc", "a" * 16)
    name = asked_after(store, sweep, step)
    record = Record(Event.LAUNCHED, facts={"launcher": asdict(this_process(name))})
    Ledger(store, name).append(record)
    printed = command("rm", sweep, "--dry-run", "--json")
    assert (keys(printed), keys(printed, "kept")) == ({other.key}, {one.key})
    finish(store, StepKind.INFER, step.key)
    assert keys(command("rm", sweep, "--dry-run", "--json")) == {one.key, other.key}
