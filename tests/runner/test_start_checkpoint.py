"""from=RUN[@STEP]: which checkpoint it means, what identifies its content, and which runs may go on from it."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modal_app.cloud.settings import trainer_identity
from modal_app.store import checkpoints
from modal_app.store.layout import Store
from modal_app.store.start_checkpoint import CONFIG_KEY, place
from modal_app.store.step import OutcomeStatus, StepKind
from runner.cli import main
from runner.compare.params import params_of
from runner.environment import trainer_environment
from runner.errors import SweepError
from runner.keys.identity import identify_run
from runner.launch.start_checkpoint import (
    check_checkpoint_fits,
    checkpoint_input,
    find_start_checkpoint,
    identity_of,
    keep_checkpoint,
    with_start_checkpoints,
)
from runner.types import ExecutorChoice, Experiment, Gpu, Run
from tests.modal_app.deployments import shipped
from tests.runner import builders
from tests.runner.checkpointed import AXOLOTL, checkpoint, source


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def asking(asked: str | None, known: Store, *, gpu: Gpu | None = None, **axolotl: Any) -> Run:
    """A run that should go on from a checkpoint, identified."""
    experiment = builders.experiment({**AXOLOTL, **axolotl}, gpu=gpu)
    (one,) = with_start_checkpoints([replace(experiment, from_text=asked)], [known])
    inputs = [checkpoint_input(one.start_checkpoint)] if one.start_checkpoint else []
    return identify_run(one, inputs, trainer_lock=builders.LOCK)


def refusal(asked: str, store: Store) -> str:
    with pytest.raises(SweepError) as caught:
        find_start_checkpoint(asked, [store])
    return str(caught.value)


def test_a_run_alone_means_its_newest_complete_checkpoint_and_a_step_that_one(store: Store) -> None:
    one = source(store, 50, 100)
    checkpoint(store.folder(StepKind.TRAIN, one.key).model, 150, complete=False)
    assert (find_start_checkpoint(one.key, [store]).run, find_start_checkpoint(one.key, [store]).step) == (one.key, 100)
    assert find_start_checkpoint(f"{one.key[:5]}@50", [store]).step == 50


def test_what_does_not_exist_is_refused_with_what_exists(store: Store) -> None:
    one = source(store, 50, 100)
    assert "There is no run or sweep nope" in refusal("nope", store)
    assert f"{one.key} has no complete checkpoint of step 70. There are: 50, 100." in refusal(f"{one.key}@70", store)
    assert "RUN or RUN@STEP is expected" in refusal(f"{one.key}@last", store)
    assert "RUN or RUN@STEP is expected" in refusal("@50", store)


def test_an_unfinished_run_is_gone_on_from_only_by_its_step(store: Store) -> None:
    one = source(store, 50, status=OutcomeStatus.STOPPED)
    assert f"has not finished (it is stopped), so its newest checkpoint may still change. Name one: from={one.key}@50" in refusal(one.key, store)  # fmt: skip # noqa: E501
    assert find_start_checkpoint(f"{one.key}@50", [store]).step == 50


def test_a_run_without_complete_checkpoints_says_how_to_get_some(store: Store) -> None:
    one = source(store)
    checkpoint(store.folder(StepKind.TRAIN, one.key).model, 50, complete=False)
    assert "has no complete checkpoint (it is succeeded). A run saves some with save_steps=N" in refusal(one.key, store)


def test_a_checkpoint_without_its_optimizer_is_refused(store: Store) -> None:
    one = source(store, 50)
    path = store.folder(StepKind.TRAIN, one.key).model / "checkpoint-50"
    (path / "optimizer.pt").unlink()
    checkpoints.mark_complete(path, {})
    assert f"has no optimizer state (save_only_model), so no run can continue from it. To use only its weights: lora_model_dir={path}" in refusal(one.key, store)  # fmt: skip # noqa: E501


def test_the_content_is_in_the_run_key_and_not_in_the_data_key(store: Store) -> None:
    one = source(store, 50, 100)
    plain, early, late = (asking(asked, store) for asked in (None, f"{one.key}@50", f"{one.key}@100"))
    assert len({plain.key, early.key, late.key}) == 3
    assert {plain.data_key, early.data_key, late.data_key} == {one.data_key}
    model = store.folder(StepKind.TRAIN, one.key).model
    shutil.rmtree(model / "checkpoint-50")
    checkpoint(model, 50, weights="other weights")
    assert asking(f"{one.key}@50", store).key != early.key


def test_the_same_content_of_another_run_in_another_folder_is_the_same_key(tmp_path: Path) -> None:
    here = checkpoint(tmp_path / "a", 50)
    there = checkpoint(tmp_path / "b", 50)
    assert identity_of(here) == identity_of(there)
    (there / "adapter_model.safetensors").write_text("others")
    assert identity_of(here) != identity_of(there)


@pytest.mark.parametrize("change", [{"since": 49, "loss": 0.3}, {"since": 48, "loss": 0.25}])
def test_the_loss_that_is_not_logged_yet_counts_since_the_first_line_tells_it(
    tmp_path: Path, change: dict[str, float]
) -> None:
    one, other = checkpoint(tmp_path / "a", 50), checkpoint(tmp_path / "b", 50)
    checkpoints.mark_complete(other, change)
    assert identity_of(one) != identity_of(other)


def test_a_stored_checkpoint_outlives_its_run_and_says_nothing_about_its_end(store: Store) -> None:
    one = source(store, 100)
    start = find_start_checkpoint(one.key, [store])
    target = store.inputs / start.identity[:16]
    keep_checkpoint(Path(start.folder), start.identity, target)
    shutil.rmtree(store.runs)
    assert checkpoints.is_complete(target)
    assert identity_of(target) == start.identity
    assert checkpoints.unlogged(target) == {"since": 99, "loss": 0.25}
    state = json.loads((target / "trainer_state.json").read_text())
    assert (state["global_step"], state["max_steps"], state["log_history"], state["best_metric"]) == (100, 0, [], None)
    assert state["stateful_callbacks"] == {
        "TrainerControl": {"args": {"should_training_stop": False, "should_save": False}, "attributes": {}}
    }
    assert not {"training_args.bin", "tokens_state.json", "README.md"} & {path.name for path in target.iterdir()}
    assert str(store.root).encode() not in b"".join(path.read_bytes() for path in target.iterdir())


def test_of_two_launches_that_store_a_checkpoint_at_once_the_second_leaves_the_copy_of_the_first(store: Store) -> None:
    """A run of the first may be reading it."""
    one = source(store, 100)
    start = find_start_checkpoint(one.key, [store])
    target = store.inputs / start.identity[:16]
    context = multiprocessing.get_context("fork")
    begin, found = context.Barrier(2), context.SimpleQueue()

    def launch() -> None:
        begin.wait()
        keep_checkpoint(Path(start.folder), start.identity, target)
        found.put(target.stat().st_ino)

    launches = [context.Process(target=launch) for _ in range(2)]
    for each in launches:
        each.start()
    for each in launches:
        each.join()
    assert [each.exitcode for each in launches] == [0, 0]
    assert {found.get(), found.get()} == {target.stat().st_ino}
    assert [path.name for path in store.inputs.iterdir()] == [target.name]


def test_a_stored_checkpoint_at_its_runs_end_can_be_resumed_from(store: Store) -> None:
    one = source(store, 100)
    start = find_start_checkpoint(one.key, [store])
    target = store.inputs / start.identity[:16]
    keep_checkpoint(Path(start.folder), start.identity, target)
    model = store.root / "model"
    model.mkdir()
    place(target, model)
    assert checkpoints.set_aside_unusable(model) == model / "checkpoint-100"


def test_placing_that_was_killed_is_begun_again(store: Store) -> None:
    one = source(store, 50)
    start = find_start_checkpoint(one.key, [store])
    target = store.inputs / start.identity[:16]
    keep_checkpoint(Path(start.folder), start.identity, target)
    model = store.root / "model"
    (model / "checkpoint-50").mkdir(parents=True)
    (model / "checkpoint-50" / "optimizer.pt").write_text("half")
    assert checkpoints.set_aside_unusable(model) is None
    place(target, model)
    assert checkpoints.is_complete(model / "checkpoint-50")
    assert (model / "checkpoint-50" / "optimizer.pt").read_text() == "moments 50"


def test_a_checkpoint_that_changes_while_it_is_stored_is_refused(store: Store) -> None:
    one = source(store, 50)
    start = find_start_checkpoint(one.key, [store])
    target = store.inputs / start.identity[:16]
    (Path(start.folder) / "optimizer.pt").write_text("moments of")
    with pytest.raises(SweepError, match="was changed or removed after it was found"):
        keep_checkpoint(Path(start.folder), start.identity, target)
    (Path(start.folder) / "optimizer.pt").unlink()
    with pytest.raises(SweepError, match="was changed or removed after it was found"):
        keep_checkpoint(Path(start.folder), start.identity, target)
    assert not list(store.inputs.glob("*"))


def test_a_checkpoint_that_its_run_has_removed_is_found_among_the_stored_inputs(store: Store) -> None:
    one = source(store, 50, 100)
    later = asking(f"{one.key}@50", store)
    start = later.experiment.start_checkpoint
    assert start is not None
    keep_checkpoint(Path(start.folder), start.identity, store.inputs / start.identity[:16])
    folder = store.folder(StepKind.TRAIN, later.key)
    folder.path.mkdir(parents=True)
    folder.identity.write_text(json.dumps({"from": {"run": one.key, "step": 50, "identity": start.identity}}))
    shutil.rmtree(store.folder(StepKind.TRAIN, one.key).model / "checkpoint-50")
    assert asking(f"{one.key}@50", store).key == later.key


def test_what_the_run_has_now_comes_before_what_was_stored_of_it(store: Store) -> None:
    """It was removed and trained again, and the same run gave other bits."""
    one = source(store, 50)
    later = asking(f"{one.key}@50", store)
    start = later.experiment.start_checkpoint
    assert start is not None
    keep_checkpoint(Path(start.folder), start.identity, store.inputs / start.identity[:16])
    folder = store.folder(StepKind.TRAIN, later.key)
    folder.path.mkdir(parents=True)
    folder.identity.write_text(json.dumps({"from": {"run": one.key, "step": 50, "identity": start.identity}}))
    now = store.folder(StepKind.TRAIN, one.key).model / "checkpoint-50"
    shutil.rmtree(now)
    checkpoint(now.parent, 50, weights="other weights")
    assert find_start_checkpoint(f"{one.key}@50", [store]).identity == identity_of(now) != start.identity


@pytest.mark.parametrize(
    ("axolotl", "says"),
    [
        ({"lora_r": 16}, "lora_r is 16, and was 8 there"),
        ({"adapter": None}, "adapter is None, and was lora there"),
        ({"optimizer": "adamw_8bit"}, "optimizer is adamw_8bit, and was adamw_torch there"),
        ({"micro_batch_size": 8}, "micro_batch_size is 8, and was 4 there"),
        ({"sequence_len": 128}, "its data is different"),
        ({"deepspeed": "zero1.json"}, "deepspeed is set, and a run cannot continue from a sharded checkpoint"),
        ({"save_only_model": True}, "save_only_model is set"),
        ({"max_steps": 50}, "max_steps=100 trains 50 more"),
    ],
)
def test_what_does_not_fit_the_checkpoint_is_refused_before_anything_starts(
    store: Store, axolotl: dict[str, Any], says: str
) -> None:
    one = source(store, 50)
    with pytest.raises(SweepError) as caught:
        check_checkpoint_fits(asking(f"{one.key}@50", store, **axolotl))
    assert says in str(caught.value)
    assert "To begin from scratch with its weights: " in str(caught.value)


def test_a_flag_that_is_off_is_like_one_without_a_value(store: Store) -> None:
    one = source(store, 50)
    check_checkpoint_fits(asking(f"{one.key}@50", store, load_in_4bit=False, load_in_8bit=False))
    with pytest.raises(SweepError, match="load_in_4bit is True, and was None there"):
        check_checkpoint_fits(asking(f"{one.key}@50", store, load_in_4bit=True))


def test_another_trainer_is_named_instead_of_other_data(store: Store) -> None:
    one = source(store, 50)
    there = trainer_identity(trainer_environment.lock_hash(), None, "3.13")
    asked = asking(f"{one.key}@50", store)
    before = identify_run(replace(asked.experiment, start_checkpoint=None), (), trainer_lock=there)
    identity = store.folder(StepKind.TRAIN, one.key).identity
    known = json.loads(identity.read_text()) | {"data_key": before.data_key, "trainer_lock": there}
    identity.write_text(json.dumps(known))
    modal = replace(asked.experiment, executor=ExecutorChoice("modal", modal=shipped()))
    with pytest.raises(SweepError) as caught:
        check_checkpoint_fits(replace(asked, experiment=modal))
    assert "its trainer is different (Python 3.12, and Python 3.13 there), so" in str(caught.value)
    assert "its data is different" not in str(caught.value)


def test_another_number_of_ranks_is_refused(store: Store) -> None:
    one = source(store, 50)
    with pytest.raises(SweepError, match=r"gpu\.count is 2, and was 1 there"):
        check_checkpoint_fits(asking(f"{one.key}@50", store, gpu=Gpu("cpu", 2)))


@pytest.mark.parametrize(
    "axolotl",
    [{"learning_rate": 1e-4}, {"max_steps": 200}, {"lr_scheduler": "linear"}, {"eval_steps": 3}, {"lora_dropout": 0.3}],
)
def test_how_it_goes_on_is_its_own(store: Store, axolotl: dict[str, Any]) -> None:
    one = source(store, 50)
    check_checkpoint_fits(asking(f"{one.key}@50", store, **axolotl))


def test_runs_that_differ_in_where_they_began_are_distinguished_by_that(store: Store) -> None:
    one = source(store, 50, 100)
    experiments: list[Experiment] = [asking(f"{one.key}@{step}", store).experiment for step in (50, 100)]
    assert params_of(experiments) == [{"from": f"{one.key}@50"}, {"from": f"{one.key}@100"}]


def test_the_stored_config_names_the_checkpoint_by_its_content(store: Store) -> None:
    one = source(store, 50)
    later = asking(f"{one.key}@50", store)
    assert later.experiment.start_checkpoint is not None
    assert later.config[CONFIG_KEY] == f"inputs/{later.experiment.start_checkpoint.identity[:16]}"


@pytest.mark.parametrize("asked", ["12e345678901", "012345678901", "0123456789ab", "012345678901@50"])
def test_a_key_that_hydra_would_read_as_a_number_is_still_a_key(
    store: Store, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source(store, 50)
    assert main(["plan", "-m", f"from={asked},nosuch", f"store={store.root}"]) == 2
    assert f"There is no run or sweep {asked.partition('@')[0]} in {store.root}." in capsys.readouterr().err


def garble(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def test_a_damaged_checkpoint_is_refused_and_a_stored_copy_of_it_is_taken(store: Store) -> None:
    one = source(store, 50, 100)
    later = asking(f"{one.key}@50", store)
    start = later.experiment.start_checkpoint
    assert start is not None
    garble(Path(start.folder) / "optimizer.pt")
    says = f"checkpoint-50 of {one.key} is damaged: the content of optimizer.pt is not the one that was written"
    assert says in refusal(f"{one.key}@50", store)
    folder = store.folder(StepKind.TRAIN, later.key)
    folder.path.mkdir(parents=True)
    folder.identity.write_text(json.dumps({"from": {"run": one.key, "step": 50, "identity": start.identity}}))
    shutil.rmtree(start.folder)
    whole = checkpoint(Path(start.folder).parent, 50)
    keep_checkpoint(whole, start.identity, store.inputs / start.identity[:16])
    garble(whole / "optimizer.pt")
    assert find_start_checkpoint(f"{one.key}@50", [store]).folder == str(store.inputs / start.identity[:16])


def test_a_stored_checkpoint_that_was_damaged_is_copied_again(store: Store) -> None:
    one = source(store, 50)
    start = find_start_checkpoint(f"{one.key}@50", [store])
    target = store.inputs / start.identity[:16]
    keep_checkpoint(Path(start.folder), start.identity, target)
    garble(target / "optimizer.pt")
    keep_checkpoint(Path(start.folder), start.identity, target)
    assert checkpoints.damage_of(target) == ""
