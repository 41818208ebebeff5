"""`axosweep gc` in a store on this machine: what nothing needs is removed, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest

from modal_app.store import pins
from modal_app.store.claim import claim
from modal_app.store.layout import STEPS, Store
from modal_app.store.state import Phase
from modal_app.store.step import StepKind, write_atomically
from tests.runner.builders import finish, run
from tests.runner.removing_store import (
    Command,
    aged,
    answering,
    asked_after,
    asked_for,
    kept_input,
    keys,
    phase,
    trained,
)
from tests.runner.run_files_store import write_checkpoint


def test_gc_takes_what_no_run_needs_and_nothing_else(store: Store, command: Command) -> None:
    _, (one, other) = trained(store, 0.1, 0.2)
    kept, lost, model = "a" * 16 + ".jsonl", "b" * 16 + ".jsonl", "d" * 16
    kept_input(store, kept)
    kept_input(store, lost)
    prompts = "c" * 16 + ".jsonl"
    kept_input(store, prompts)
    (store.inputs / model).symlink_to(store.root)
    for name in (kept, prompts, model):
        write_atomically(pins.note_of(store.inputs / name), "{}")
    write_atomically(store.folder(StepKind.TRAIN, other.key).config, f"datasets:\n- path: inputs/{kept}\n")
    base = finish(store, StepKind.INFER, "base/abc")
    write_atomically(base.step, json.dumps({"options": {"prompts": f"inputs/{prompts}"}}))
    finish(store, StepKind.PREPROCESS, "0" * 12)
    broken = write_checkpoint(store.folder(StepKind.TRAIN, one.key), 30, whole=False)
    broken.rename(broken.with_name("broken-checkpoint-30"))
    cache = store.folder(StepKind.TRAIN, one.key).attempt(1).path / "datasets-cache"
    cache.mkdir()
    (cache / "rows.arrow").write_bytes(bytes(500))
    part = store.folder(StepKind.TRAIN, one.key).attempt(1).copying / "checkpoint-40"
    part.mkdir(parents=True)
    (part / "weights").write_bytes(bytes(500))
    before = {path for path in store.root.rglob("*") if path.is_file()}
    printed = command("gc", "--yes", "--json")
    home = f"runs/{one.key}"
    names = ("model/broken-checkpoint-30", "attempt-1/datasets-cache", "attempt-1/copying")
    left = {f"{home}/{name}" for name in names}
    assert keys(printed) == {"0" * 12, lost, model, *left}
    assert not (store.inputs / model).is_symlink()
    gone = before - {path for path in store.root.rglob("*") if path.is_file()}
    gone_names = {path.relative_to(store.root).as_posix() for path in gone}
    allowed = (f"prepared/{'0' * 12}", f"inputs/{lost}", f"inputs/{model}", *left)
    assert gone_names
    assert all(name.startswith(allowed) for name in gone_names)
    assert not keys(command("gc", "--json", "--dry-run"))
    assert phase(store, one) is phase(store, other) is Phase.SUCCEEDED


def test_what_an_attempt_at_work_uses_is_not_gcs(store: Store, command: Command) -> None:
    _, (one,) = trained(store, 0.1)
    steps = [store.folder(StepKind.TRAIN, one.key), store.folder(StepKind.PREPROCESS, one.data_key)]
    caches = [step.attempt(1).path / "datasets-cache" for step in steps]
    for cache in caches:
        aged(cache / "rows.arrow", 2)
    left = [cache.relative_to(store.root).as_posix() for cache in caches]
    assert keys(command("gc", "--json", "--dry-run")) == {*left}
    for step, of_the_other in zip(steps, reversed(left), strict=True):
        with claim(step):
            assert keys(command("gc", "--json", "--dry-run")) == {of_the_other}


def test_the_draft_of_an_attempt_is_left_once_its_step_has_finished(store: Store, command: Command) -> None:
    """Before, it is what the next attempt resumes from."""
    _, (one,) = trained(store, 0.1)
    for step in (store.folder(StepKind.TRAIN, one.key), store.folder(StepKind.PREPROCESS, one.data_key)):
        draft = step.attempt(1).draft
        aged(draft / "model" / "checkpoint-10" / "optimizer.pt", 2)
        (found,) = command("gc", "--json", "--dry-run")["to_delete"]
        assert store.root / found["key"] == draft
        assert found["note"] == "an attempt's files that were not published"
        done = step.done.read_text()
        step.done.unlink()
        assert not keys(command("gc", "--json", "--dry-run"))
        step.done.write_text(done)
        shutil.rmtree(draft)


def test_the_dataset_of_removed_runs_is_gcs(store: Store, command: Command) -> None:
    """Runs that are only planned still need theirs."""
    sweep, (one, other) = trained(store, 0.1, 0.2)
    for each in (one, other):  # as on a Volume, where the note stays when a run is trained again
        store.folder(StepKind.TRAIN, each.key).removed.write_text("{}")
    assert not keys(command("gc", "--json", "--dry-run"))
    command("rm", one.key, "--yes")
    assert not keys(command("gc", "--json", "--dry-run")), "the other one reads it"
    command("rm", sweep, "--yes")
    assert keys(command("gc", "--json", "--dry-run")) == {one.data_key}
    with claim(store.folder(StepKind.PREPROCESS, one.data_key)):
        assert not keys(command("gc", "--json", "--dry-run")), "it is being made"
    planned = run({"learning_rate": 0.5, "base_model": "tiny"})
    asked_for(store, [planned], "planned")
    shutil.rmtree(store.folder(StepKind.TRAIN, planned.key).path)  # a mirror may not have it yet
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


def test_copies_of_what_no_mirrored_sweep_has_are_stale(store: Store, command: Command) -> None:
    trained(store, 0.1)
    mirror = Store(store.root / "modal")
    sweep, (one,) = trained(mirror, 0.2)
    assert not keys(command("gc", "--json", "--dry-run"))
    (mirror.sweeps / sweep / "plan.json").unlink()
    assert keys(command("gc", "--json", "--dry-run")) >= {f"runs/{one.key}", f"prepared/{one.data_key}"}
    assert not keys(command("gc", "--older-than", "1h", "--json", "--dry-run"))


@pytest.mark.parametrize("run_or_base", ["run", "base"])
def test_what_a_step_will_read_that_has_not_begun_is_not_gcs(store: Store, command: Command, run_or_base: str) -> None:
    sweep, (one,) = trained(store, 0.1)
    prompts, others = "a" * 16 + ".jsonl", "b" * 16 + ".jsonl"
    kept_input(store, prompts)
    kept_input(store, others)
    step = answering(one.key if run_or_base == "run" else "", "abc", prompts)
    asked_after(store, sweep, step, answering(one.key, "done", others))
    finish(store, StepKind.INFER, f"{one.key}/done")
    assert keys(command("gc", "--json", "--dry-run")) == {others}, "a finished step is known by its attempt"
    finish(store, StepKind.INFER, step.key)
    assert keys(command("gc", "--json", "--dry-run")) == {prompts, others}


def test_follow_up_steps_of_a_removed_run_keep_nothing_until_they_are_requested_again(
    store: Store, command: Command
) -> None:
    sweep, (one,) = trained(store, 0.1)
    prompts = "a" * 16 + ".jsonl"
    kept_input(store, prompts)
    steps = store.sweeps / asked_after(store, sweep, answering(one.key, "abc", prompts)) / STEPS
    command("rm", one.key, "--yes")
    os.utime(steps, (1, 1))
    assert prompts in keys(command("gc", "--json", "--dry-run"))
    os.utime(steps, (time.time() + 60, time.time() + 60))
    assert prompts not in keys(command("gc", "--json", "--dry-run"))


def test_what_a_killed_launch_was_storing_is_removed_once_no_process_can_be_at_it(
    store: Store, command: Command
) -> None:
    trained(store, 0.1)
    aged(store.inputs / f".{'a' * 16}.4321" / "optimizer.pt", 2)
    aged(store.inputs / f".{'b' * 16}.jsonl.4321", 2)
    aged(store.inputs / f".{'c' * 16}.4321" / "optimizer.pt", 0.1)
    aged(store.inputs / ".gitignore", 2)
    left = {f"inputs/.{'a' * 16}.4321", f"inputs/.{'b' * 16}.jsonl.4321"}
    assert keys(command("gc", "--yes", "--json")) == left
    assert sorted(path.name for path in store.inputs.iterdir()) == [f".{'c' * 16}.4321", ".gitignore"]


def test_what_was_fetched_from_modal_goes_when_it_is_old(store: Store, command: Command) -> None:
    """A failed push leaves such a file, and so does going on from a checkpoint."""
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
