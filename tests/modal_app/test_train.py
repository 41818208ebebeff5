"""Real trainings of the tiny model: forked from a preloaded process, in a new process, on two ranks, stopped, killed,
broken."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modal_app.held_out.held_out import HeldOut
from modal_app.process.threads import with_threads
from modal_app.store.checkpoints import mark_complete
from modal_app.store.layout import HELD_OUT, Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import FailureReason, OutcomeStatus, Step, StepKind, Tracking
from tests.modal_app.conftest import BEST
from tests.modal_app.rows import read_rows, trainers_loss
from tests.modal_app.steps import (
    CONFIG,
    SLOWER,
    Warm,
    alive,
    children,
    kill_group,
    lines,
    losses,
    make_store,
    outcome,
    preprocess_step,
    run_fresh,
    run_with_other_version,
    train_step,
    wait_for_step,
)
from tests.runner.checkpointed import checkpoint
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
LONG: dict[str, Any] = {"max_steps": 45, "eval_steps": 20, "save_steps": 7, **SLOWER}


@pytest.fixture(scope="session")
def undisturbed(warm: Warm, store: Store) -> dict[tuple[int, str], float]:
    """The losses of a long undisturbed run."""
    step = train_step("undisturbed", **LONG)
    assert warm.run(step) == 0
    return losses(store, step)


def test_nothing_temporary_is_left_in_an_attempt(store: Store, plain_ranks: Step) -> None:
    left = {path.name for path in store.folder(StepKind.TRAIN, plain_ranks.key).attempt(1).path.iterdir()}
    assert left == {"inputs", "prepared", "step.json", "started.json", "config.yml", "log.txt", "log-1.txt"} | {
        "train.json",
        "result.json",
    }


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_rows_give_the_loss_that_axolotl_tells(store: Store, plain: Step, plain_ranks: Step, ranks: int) -> None:
    """Before training and at its end. Two ranks have 30 rows in batches of 4: two of them are computed twice."""
    step = plain if ranks == 1 else plain_ranks
    told = {line["step"]: line["eval_loss"] for line in lines(store, step) if "eval_loss" in line}
    manifest = json.loads(store.manifest("data").read_text())
    folder = store.folder(StepKind.TRAIN, step.key)
    for path, number in ((folder.losses_before, 0), (folder.losses, 20)):
        rows = read_rows(path)
        assert (rows.about.step, rows.about.eval_loss) == (number, told[number])
        assert rows.about.eval_fingerprint == manifest["eval_fingerprint"]
        assert len(set(rows.id.tolist())) == len(rows.id) == manifest["eval_rows"]
        assert trainers_loss(rows, ranks=ranks) == pytest.approx(told[number], rel=1e-5)
        assert len(rows.about.repeated) == (0 if ranks == 1 else -len(rows.id) % 8)
        origins = HeldOut.read(store.prepared_dataset("data") / HELD_OUT)
        assert origins is not None
        assert rows.about.documents_known == origins.documents_known
        assert rows.about.datasets == origins.datasets
        assert rows.document.tolist() == [one.document for one in origins.rows]


def test_packed_rows_and_a_merged_model_give_the_loss_that_axolotl_tells(warm: Warm, store: Store, plain: Step) -> None:
    """Rows have the same ids and tokens, packed or not, and the same losses, merged or not."""
    packing = CONFIG | {"sample_packing": True, "eval_sample_packing": True, "micro_batch_size": 2}
    assert warm.run(preprocess_step("packed", **packing)) == 0
    packed = Step(StepKind.EVALUATE, "base/packed", packing, "packed", base_model="the/base")
    merge = Step(StepKind.MERGE, f"{plain.key}/merge", plain.config, "data", run=plain.key, base_model="the/base")
    merged = replace(merge, kind=StepKind.EVALUATE, key=f"{plain.key}/merged", options={"merged": merge.key})
    for step in (packed, merge, merged):
        assert warm.run(step) == 0, outcome(store, step).message
    training = store.folder(StepKind.TRAIN, plain.key)
    for step, before in ((packed, training.losses_before), (merged, training.losses)):
        rows, same = read_rows(store.folder(step.kind, step.key).losses), read_rows(before)
        told = outcome(store, step).facts["metrics"]["eval_loss"]
        assert rows.about.eval_loss == told
        assert trainers_loss(rows, packed=step is packed) == pytest.approx(told, rel=1e-5)
        assert rows.id.tolist() == same.id.tolist()
        assert rows.about.step == same.about.step
        assert rows.tokens.tolist() == same.tokens.tolist()
        equal = np.isclose(rows.nll, same.nll, atol=2e-3)
        if step is merged:
            assert equal.all()
        else:  # on the CPU nothing separates packed rows: only the first one of a batch has nothing before it
            assert len(equal) / 2 > len(set(rows.batch.tolist())) <= equal.sum() < len(equal)


def test_the_rows_are_those_of_the_best_weights_if_these_are_stored(store: Store, overshot: Step) -> None:
    step = overshot
    folder = store.folder(StepKind.TRAIN, step.key)
    told = {line["step"]: line["eval_loss"] for line in lines(store, step) if line.get("eval_loss") and line["step"]}
    best = min(told, key=lambda number: told[number])
    rows = read_rows(folder.losses)
    assert best < max(told)
    assert (rows.about.step, rows.about.eval_loss) == (best, told[best])
    assert not folder.losses_best.exists()


def test_a_run_that_goes_on_in_another_folder_stores_its_best_weights(warm: Warm, store: Store, overshot: Step) -> None:
    """On Modal, each attempt has its own. This one stops early, before it saves anything."""
    step = train_step("elsewhere", **BEST | {"max_steps": 60, "save_steps": 40, "early_stopping_patience": 1})
    source, model = (store.folder(StepKind.TRAIN, key).model for key in (overshot.key, step.key))
    for number in (10, 15):
        shutil.copytree(source / f"checkpoint-{number}", model / f"checkpoint-{number}")
    state = model / "checkpoint-15" / "trainer_state.json"
    known = json.loads(state.read_text())
    assert known["best_global_step"] == 10
    elsewhere = {"best_model_checkpoint": "of/an/earlier/attempt/checkpoint-10", "save_steps": 40}
    state.write_text(json.dumps({**known, **elsewhere}))
    mark_complete(state.parent, {})
    assert warm.run(step) == 0, outcome(store, step).message
    facts = outcome(store, step).facts
    assert (facts["resumed_from"], facts["step"], facts["early_stopped"]) == (15, 20, True)
    weights = "adapter_model.safetensors"
    assert (model / weights).read_bytes() == (source / "checkpoint-10" / weights).read_bytes()


def test_a_fresh_process_gives_the_losses_of_a_fork(trainer: Path, store: Store, plain: Step) -> None:
    """Also if the environment requests more threads, as Modal does from the CPU request of a container."""
    fresh = train_step("fresh")
    assert run_fresh(trainer, store, fresh, **with_threads(3)) == 0
    assert losses(store, fresh) == losses(store, plain)
    assert outcome(store, fresh).facts["threads"] == outcome(store, plain).facts["threads"] == 1
    evaluated = {step for step, name in losses(store, plain) if name == "eval_loss"}
    assert evaluated == {0, 10, 20}
    facts = outcome(store, plain).facts
    assert (facts["step"], facts["max_steps"], facts["world_size"]) == (20, 20, 1)
    assert set(facts["phases"]) == {"import", "config", "prepare", "load", "first", "train", "eval", "save"}


def test_the_adapter_names_the_base_model_as_the_user_did_and_is_written_down(store: Store, plain: Step) -> None:
    folder = store.folder(StepKind.TRAIN, plain.key)
    adapter = folder.model / "adapter_config.json"
    assert json.loads(adapter.read_text())["base_model_name_or_path"] == "the/base"
    listed = json.loads(folder.manifest.read_text())["files"]
    assert "adapter_model.safetensors" in listed
    assert not [name for name in listed if name.startswith("checkpoint-")]
    for name, one in listed.items():
        content = (folder.model / name).read_bytes()
        assert one == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_a_damaged_adapter_is_neither_merged_nor_prompted(warm: Warm, store: Store, plain: Step) -> None:
    home, copy = (store.folder(StepKind.TRAIN, key) for key in (plain.key, "damaged-adapter"))
    shutil.copytree(home.model, copy.model, ignore=shutil.ignore_patterns("checkpoint-*"))
    shutil.copyfile(home.manifest, copy.manifest)
    weights = copy.model / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1024] + bytes(1024))
    (store.inputs / "one-prompt.jsonl").write_text('{"messages": [{"role": "user", "content": "Hello"}]}')
    for kind, options in ((StepKind.MERGE, {}), (StepKind.INFER, {"prompts": "inputs/one-prompt.jsonl"})):
        step = Step(kind, f"{copy.path.name}/own", plain.config, "data", run=copy.path.name, options=options)
        assert warm.run(step) == 1
        assert "is damaged: the content of adapter_model.safetensors is not" in outcome(store, step).message


def test_the_final_model_is_evaluated_though_the_schedule_misses_it(warm: Warm, store: Store) -> None:
    step = train_step("uneven", max_steps=13)
    assert warm.run(step) == 0
    assert {(13, "loss"), (13, "eval_loss")} <= losses(store, step).keys()
    assert "tokens" in lines(store, step)[-1], "which the last log line of a schedule of 5 steps leaves out"


def test_an_early_stop_is_a_success(warm: Warm, store: Store) -> None:
    step = train_step("patient", learning_rate=1e-12, early_stopping_patience=1, eval_steps=5, save_steps=5)
    assert warm.run(step) == 0
    facts = outcome(store, step).facts
    assert facts["early_stopped"]
    assert facts["step"] < facts["max_steps"]


def test_two_ranks_train_together(store: Store, plain: Step, plain_ranks: Step) -> None:
    assert outcome(store, plain_ranks).facts["world_size"] == 2
    both, one = ([line["tokens"] for line in lines(store, step) if "tokens" in line] for step in (plain_ranks, plain))
    assert both[-1] == 2 * one[-1]


def test_two_fresh_ranks_without_a_time_saver_give_the_losses_of_forked_ones(
    trainer: Path, store: Store, plain_ranks: Step
) -> None:
    """Here ranks import everything themselves, of a library that lacks what a patch changes; elsewhere in the tests,
    they are forks that have the imports."""
    fresh = train_step("fresh-ranks", processes=2)
    assert run_with_other_version(trainer, store, fresh, "accelerate.utils.other") == 0
    assert losses(store, fresh) == losses(store, plain_ranks)
    attempt = store.folder(StepKind.TRAIN, fresh.key).attempt(1).path
    for log in (attempt / "log.txt", attempt / "log-1.txt"):
        assert log.read_text().count("skipping the patch") == 1
        assert "skipping the patch 'leave out DeepSpeed'" in log.read_text()


def test_a_stopped_run_goes_on_to_equal_losses(
    warm: Warm, store: Store, undisturbed: dict[tuple[int, str], float]
) -> None:
    step = train_step("stopped", **LONG)
    pid = warm.begin(step)
    wait_for_step(store, step, 15)
    os.killpg(pid, signal.SIGTERM)
    assert warm.end(step) == 3
    ended = outcome(store, step)
    assert ended.status is OutcomeStatus.STOPPED
    assert "a checkpoint is saved" in ended.message
    assert observe(store, StepKind.TRAIN, step.key).phase is Phase.STOPPED
    at = ended.facts["step"]
    assert 15 <= at < LONG["max_steps"]
    assert warm.run(step) == 0
    assert outcome(store, step).facts["resumed_from"] == at
    assert losses(store, step) == undisturbed


def test_a_run_with_data_loaders_stops_cleanly_and_leaves_none_behind(
    warm: Warm, store: Store, undisturbed: dict[tuple[int, str], float]
) -> None:
    step = train_step("loaders", **LONG | {"dataloader_num_workers": 2})
    pid = warm.begin(step)
    wait_for_step(store, step, 15)
    loaders = children(pid)
    assert loaders
    os.killpg(pid, signal.SIGTERM)
    assert warm.end(step) == 3
    assert "a checkpoint is saved" in outcome(store, step).message
    wait_until(lambda: not any(map(alive, loaders)), "the data loaders to end")
    pid = warm.begin(step)
    wait_for_step(store, step, outcome(store, step).facts["step"] + 2)
    loaders = children(pid)
    kill_group(pid)
    warm.end(step)
    wait_until(lambda: not any(map(alive, loaders)), "the data loaders to end")
    assert warm.run(step) == 0
    assert losses(store, step) == undisturbed


def test_two_ranks_stop_after_the_same_step_and_go_on(warm: Warm, store: Store) -> None:
    whole, step = train_step("whole-ranks", processes=2, **LONG), train_step("stopped-ranks", processes=2, **LONG)
    assert warm.run(whole) == 0
    pid = warm.begin(step)
    wait_for_step(store, step, 15)
    os.killpg(pid, signal.SIGTERM)
    assert warm.end(step) == 3
    assert warm.run(step) == 0
    assert outcome(store, step).facts["resumed_from"] >= 15
    assert losses(store, step) == losses(store, whole)


def test_a_killed_rank_fails_the_run_and_ends_the_others(warm: Warm, store: Store) -> None:
    step = train_step("killed-rank", processes=2, **LONG)
    pid = warm.begin(step)
    wait_for_step(store, step, 15)
    os.kill(max(children(pid)), signal.SIGKILL)
    assert warm.end(step) == 1
    ended = outcome(store, step)
    assert ended.reason is FailureReason.LOST
    assert ended.message.startswith("rank 1 was killed by signal 9")


def test_ranks_do_not_outlive_the_worker_that_holds_their_claim(warm: Warm, store: Store) -> None:
    step = train_step("killed-holder", processes=2, **LONG)
    pid = warm.begin(step)
    wait_for_step(store, step, 15)
    ranks = children(pid)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(alive, ranks)), "the ranks to end")
    warm.end(step)
    wait_until(lambda: observe(store, StepKind.TRAIN, step.key).phase is Phase.LOST, "nothing to hold the claim")


def test_a_run_stopped_before_it_trains_says_so(warm: Warm, store: Store) -> None:
    step = train_step("early")
    pid = warm.begin(step)
    wait_until(lambda: store.folder(StepKind.TRAIN, "early").attempt(1).config.exists(), "its config")
    os.killpg(pid, signal.SIGTERM)
    assert warm.end(step) == 3
    assert outcome(store, step).status is OutcomeStatus.STOPPED
    assert warm.run(step) == 0


@pytest.fixture(scope="module")
def killed(warm: Warm, store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Step, Path]:
    """A long run that was killed between two checkpoints, and a copy of its folder."""
    step = train_step("killed", **LONG)
    pid = warm.begin(step)
    wait_for_step(store, step, 15)
    kill_group(pid)
    assert warm.end(step) == -signal.SIGKILL
    state = observe(store, StepKind.TRAIN, step.key)
    assert state.phase is Phase.LOST
    assert state.outcome is not None
    assert "signal 9" in state.outcome.message
    copy = tmp_path_factory.mktemp("killed") / "run"
    shutil.copytree(store.folder(StepKind.TRAIN, step.key).path, copy, symlinks=True)
    return step, copy


@pytest.mark.parametrize("cut", [None, "adapter_model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_killed_run_goes_on_to_equal_losses_from_a_complete_checkpoint(
    warm: Warm, store: Store, undisturbed: dict[tuple[int, str], float], killed: tuple[Step, Path], cut: str | None
) -> None:
    step, copy = killed
    folder = store.folder(StepKind.TRAIN, step.key)
    shutil.rmtree(folder.path)
    shutil.copytree(copy, folder.path, symlinks=True)
    model = folder.model
    if cut:
        complete = [path.parent for path in model.glob("checkpoint-*/complete.json")]
        newest = max(complete, key=lambda path: int(path.name.split("-")[1]))
        content = (newest / cut).read_bytes()
        half = content[: len(content) // 2]
        (newest / cut).write_bytes(half + (bytes(len(content) - len(half)) if cut == "optimizer.pt" else b""))
    assert warm.run(step) == 0
    facts, log = outcome(store, step).facts, folder.attempt(2).log.read_text()
    assert facts["resumed_from"] > 0
    assert ("damaged" in facts) == (f"Resuming from checkpoint-{facts['resumed_from']}." in log) == bool(cut)
    if cut == "optimizer.pt":  # of the right size
        assert facts["damaged"].endswith("the content of optimizer.pt is not the one that was written")
    assert bool(list(model.glob("broken-checkpoint-*"))) >= bool(cut)
    assert losses(store, step) == undisturbed


def test_a_damaged_start_checkpoint_is_not_trained_from(warm: Warm, store: Store, tmp_path: Path) -> None:
    start = checkpoint(tmp_path, 50)
    (start / "optimizer.pt").write_bytes(bytes((start / "optimizer.pt").stat().st_size))
    (store.inputs / "start").symlink_to(start)
    step = train_step("damaged-start", resume_from_checkpoint="inputs/start")
    assert warm.run(step) == 1
    assert "is damaged: the content of optimizer.pt is not" in outcome(store, step).message
    assert not list(store.folder(StepKind.TRAIN, step.key).model.iterdir())


def test_a_run_killed_after_its_last_checkpoint_does_not_train_one_step_more(
    warm: Warm, store: Store, plain: Step
) -> None:
    step = train_step("at-its-end")
    before, folder = losses(store, plain), store.folder(StepKind.TRAIN, step.key)
    shutil.copytree(store.folder(StepKind.TRAIN, plain.key).path, folder.path, symlinks=True)
    folder.done.unlink()  # as if it had been killed before it could record that
    assert warm.run(step) == 0
    facts = outcome(store, step).facts
    assert (facts["step"], facts["resumed_from"]) == (20, 14)
    assert losses(store, step) == before


def test_a_nonsense_target_module_fails_in_the_words_of_peft(warm: Warm, store: Store) -> None:
    step = train_step("nonsense", lora_target_modules=["nonsense"], lora_target_linear=False)
    assert warm.run(step) == 1
    ended = outcome(store, step)
    assert (ended.status, ended.reason) == (OutcomeStatus.FAILED, FailureReason.CONFIG)
    assert "Target modules {'nonsense'} not found in the base model" in ended.message


def test_two_ranks_that_fail_tell_why(warm: Warm, store: Store) -> None:
    step = train_step("nonsense-ranks", processes=2, lora_target_modules=["nonsense"], lora_target_linear=False)
    assert warm.run(step) == 1
    assert "Target modules {'nonsense'} not found" in outcome(store, step).message


def test_a_trainer_whose_rows_are_not_in_the_dataset_stops_instead_of_tokenizing(warm: Warm, store: Store) -> None:
    step = train_step("other-rows", sequence_len=100)
    assert warm.run(step) == 1
    ended = outcome(store, step)
    assert ended.reason is FailureReason.DATA
    assert "stopped instead of tokenizing again" in ended.message


def test_a_loss_that_is_not_finite_fails_the_run(warm: Warm, store: Store) -> None:
    step = train_step("diverges", learning_rate=1e30, lr_scheduler="constant", max_grad_norm=0.0)
    assert warm.run(step) == 1
    ended = outcome(store, step)
    assert ended.reason is FailureReason.NAN
    assert observe(store, StepKind.TRAIN, step.key).phase is Phase.FAILED


def test_a_run_keeps_its_wandb_id_over_its_attempts(warm: Warm, store: Store) -> None:
    first = Tracking("offline", "project", group="first-sweep", name="lora_r=8", tags=("a",))
    second = Tracking("offline", "project", group="second-sweep", name="lora_r=8", tags=("a",))
    step = train_step("tracked", tracking=first, **LONG)
    pid = warm.begin(step)
    wait_for_step(store, step, 15)
    os.killpg(pid, signal.SIGTERM)
    assert warm.end(step) == 3
    assert warm.run(train_step("tracked", tracking=second, **LONG)) == 0
    folder = store.folder(StepKind.TRAIN, "tracked")
    kept = json.loads(folder.tracking.read_text())
    assert kept["group"] == "first-sweep"
    files = sorted((folder.path / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in files] == [f"run-{kept['id']}.wandb"] * 2
    assert all(file.stat().st_size > 1000 for file in files), "closed, and not cut off with the process"


def test_children_outlive_the_launcher_and_are_looked_after(
    warm: Warm, trainer: Path, store: Store, tmp_path: Path
) -> None:
    own = make_store(tmp_path / "store")
    shutil.copytree(store.manifest("data").parent, own.manifest("data").parent)
    another = Warm.start(trainer, own)
    another.begin(train_step("orphan"))
    another.close()
    assert observe(own, StepKind.TRAIN, "orphan").phase is Phase.SUCCEEDED


def test_one_rank_under_deepspeed_finds_its_group_of_one(trainer: Path, store: Store, plain: Step) -> None:
    """As on a GPU: for a CPU, DeepSpeed would first compile collectives of its own, which takes more than a minute.
    `plain` has prepared the dataset."""
    step = train_step("zero", max_steps=2, deepspeed={"zero_optimization": {"stage": 1}, "train_batch_size": "auto"})
    assert run_fresh(trainer, store, step, DS_ACCELERATOR="cuda") == 1
    failed = outcome(store, step)
    # After the rendezvous, at the first use of a GPU by DeepSpeed.
    assert "NCCL is only supported with GPUs" in failed.message
