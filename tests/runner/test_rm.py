"""`axosweep rm` and `axosweep gc` in a store on this machine: what goes, what a kept run needs stays."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from modal_app.claim import claim, this_process
from modal_app.layout import STEPS, Store
from modal_app.remote import steps_file
from modal_app.state import Phase, observe
from modal_app.step import OutcomeStatus, Step, StepKind, write_atomically
from runner.cli import main
from runner.files import removing
from runner.files.removal import Choice, Doomed, runs_to_remove
from runner.files.removing import remove_here
from runner.files.run_files import LocalFiles
from runner.files.stock import take_stock
from runner.ledger import Event, Ledger, Record
from runner.plan import make_plan
from runner.serve.notes import noted
from runner.types import Run
from tests.runner.builders import finish, finish_run, open_sweep, run
from tests.runner.run_files_store import content, make_files, merge, write_checkpoint

Command = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def command(store: Store, capsys: pytest.CaptureFixture[str]) -> Command:
    """The output of a command in that store, as JSON where it is; of one that is refused, what it says."""

    def ask(*words: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert main([*words, "--store", str(store.root)]) == code
        captured = capsys.readouterr()
        if code:
            return captured.err
        return json.loads(captured.out) if "--json" in words else captured.out

    return ask


def asked_for(store: Store, runs: list[Run], name: str) -> str:
    """A sweep whose launcher has ended."""
    sweep = open_sweep(store, runs, name).sweep
    (store.sweeps / sweep / "records.jsonl").write_text("")
    return sweep


def trained(store: Store, *rates: float, name: str = "swept") -> tuple[str, list[Run]]:
    """A sweep whose runs have finished, with files."""
    runs = [run({"learning_rate": rate, "base_model": "tiny"}) for rate in rates]
    sweep = asked_for(store, runs, name)
    for number, one in enumerate(runs):
        if not store.folder(StepKind.TRAIN, one.key).done.exists():
            finish_run(store, one, {0: 2.0, 20: 1.0 + number})
            make_files(store, one)
    return sweep, runs


def phase(store: Store, one: Run) -> Phase:
    return observe(store, StepKind.TRAIN, one.key).phase


def keys(told: Any, of: str = "doomed") -> set[str]:
    return {one["key"] for one in told[of]}


def kept_input(store: Store, name: str) -> None:
    store.inputs.mkdir(exist_ok=True)
    (store.inputs / name).write_bytes(content(name, 2000))


def test_a_removed_run_is_gone_but_for_the_question(store: Store, command: Command) -> None:
    sweep, (one, other) = trained(store, 0.1, 0.2)
    merge(store, one, "abc")
    size = sum(path.stat().st_size for path in store.folder(StepKind.TRAIN, one.key).path.rglob("*") if path.is_file())
    asked = store.folder(StepKind.TRAIN, one.key).identity.read_text()
    told = command("rm", one.key, "--yes", "--json")
    assert keys(told) == {one.key}
    assert size - 1000 < told["freed"] <= size
    home = store.folder(StepKind.TRAIN, one.key)
    assert {path.name for path in home.path.iterdir()} == {"run.json", "removed.json", "lock"}
    assert home.identity.read_text() == asked
    assert phase(store, other) is Phase.SUCCEEDED
    rows = {row["key"]: row for row in command("compare", sweep, "--json")["runs"]}
    assert (rows[one.key]["status"], rows[other.key]["status"]) == ("removed", "succeeded")
    assert rows[one.key]["params"], "what was asked is still known"
    assert command("status", "--json")["sweeps"][0]["counts"] == {"succeeded": 1, "removed": 1}
    assert not keys(command("rm", one.key, "--yes", "--json")), "a second time there is nothing"


def test_a_removed_run_is_trained_again_when_it_is_asked_for(store: Store, command: Command) -> None:
    _, (one,) = trained(store, 0.1)
    command("rm", one.key, "--yes")
    plan = make_plan([one], "again", lambda kind, key: store.folder(kind, key).done.exists())
    assert [planned.run.key for planned in plan.pending] == [one.key]
    finish(store, StepKind.TRAIN, one.key)
    assert phase(store, one) is Phase.SUCCEEDED
    assert command("status", "--json")["sweeps"][0]["counts"] == {"succeeded": 1}


def test_without_a_terminal_or_yes_nothing_is_removed(store: Store, command: Command) -> None:
    _, (one,) = trained(store, 0.1)
    assert "--yes" in command("rm", one.key, code=2)
    assert "--yes" in command("gc", code=2) if keys(command("gc", "--json", "--dry-run")) else True
    told = command("rm", one.key, "--dry-run")
    assert "would be freed" in told
    assert phase(store, one) is Phase.SUCCEEDED


def test_a_sweep_gives_up_the_runs_that_no_other_sweep_has(store: Store, command: Command) -> None:
    first, (one, shared) = trained(store, 0.1, 0.2, name="first")
    second, _ = trained(store, 0.2, 0.3, name="second")
    told = command("rm", first, "--yes", "--json")
    assert keys(told) == {one.key}
    assert told["spared"] == [{"key": shared.key, "why": f"{second} has it, too"}]
    assert phase(store, shared) is Phase.SUCCEEDED
    assert keys(command("rm", first, second, "--yes", "--json")) == {shared.key, trained_key(0.3)}


def trained_key(rate: float) -> str:
    return run({"learning_rate": rate, "base_model": "tiny"}).key


def test_a_run_named_itself_goes_though_two_sweeps_have_it(store: Store, command: Command) -> None:
    trained(store, 0.1, 0.2, name="first")
    _, (shared, _) = trained(store, 0.2, 0.3, name="second")
    told = command("rm", shared.key, "--yes", "--json")
    assert keys(told) == {shared.key}
    assert told["doomed"][0]["note"] == "of 2 sweeps"


def test_a_run_that_somebody_works_on_is_not_removed(store: Store, command: Command) -> None:
    sweep, (one, other) = trained(store, 0.1, 0.2)
    with claim(store.folder(StepKind.TRAIN, one.key)):
        told = command("rm", one.key, "--yes", code=2)
        assert f"axosweep cancel {one.key}" in told
        told = command("rm", sweep, "--yes", "--json")
    assert keys(told) == {other.key}
    assert keys(told, "spared") == {one.key}
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
        told = command("rm", one.key, "--yes", code=2)
        assert f"{one.key} has to stay: process {os.getpid()} serves it" in told
        assert f"Ctrl-C there, or kill {os.getpid()}, ends that" in told
        assert told.count("\n") == 1
        told = command("rm", sweep, "--yes", "--json")
    assert (keys(told), keys(told, "spared")) == ({other.key}, {one.key})
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
    assert not done.doomed
    assert [spared.key for spared in done.spared] == [one.key]
    assert phase(store, one) is Phase.SUCCEEDED


def test_a_run_that_a_live_launch_has_not_come_to_yet_is_not_removed(store: Store, command: Command) -> None:
    sweep, (one, other) = trained(store, 0.1, 0.2)
    store.folder(StepKind.TRAIN, one.key).done.unlink()
    record = Record(Event.LAUNCHED, facts={"launcher": asdict(this_process(sweep))})
    Ledger(store, sweep).append(record)
    told = command("rm", sweep, "--dry-run", "--json")
    assert (keys(told), keys(told, "spared")) == ({other.key}, {one.key})


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
    told = command("rm", sweep, "--checkpoints", "--yes", "--json")
    assert (keys(told), keys(told, "spared")) == ({one.key}, {other.key})
    model = store.folder(StepKind.TRAIN, one.key).model
    assert {path.name for path in model.iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "debug.log"
    }  # fmt: skip
    assert phase(store, one) is Phase.SUCCEEDED
    assert list(store.folder(StepKind.TRAIN, other.key).model.glob("checkpoint-*"))
    assert f"{one.key}" not in keys(command("rm", "--checkpoints", "--json", "--dry-run"))


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


def test_gc_takes_what_no_run_needs_and_nothing_else(store: Store, command: Command) -> None:
    _, (one, other) = trained(store, 0.1, 0.2)
    kept, lost = "a" * 16 + ".jsonl", "b" * 16 + ".jsonl"
    kept_input(store, kept)
    kept_input(store, lost)
    prompts = "c" * 16 + ".jsonl"
    kept_input(store, prompts)
    write_atomically(store.folder(StepKind.TRAIN, other.key).config, f"datasets:\n- path: inputs/{kept}\n")
    base = finish(store, StepKind.INFER, "base/abc")
    write_atomically(base.step, json.dumps({"options": {"prompts": f"inputs/{prompts}"}}))
    finish(store, StepKind.PREPROCESS, "0" * 12)
    broken = write_checkpoint(store.folder(StepKind.TRAIN, one.key), 30, whole=False)
    broken.rename(broken.with_name("broken-checkpoint-30"))
    cache = store.folder(StepKind.TRAIN, one.key).attempt(1).path / "datasets-cache"
    cache.mkdir()
    (cache / "rows.arrow").write_bytes(bytes(500))
    before = {path for path in store.root.rglob("*") if path.is_file()}
    told = command("gc", "--yes", "--json")
    home = f"runs/{one.key}"
    left = {f"{home}/model/broken-checkpoint-30", f"{home}/attempt-1/datasets-cache"}
    assert keys(told) == {"0" * 12, lost, *left}
    gone = before - {path for path in store.root.rglob("*") if path.is_file()}
    gone_names = {path.relative_to(store.root).as_posix() for path in gone}
    allowed = (f"prepared/{'0' * 12}", f"inputs/{lost}", *left)
    assert gone_names
    assert all(name.startswith(allowed) for name in gone_names)
    assert not keys(command("gc", "--json", "--dry-run"))
    assert phase(store, one) is phase(store, other) is Phase.SUCCEEDED


def test_the_dataset_of_removed_runs_is_gcs(store: Store, command: Command) -> None:
    """Runs that are only planned still need theirs."""
    sweep, (one, other) = trained(store, 0.1, 0.2)
    command("rm", one.key, "--yes")
    assert not keys(command("gc", "--json", "--dry-run")), "the other one reads it"
    command("rm", sweep, "--yes")
    assert keys(command("gc", "--json", "--dry-run")) == {one.data_key}
    with claim(store.folder(StepKind.PREPROCESS, one.data_key)):
        assert not keys(command("gc", "--json", "--dry-run")), "it is being made"
    planned = run({"learning_rate": 0.5, "base_model": "tiny"})
    asked_for(store, [planned], "planned")
    shutil.rmtree(store.folder(StepKind.TRAIN, planned.key).path)  # a mirror may have none of it yet
    assert not keys(command("gc", "--json", "--dry-run"))
    assert other.data_key == planned.data_key


def test_runs_whose_sweeps_are_gone_are_kept_with_what_they_read(store: Store, command: Command) -> None:
    sweep, (one,) = trained(store, 0.1)
    identity = store.folder(StepKind.TRAIN, one.key).identity
    write_atomically(identity, json.dumps(json.loads(identity.read_text()) | {"data_key": one.data_key}))
    (store.sweeps / sweep / "plan.json").unlink()
    assert not keys(command("gc", "--json", "--dry-run"))


def test_gc_of_an_age_leaves_what_is_younger(store: Store, command: Command) -> None:
    store.sweeps.mkdir(parents=True)
    for name, days in (("a" * 16, 40), ("b" * 16, 1)):
        kept_input(store, name)
        past = time.time() - days * 86400
        os.utime(store.inputs / name, (past, past))
    assert keys(command("gc", "--older-than", "30d", "--json", "--dry-run")) == {"a" * 16}


def test_a_removal_that_was_killed_leaves_nothing_that_looks_whole_and_gc_ends_it(
    store: Store, command: Command
) -> None:
    """Killed after everything was set aside, and before anything was deleted."""
    _, (one, _) = trained(store, 0.1, 0.2)
    removal = runs_to_remove(take_stock(LocalFiles(store)), Choice(runs=frozenset([one.key])), lambda key: "")
    removing._set_aside(store, removal.doomed[0])
    assert phase(store, one) is Phase.ABSENT
    assert command("status", "--json")["sweeps"][0]["counts"] == {"succeeded": 1, "removed": 1}
    told = command("gc", "--yes", "--json")
    assert [one["note"] for one in told["doomed"]] == ["a removal that was interrupted"]
    assert not list(store.root.rglob(".trash-*"))


def test_a_removal_killed_in_the_middle_of_setting_aside_has_taken_the_word_done_first(store: Store) -> None:

    _, (one,) = trained(store, 0.1)
    (whole,) = runs_to_remove(take_stock(LocalFiles(store)), Choice(every=True), lambda key: "").doomed
    for count in range(1, len(whole.paths)):
        removing._set_aside(store, Doomed(whole.kind, one.key, whole.paths[count - 1 : count], 0))
        assert phase(store, one) is not Phase.SUCCEEDED, whole.paths[:count]


def test_a_failed_dataset_of_a_removed_run_does_not_hide_that_it_was_removed(store: Store, command: Command) -> None:
    one = run({"learning_rate": 0.1})
    asked_for(store, [one], "failed")
    finish(store, StepKind.PREPROCESS, one.data_key, OutcomeStatus.FAILED)
    finish(store, StepKind.TRAIN, one.key, OutcomeStatus.FAILED)
    command("rm", one.key, "--yes")
    assert command("status", "--json")["sweeps"][0]["counts"] == {"removed": 1}


def test_copies_of_what_no_mirrored_sweep_has_are_stale(store: Store, command: Command) -> None:
    trained(store, 0.1)
    mirror = Store(store.root / "modal")
    sweep, (one,) = trained(mirror, 0.2)
    assert not keys(command("gc", "--json", "--dry-run"))
    (mirror.sweeps / sweep / "plan.json").unlink()
    assert f"runs/{one.key}" in keys(command("gc", "--json", "--dry-run"))


def asked_after(store: Store, sweep: str, *steps: Step) -> str:
    """As whoever asks for something after a sweep's runs writes it down; nobody has begun with it."""
    name = f"{sweep}/after-0a1b2c"
    (store.sweeps / name).mkdir(parents=True)
    named = {f"{step.kind}/{step.key}": step for step in steps}
    write_atomically(store.sweeps / name / STEPS, steps_file(named, {}))
    return name


def answering(run: str, own: str, prompts: str) -> Step:
    return Step(StepKind.INFER, f"{run or 'base'}/{own}", {}, "d", run=run, options={"prompts": f"inputs/{prompts}"})


@pytest.mark.parametrize("run_or_base", ["run", "base"])
def test_what_a_step_will_read_that_has_not_begun_is_not_gcs(store: Store, command: Command, run_or_base: str) -> None:
    sweep, (one,) = trained(store, 0.1)
    prompts, others = "a" * 16 + ".jsonl", "b" * 16 + ".jsonl"
    kept_input(store, prompts)
    kept_input(store, others)
    step = answering(one.key if run_or_base == "run" else "", "abc", prompts)
    asked_after(store, sweep, step, answering(one.key, "done", others))
    finish(store, StepKind.INFER, f"{one.key}/done")
    assert keys(command("gc", "--json", "--dry-run")) == {others}, "what is done is told by its attempt"
    finish(store, StepKind.INFER, step.key)
    assert keys(command("gc", "--json", "--dry-run")) == {prompts, others}


def test_what_was_asked_of_a_removed_run_keeps_nothing_until_it_is_asked_again(store: Store, command: Command) -> None:
    sweep, (one,) = trained(store, 0.1)
    prompts = "a" * 16 + ".jsonl"
    kept_input(store, prompts)
    steps = store.sweeps / asked_after(store, sweep, answering(one.key, "abc", prompts)) / STEPS
    command("rm", one.key, "--yes")
    os.utime(steps, (1, 1))
    assert prompts in keys(command("gc", "--json", "--dry-run"))
    os.utime(steps, (time.time() + 60, time.time() + 60))
    assert prompts not in keys(command("gc", "--json", "--dry-run"))


def test_a_run_that_somebody_has_asked_something_of_and_not_begun_is_not_removed(
    store: Store, command: Command
) -> None:
    sweep, (one, other) = trained(store, 0.1, 0.2)
    step = answering(one.key, "abc", "a" * 16)
    name = asked_after(store, sweep, step)
    record = Record(Event.LAUNCHED, facts={"launcher": asdict(this_process(name))})
    Ledger(store, name).append(record)
    told = command("rm", sweep, "--dry-run", "--json")
    assert (keys(told), keys(told, "spared")) == ({other.key}, {one.key})
    finish(store, StepKind.INFER, step.key)
    assert keys(command("rm", sweep, "--dry-run", "--json")) == {one.key, other.key}


def aged(path: Path, days: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(500))
    past = time.time() - days * 86400
    os.utime(path, (past, past))


def test_what_a_killed_launch_was_keeping_goes_once_nobody_can_be_at_it(store: Store, command: Command) -> None:
    trained(store, 0.1)
    aged(store.inputs / f".{'a' * 16}.4321" / "optimizer.pt", 2)
    aged(store.inputs / f".{'b' * 16}.jsonl.4321", 2)
    aged(store.inputs / f".{'c' * 16}.4321" / "optimizer.pt", 0.1)
    aged(store.inputs / ".gitignore", 2)
    left = {f"inputs/.{'a' * 16}.4321", f"inputs/.{'b' * 16}.jsonl.4321"}
    assert keys(command("gc", "--yes", "--json")) == left
    assert sorted(path.name for path in store.inputs.iterdir()) == [f".{'c' * 16}.4321", ".gitignore"]


def test_what_was_fetched_from_modal_goes_when_it_is_old(store: Store, command: Command) -> None:
    """A push that has failed leaves it, and going on from a checkpoint does."""
    mirror = Store(store.root / "modal")
    trained(mirror, 0.2)
    aged(mirror.cache / "push" / "0a-merged" / "model" / "w.bin", 2)
    aged(mirror.cache / "push" / "0b-adapter" / "w.bin", 0.1)
    aged(mirror.cache / "from" / "0a" / "checkpoint-5" / "optimizer.pt", 40)
    aged(mirror.cache / "from" / "0a" / "checkpoint-6" / "optimizer.pt", 2)
    aged(mirror.cache / "from" / "0a" / "checkpoint-6" / "rng_state.pth", 0.1)
    aged(mirror.cache / "hashes.json", 40)
    first = "cache/from/0a/checkpoint-5"
    assert keys(command("gc", "--older-than", "30d", "--json", "--dry-run")) == {first}
    assert keys(command("gc", "--yes", "--json")) == {first, "cache/push/0a-merged"}
    gone = {path.name for path in (mirror.cache / "from" / "0a").iterdir()}
    assert gone == {"checkpoint-6"}
    assert (mirror.cache / "hashes.json").exists()
