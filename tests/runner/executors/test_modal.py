"""What would be called on Modal, before any call. tests/end_to_end/test_modal*.py test the calls."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import modal
import pytest
from modal.types import FileEntryType

from modal_app.cloud.job import Job, job_name, steps_file
from modal_app.store.layout import STEPS, Store
from modal_app.store.step import Step
from runner.config.gpus import modal_gpu
from runner.errors import SweepError
from runner.executors.modal_datasets import damaged_datasets
from runner.executors.modal_inputs import put_input, upload_inputs
from runner.executors.modal_submission import mirrored_steps
from runner.executors.modal_work import Work, make_work
from runner.keys.content import ContentHashes, keep
from runner.types import Gpu, Input, InputKind, Plan
from tests.modal_server import ModalServer
from tests.modal_server.fixture import client_of
from tests.runner.builders import plan, run

COMMIT = "a" * 40
ADAPTER_COMMIT = "b" * 40


def job(step: Step) -> Job:
    return Job(
        name=job_name(step.kind, step.key), sweep=step.sweep, app="app", function=str(step.kind), claims="claims",
        cache_volume="c", runs_volume="r", options={"gpu": "H100:8", "timeout": 86400, "max_containers": 64},
    )  # fmt: skip


def work(made: Plan, done: set[str]) -> Work:
    return make_work(made, job, done)


def waiting(made: Work, name: str) -> list[str]:
    return [one.name for one in made.waiting.get(name, ())]


def sweep(store: Store, *, hub: bool = False, rates: int = 2) -> Plan:
    """Two datasets with that many runs each."""
    model = Input("base_model", "owner/model", InputKind.HUB, COMMIT)
    configs = [
        {"base_model": "owner/model" if hub else "inputs/abc", "sequence_len": length, "learning_rate": rate}
        for length in (64, 128)
        for rate in range(rates)
    ]
    return plan([run(config, inputs=[model] if hub else []) for config in configs], store)


def test_a_dataset_is_called_and_its_runs_wait_for_it(store: Store) -> None:
    made = sweep(store)
    called = work(made, set())
    assert [one.name for one in called.first] == [f"preprocess/{dataset.key}" for dataset in made.datasets]
    for dataset in made.datasets:
        assert waiting(called, f"preprocess/{dataset.key}") == [f"train/{key}" for key in dataset.runs]
    assert all(one.awaited for one in called.first)


def test_what_is_done_there_is_not_called_again_but_its_step_can_be_read(store: Store) -> None:
    made = sweep(store)
    first, second = made.datasets
    done = {f"preprocess-{first.key}", f"train-{first.runs[0]}", *(f"train-{key}" for key in second.runs)}
    called = work(made, done)
    assert [one.name for one in called.first] == [f"train/{first.runs[1]}"]
    assert not called.waiting
    assert len(called.steps) == 2 + 4


def test_a_hub_model_is_fetched_once_before_all_that_needs_it(store: Store) -> None:
    made = sweep(store, hub=True)
    called = work(made, set())
    assert [one.name for one in called.first] == [f"fetch/owner/model@{COMMIT}"]
    datasets = [f"preprocess/{dataset.key}" for dataset in made.datasets]
    assert waiting(called, called.first[0].name) == datasets
    assert [waiting(called, name) for name in datasets] == [[f"train/{k}" for k in one.runs] for one in made.datasets]
    assert called.first[0].name in called.steps


def test_a_model_that_is_there_is_not_fetched_again(store: Store) -> None:
    called = work(sweep(store, hub=True), {f"fetch-owner-model@{COMMIT}"})
    assert [one.function for one in called.first] == ["preprocess", "preprocess"]


def test_a_model_and_an_adapter_are_fetched_one_after_the_other_and_the_adapter_for_each_model(store: Store) -> None:
    """A waiting job starts when the one before it has ended: the same adapter after another model is another job."""
    model, other = (Input("base_model", f"owner/{name}", InputKind.HUB, COMMIT) for name in ("model", "other"))
    adapter = Input("lora_model_dir", "owner/adapter", InputKind.HUB, ADAPTER_COMMIT)
    runs = [
        run({"base_model": one.text, "lora_model_dir": "owner/adapter", "lora_r": 8}, inputs=[one, adapter])
        for one in (model, other)
    ]
    plain = run({"base_model": "owner/model", "lora_r": 8}, inputs=[model])
    made = plan([*runs, plain], store)
    called = work(made, set())
    assert [one.name for one in called.first] == [f"fetch/owner/{name}@{COMMIT}" for name in ("model", "other")]
    behind, plain_data = waiting(called, called.first[0].name)
    assert behind.startswith(f"fetch/owner/adapter@{ADAPTER_COMMIT}/behind/")
    assert plain_data == f"preprocess/{plain.data_key}"
    assert waiting(called, behind) == [f"preprocess/{runs[0].data_key}"]
    (behind_other,) = waiting(called, called.first[1].name)
    assert behind_other != behind
    assert waiting(called, behind_other) == [f"preprocess/{runs[1].data_key}"]
    later = work(made, {f"fetch-owner-model@{COMMIT}"})
    assert behind in [one.name for one in later.first]


def test_a_mirror_knows_what_comes_before_each_dataset(store: Store) -> None:
    steps = mirrored_steps(sweep(store, hub=True))
    assert [step.fetches for step in steps if step.kind == "preprocess"] == [(f"fetch/owner/model@{COMMIT}",)] * 2
    assert not any(step.fetches for step in steps if step.kind == "train")


def test_a_call_is_short_whatever_its_config_and_however_many_runs_wait(store: Store, tmp_path: Path) -> None:
    """Modal accepts an argument of up to 8 KiB with the call; steps and waiting jobs are on the Volume."""
    made = sweep(store, rates=300)
    long = made.runs[0].step
    assert isinstance(long.config, dict)
    long.config["chat_template_jinja"] = "x" * 20_000
    called = work(made, set())
    assert len(called.waiting[called.first[0].name]) == 300
    (tmp_path / "sweeps" / made.sweep).mkdir(parents=True)
    (tmp_path / "sweeps" / made.sweep / STEPS).write_text(steps_file(called.steps, called.waiting))
    for one in (*called.first, *called.waiting[called.first[0].name]):
        text = one.to_json()
        assert len(text) < 1024
        assert Job.from_json(text) == one
        assert one.read_step(tmp_path) == called.steps[one.name]
        assert one.read_waiting(tmp_path) == list(called.waiting.get(one.name, ()))


@pytest.mark.parametrize(
    ("gpu", "says"),
    [(Gpu("rtx4090", 1), "there is no such GPU"), (Gpu("h100", 16), "at most 8"), (Gpu("a10", 8), "at most 4")],
)
def test_gpus_that_modal_does_not_have_are_refused(gpu: Gpu, says: str) -> None:
    with pytest.raises(SweepError, match=says):
        modal_gpu(gpu.type, gpu.count)


def test_of_a_folder_the_files_of_its_identity_are_uploaded_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "tokenizer"
    model = tmp_path / "model"
    for path in (elsewhere / "vocab.json", model / "weights.bin", model / ".env", model / ".git" / "weights.bin"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    (model / "tokenizer").symlink_to(elsewhere)
    with ModalServer() as server, client_of(server, monkeypatch) as client:
        volume = modal.Volume.from_name("cache", create_if_missing=True, version=2, client=client)
        with volume.batch_upload() as batch:
            put_input(batch, model, "/inputs/a")
            put_input(batch, elsewhere / "vocab.json", "/inputs/b.json")
        there = [entry.path for entry in volume.listdir("/", recursive=True) if entry.type is FileEntryType.FILE]
    assert sorted(there) == ["inputs/a/tokenizer/vocab.json", "inputs/a/weights.bin", "inputs/b.json"]


def test_a_model_that_changes_while_it_is_uploaded_is_not_left_under_the_old_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, model = Store(tmp_path / "out"), tmp_path / "model"
    model.mkdir()
    (model / "weights.bin").write_text("as planned")
    edited = tmp_path / "edited"
    edited.write_text("edited")
    hashes = ContentHashes(store.cache / "hashes.json")
    name = f"inputs/{hashes.of(model)[:16]}"
    keep(model, hashes.of(model), store.root / name, hashes)
    with ModalServer() as server, client_of(server, monkeypatch) as client:
        volume = modal.Volume.from_name("cache", create_if_missing=True, version=2, client=client)
        server.act("VolumePutFiles2", lambda: os.replace(edited, model / "weights.bin"), nth=2, after=True)
        with pytest.raises(SweepError, match=r"Nothing was submitted: .*weights\.bin changed after"):
            upload_inputs(volume, store, [name])
        assert not [entry for entry in volume.listdir("/", recursive=True) if entry.type is FileEntryType.FILE]
        (model / "weights.bin").write_text("as planned")
        upload_inputs(volume, store, [name])
        assert {entry.path for entry in volume.listdir("inputs")} == {name, f"{name}.pin.json"}


def test_a_dataset_on_the_volume_whose_files_have_other_sizes_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows").write_text("rows")
    with ModalServer() as server, client_of(server, monkeypatch) as client:
        volume = modal.Volume.from_name("cache", create_if_missing=True, version=2, client=client)
        manifest = {
            "files": {"hash/rows.arrow": {"bytes": 4, "sha256": ""}, "samples.json": {"bytes": 4, "sha256": ""}}
        }
        with volume.batch_upload() as batch:
            for key in ("whole", "cut", "old", "empty"):
                batch.put_file(tmp_path / "rows", f"/prepared/{key}/hash/rows.arrow")
                text = "" if key == "empty" else '{"rows": 1}' if key == "old" else json.dumps(manifest)
                batch.put_file(io.BytesIO(text.encode()), f"/prepared/{key}/manifest.json")
            batch.put_file(tmp_path / "rows", "/prepared/whole/samples.json")
        damage = damaged_datasets(volume, ["whole", "cut", "old", "empty", "none"])
    assert damage == {"cut": "samples.json is missing", "empty": "its manifest.json is empty or damaged"}
