"""Runs that read their own data: a stream of the hub, a stream of a file, rows that are not prepared beforehand, and
rows with pictures for a tiny vision model; on this machine, on two ranks, and on the local Modal. No dataset is
prepared for any of them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from modal_app.store.facts import TrainFacts
from modal_app.store.layout import Store
from modal_app.store.step import OutcomeStatus, StepKind
from runner.config.shipped import shipped_root
from runner.environment import trainer_environment
from tests.end_to_end.axosweep import Axosweep, kill_all
from tests.end_to_end.on_modal import local_modal, machine, with_axolotl
from tests.hub_server import COMMIT, Hub, Repository, serve_hub
from tests.modal_app.rows import read_rows, trainers_loss
from tests.modal_app.steps import ENVIRONMENT
from tests.modal_server.fixture import needs_mounts

pytestmark = pytest.mark.slow

TINY = shipped_root() / "tiny"
TEXT, HELD_OUT = "owner/text", "owner/chat"
SHORT: Mapping[str, Any] = {
    "base_model": str(TINY / "model"),
    "model_type": "LlamaForCausalLM",
    "chat_template": "tokenizer_default",
    "sequence_len": 128,
    "max_steps": 6,
    "micro_batch_size": 4,
    "adapter": "lora",
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_target_linear": True,
    "learning_rate": 1e-3,
    "optimizer": "adamw_torch",
    "lr_scheduler": "constant",
    "logging_steps": 1,
    "save_steps": 4,
    "dataset_num_proc": 1,
    "seed": 42,
}
CHAT = {"path": "rows.jsonl", "ds_type": "json", "type": "chat_template"}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "pretraining": {
        "streaming": True,
        "pretraining_dataset": [{"path": TEXT, "revision": COMMIT, "type": "pretrain", "skip": 3}],
        "test_datasets": [{**CHAT, "split": "train[:20]"}],
    },
    "stream": {"streaming": True, "datasets": [CHAT]},
    "tokens": {
        "skip_prepare_dataset": True,
        "datasets": [{"path": "tokens.jsonl", "ds_type": "json"}],
        "val_set_size": 0.1,
    },
    "vision": {
        "base_model": "sees",
        "model_type": None,
        "processor_type": "AutoProcessor",
        "skip_prepare_dataset": True,
        "remove_unused_columns": False,
        "chat_template": "llava",
        "datasets": [{"path": "seen.jsonl", "ds_type": "json", "type": "chat_template"}],
        "val_set_size": 0.1,
        "lora_target_linear": None,
        "lora_target_modules": r"model.language_model.layers.[\d]+.(mlp|self_attn).(up|down|gate|q|k|v|o)_proj",
    },
}
ON_MODAL = {
    "hub": {
        **CONFIGS["pretraining"],
        "base_model": "owner/tiny",
        "test_datasets": [{"path": HELD_OUT, "revision": COMMIT, "type": "chat_template", "split": "train[:20]"}],
    }
}
"""A stream, and held-out rows that are downloaded, of a hub whose cache is mounted read-only."""
OWN = {
    "pretraining": "pretraining_dataset",
    "stream": "streaming",
    "tokens": "skip_prepare_dataset",
    "vision": "skip_prepare_dataset",
}
ALL = ("-m", f"base={','.join(f'{name}.yml' for name in CONFIGS)}", "gpu=cpu", "tracking=disabled")

TRAIN_ONLY = ("test_datasets=null", "tracking=disabled")
"""Without held-out rows, since computing their losses takes longer than the training."""


@dataclass(frozen=True)
class Swept:
    """A finished sweep with one run of each config."""

    here: Axosweep
    printed: str
    keys: Mapping[str, str]
    """Run keys by the name of the config."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub whose datasets have only the pinned commit: reading their newest one fails."""
    text, chat = tmp_path_factory.mktemp("text"), tmp_path_factory.mktemp("chat")
    lines = [{"text": " ".join(one["content"] for one in row["messages"])} for row in _rows(200)]
    (text / "train.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (chat / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in _rows(80)))
    with serve_hub("owner/tiny", TINY / "model") as hub:
        for name, folder in ((TEXT, text), (HELD_OUT, chat)):
            hub.repositories[f"datasets/{name}"] = Repository(folder, COMMIT, ())
        yield hub


@pytest.fixture(scope="module")
def swept(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    place = tmp_path_factory.mktemp("own")
    for name in ("work", "store"):
        (place / name).mkdir()
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(place / "home")}
    here = Axosweep(Store(place / "store"), place / "work", variables).waiting()
    _make_model_that_sees(here.folder / "sees")
    write_configs(here.folder)
    done = here.run(*ALL)
    assert done.returncode == 0, done.stderr
    yield Swept(here, done.stdout, {name: _key(here.store, name) for name in CONFIGS})
    kill_all(here.processes())


def _make_model_that_sees(folder: Path) -> None:
    command = [trainer_environment.find(), Path(__file__).with_name("vision_model_script.py"), TINY / "model", folder]
    subprocess.run(command, env={**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""}, check=True)


def write_configs(folder: Path) -> None:
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in _rows(80)))
    tokens = [{"input_ids": ids, "attention_mask": [1] * len(ids), "labels": ids} for ids in ([5, 6, 7, 8], [9, 8, 7])]
    (folder / "tokens.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in tokens * 40))
    answers = {"red": "water", "green": "tea", "blue": "coffee"}
    for colour in answers:
        paint(folder, colour, colour)
    (folder / "seen.jsonl").write_text("".join(f"{json.dumps(_seen(*one))}\n" for one in [*answers.items()] * 20))
    for name, config in {**CONFIGS, **ON_MODAL}.items():
        chosen = {key: value for key, value in {**SHORT, **config}.items() if value is not None}
        (folder / f"{name}.yml").write_text(yaml.safe_dump(chosen))


def paint(folder: Path, name: str, colour: str) -> None:
    """A picture of one colour, named from the folder in which the command runs."""
    value = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}[colour]
    (folder / "pictures").mkdir(exist_ok=True)
    (folder / "pictures" / f"{name}.ppm").write_bytes(b"P6 40 30 255\n" + bytes(value) * (40 * 30))


def _seen(picture: str, answer: str) -> dict[str, Any]:
    shown = [{"type": "image", "path": f"pictures/{picture}.ppm"}, {"type": "text", "text": "name the drink"}]
    said = [{"type": "text", "text": answer}]
    return {"messages": [{"role": "user", "content": shown}, {"role": "assistant", "content": said}]}


def _rows(number: int) -> list[dict[str, Any]]:
    lines = (TINY / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:number]]


def _key(store: Store, name: str) -> str:
    """The key of the run of a config."""
    identities = [json.loads(path.read_text()) for path in store.runs.glob("*/run.json")]
    (key,) = [one["key"] for one in identities if f"base={name}.yml" in one["overrides"]]
    return str(key)


def facts(store: Store, key: str) -> dict[str, Any]:
    told = json.loads(store.folder(StepKind.TRAIN, key).done.read_text())
    assert told["status"] == OutcomeStatus.SUCCEEDED
    return dict(told["facts"])


def losses(store: Store, key: str) -> dict[int, float]:
    return logged(store, key, "loss")


def logged(store: Store, key: str, name: str) -> dict[int, float]:
    """The losses by step; of a repeated step, those of the newest attempt."""
    lines = [json.loads(text) for text in store.folder(StepKind.TRAIN, key).metrics.read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line and {"loss", "eval_loss"} & line.keys()}


def test_each_run_reads_its_own_data_and_nothing_is_prepared(swept: Swept) -> None:
    store = swept.here.store
    for name, key in swept.keys.items():
        told = facts(store, key)
        assert (told["own_data"], told["step"]) == (OWN[name], SHORT["max_steps"])
        assert f" own data, so nothing is prepared or shared ({OWN[name]}: " in swept.printed
    assert "no dataset to prepare" in swept.printed
    assert not store.prepared.exists()
    assert {record["kind"] for record in swept.here.records("submitted")} == {"train"}
    assert not list(store.runs.glob("*/attempt-1/datasets-cache")), "rows of one attempt are left"
    assert not (store.root.parent / "home" / "datasets" / "json").exists(), "rows are left in the user's cache"


def test_a_stream_of_the_hub_is_read_at_its_commit(swept: Swept, hub: Hub) -> None:
    """The hub has no other commit, so it is enough that this run has read it."""
    assert facts(swept.here.store, swept.keys["pretraining"])["own_data"] == "pretraining_dataset"
    assert hub.asked[f"datasets/{TEXT}/train.jsonl"] > 0


def test_held_out_rows_have_a_name_where_there_are_any(swept: Swept) -> None:
    names = {name: facts(swept.here.store, key)["eval_fingerprint"] for name, key in swept.keys.items()}
    assert names.pop("stream") is None
    assert None not in names.values()
    assert len(set(names.values())) == len(names)
    assert TrainFacts.of(facts(swept.here.store, swept.keys["tokens"])).eval_fingerprint == names["tokens"]
    rows = {row["key"]: row for row in swept.here.json("compare")["runs"]}
    assert {name: rows[key]["final"] is None for name, key in swept.keys.items()} == {
        "pretraining": False,
        "stream": True,
        "tokens": False,
        "vision": False,
    }


def test_their_rows_have_losses_unless_they_are_tokenized_late(swept: Swept) -> None:
    """Rows of test_datasets, and rows that come as tokens; not those with pictures."""
    store = swept.here.store
    for name in ("pretraining", "tokens"):
        rows = read_rows(store.folder(StepKind.TRAIN, swept.keys[name]).losses)
        told = facts(store, swept.keys[name])
        assert "no_row_losses" not in told
        assert (rows.about.step, rows.about.eval_fingerprint) == (SHORT["max_steps"], told["eval_fingerprint"])
        assert trainers_loss(rows) == pytest.approx(rows.about.eval_loss, rel=1e-5)
        assert rows.about.eval_loss == logged(store, swept.keys[name], "eval_loss")[rows.about.step]
    reasons = {name: facts(store, swept.keys[name])["no_row_losses"] for name in ("vision", "stream")}
    assert "tokenized while the run trains" in reasons["vision"]
    assert reasons["stream"] == "there are no held-out rows"
    assert not list(store.runs.glob(f"{swept.keys['vision']}/losses*"))


def test_a_later_request_does_not_miss_a_dataset(swept: Swept) -> None:
    here = swept.here
    again = here.run(*ALL)
    assert "4 runs finished before, skipped; nothing to do" in again.stdout
    planned = here.json("plan", *ALL)
    assert {one["own_data"]["key"] for one in planned["runs"]} == set(OWN.values())
    assert planned["datasets"] == []
    (page,) = here.store.sweeps.glob("*/report.html")
    assert '"own":"streaming: ' in page.read_text().replace('": "', '":"')
    for words in (("status",), ("data",), ("ls", swept.keys["tokens"]), ("rm", swept.keys["tokens"], "--dry-run")):
        shown = here.run(*words)
        assert shown.returncode == 0, shown.stderr
        assert not {"damaged", "prepared", "missing"} & set(shown.stdout.split())
    refused = here.run("eval", swept.keys["tokens"])
    assert refused.returncode == 2
    assert "reads its own data (skip_prepare_dataset)" in refused.stderr


def test_what_needs_a_prepared_dataset_is_refused_before_anything_starts(swept: Swept) -> None:
    done = swept.here.run("base=tokens.yml", "data.seed=1", "gpu=cpu", "tracking=disabled")
    assert done.returncode == 2
    assert "data.seed=1: it is the seed of preparing a dataset" in done.stderr
    done = swept.here.run("base=stream.yml", "stages=[preprocess]", "gpu=cpu", "tracking=disabled")
    assert done.returncode == 2
    assert "without train there is nothing to do" in done.stderr


def test_two_ranks_read_each_row_once(swept: Swept) -> None:
    """Half the batch on each of two ranks equals the batch of one process, so they count the same tokens. Axolotl
    averages the ranks' means, so the losses are only close."""
    here = swept.here
    words = ("-m", "base=pretraining.yml,stream.yml", "micro_batch_size=2", "gpu=cpu", "gpu.count=2", *TRAIN_ONLY)
    rows = here.json(*words)["runs"]
    assert [row["status"] for row in rows] == ["succeeded", "succeeded"]
    for row in rows:
        told = facts(here.store, row["key"])
        assert told["world_size"] == 2
        name = "pretraining" if told["own_data"] == "pretraining_dataset" else "stream"
        assert logged(here.store, row["key"], "tokens") == logged(here.store, swept.keys[name], "tokens")
        assert losses(here.store, row["key"]) == pytest.approx(losses(here.store, swept.keys[name]), rel=2e-2)


@needs_mounts
def test_on_modal_runs_wait_for_no_dataset_and_have_their_pictures_or_read_the_hub(
    swept: Swept, hub: Hub, tmp_path: Path
) -> None:
    with local_modal(with_axolotl(container_environment={"HF_ENDPOINT": hub.url})) as server:
        on_modal = machine(server, tmp_path / "machine", HF_ENDPOINT=hub.url)
        shutil.copytree(swept.here.folder / "sees", on_modal.folder / "sees")
        write_configs(on_modal.folder)
        rows = on_modal.json("-m", "base=hub.yml,vision.yml", "gpu=cpu", "executor=modal", "tracking=disabled")["runs"]
        assert [row["status"] for row in rows] == ["succeeded", "succeeded"], [row["message"] for row in rows]
        assert Counter(task.function for task in server.tasks()) == {"fetch": 1, "train": 2}
    mirror, store = Store(on_modal.store.root / "modal"), swept.here.store
    assert losses(mirror, _key(mirror, "hub")) == losses(store, swept.keys["pretraining"])
    assert losses(mirror, _key(mirror, "vision")) == losses(store, swept.keys["vision"])


def test_with_another_picture_it_is_another_run_with_other_losses(swept: Swept) -> None:
    here, before = swept.here, swept.keys["vision"]
    paint(here.folder, "red", "white")
    (row,) = here.json("base=vision.yml", "gpu=cpu", "tracking=disabled")["runs"]
    paint(here.folder, "red", "red")
    assert (row["status"], row["key"] == before) == ("succeeded", False)
    assert losses(here.store, row["key"])[1] != losses(here.store, before)[1]


def test_a_run_that_was_lost_resumes_in_the_middle_of_its_stream(swept: Swept) -> None:
    here, key = swept.here, swept.keys["stream"]
    before = losses(here.store, key)
    folder = here.store.folder(StepKind.TRAIN, key)
    folder.done.unlink()
    for path in (folder.attempt(1).result, folder.model / "checkpoint-6" / "trainer_state.json"):
        path.unlink()
    assert here.run("base=stream.yml", "gpu=cpu", "tracking=disabled").returncode == 0
    assert facts(here.store, key)["resumed_from"] == 4
    assert losses(here.store, key) == before
