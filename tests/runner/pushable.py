"""A store with a finished run as its worker leaves it, small enough to be written by hand, and what is secret in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from modal_app.cloud.meter import Card, ContainerRecord
from modal_app.store.layout import SUBMISSION, Store, after_key
from modal_app.store.step import Outcome, OutcomeStatus, StepKind
from runner.types import Gpu, Input, InputKind, Run
from tests.runner import builders
from tests.runner.report_store import RATES

TOKEN = "hf_" + "t" * 32
PLACE = "/srv/customers/acme"
"""A folder of the user who trained it."""
HUB_BASE, COMMIT = "maker/base-8b", "b" * 40
DATA_SHA = "d" * 64
LEFT = ("debug.log", "training_args.bin", "README.md", "config.json")
ADAPTER_FILES = [
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "axosweep.json",
    "chat_template.jinja",
    "config.yml",
    "tokenizer.json",
    "tokenizer_config.json",
]
"""What is pushed of a run that has an adapter; LEFT stays."""


def finished_run(store: Store, *, base: str = HUB_BASE, adapter: str | None = "lora", rank: int = 8) -> Run:
    """A successful run of one sweep, with the files that Axolotl leaves."""
    axolotl: dict[str, Any] = {
        "base_model": base,
        "datasets": [{"path": f"{PLACE}/answers.jsonl", "type": "chat_template"}, {"path": "maker/rows", "type": "x"}],
        "learning_rate": 0.001,
        "hf_api_key": TOKEN,
        **({} if adapter is None else {"adapter": adapter, "lora_r": rank}),
    }
    on_hub = base == HUB_BASE
    inputs = (
        Input("base_model", base, InputKind.HUB if on_hub else InputKind.FOLDER, COMMIT if on_hub else "a" * 64),
        Input("datasets.0.path", f"{PLACE}/answers.jsonl", InputKind.FILE, DATA_SHA),
        Input("datasets.1.path", "maker/rows", InputKind.HUB, "c" * 40),
    )
    words = [f"data.path={PLACE}/answers.jsonl", "learning_rate=1e-3", f"hf_api_key={TOKEN}"]
    one = builders.run(axolotl, inputs=inputs, gpu=Gpu("h100", 2), overrides=words)
    builders.open_sweep(store, [one], "answers")
    builders.log_losses(store, one, {0: 1.9, 50: 0.61, 100: 0.6272})
    folder = store.folder(StepKind.TRAIN, one.key)
    identity = json.loads(folder.identity.read_text())
    identity |= {"overrides": words, "trainer_lock": "e" * 64}
    identity["inputs"] = [{"at": found.at, "text": found.text, "identity": found.identity} for found in inputs]
    folder.identity.write_text(json.dumps(identity))
    folder.config.write_text(yaml.safe_dump(dict(one.config)))
    _command(store, f"axosweep {' '.join(words)} store={PLACE}/out gpu=h100 gpu.count=2")
    versions = {"axolotl": "0.21.0", "transformers": "5.20.1", "torch": "2.14.0", "datasets": "5.0.1"}
    manifest = {"rows": 1641, "eval_rows": 87, "tokens": 25145, "eval_fingerprint": "rows", "versions": versions}
    builders.finish(store, StepKind.PREPROCESS, one.data_key, manifest=manifest)
    builders.finish(store, StepKind.TRAIN, one.key)
    _rent(store, one.key, folder.containers)
    weights(folder.model, adapter=adapter is not None, base=base)
    return one


def _rent(store: Store, key: str, containers: Path) -> None:
    """One container with two cards, for 1000 seconds."""
    record = ContainerRecord(
        task="ta-1", call="fc-1", step=f"train/{key}", booted_at=1000.0, began_at=1010.0, seen_at=2000.0, ended=True,
        seconds=1000.0, attempts=(1,), cards=(Card("NVIDIA H100 80GB HBM3", 81559, 41000, 87.0),) * 2,
        cores_reserved=0.125, cores_used=1.0, memory_gib_reserved=0.125, memory_gib_used=9.5,
    )  # fmt: skip
    containers.mkdir()
    (containers / "ta-1.json").write_text(record.to_json())
    (sweep,) = store.sweeps.iterdir()
    (sweep / SUBMISSION).write_text(json.dumps({"steps": [{"key": key, "fetches": []}], "rates": RATES}))


def weights(model: Path, *, adapter: bool, base: str = HUB_BASE) -> None:
    """What Axolotl leaves in output_dir."""
    files: Mapping[str, Any] = {
        "tokenizer.json": {"model": {"vocab": {"/home": 1}}},
        "tokenizer_config.json": {"model_max_length": 256, "is_local": True, "local_files_only": True},
        "chat_template.jinja": "{{ messages }}",
        "config.json": {"model_type": "llama", "_name_or_path": f"{PLACE}/base"},
        "debug.log": f"reading {PLACE}",
        "README.md": f"base_model: {PLACE}/base",
        "training_args.bin": "pickled",
        "checkpoint-50/optimizer.pt": "moments",
        "checkpoint-50/adapter_model.safetensors": "earlier weights",
    }
    of_adapter: dict[str, Any] = {
        "adapter_config.json": {"base_model_name_or_path": base, "peft_type": "LORA", "r": 8, "revision": None},
        "adapter_model.safetensors": "the adapter's weights",
    }
    whole: dict[str, Any] = {"model.safetensors": "the model's weights", "generation_config.json": {"do_sample": True}}
    for name, content in {**files, **(of_adapter if adapter else whole)}.items():
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def _command(store: Store, command: str) -> None:
    for path in store.sweeps.glob("*/plan.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"command": command}))


def evaluate_on_tasks(store: Store, one: Run) -> None:
    """What `axosweep eval --tasks` leaves of one task of the harness and one of the user's own."""
    facts = {
        "metrics": {
            "tasks/arc_easy@limit=100,fewshot=5,plain/acc": 0.5,
            "tasks/arc_easy@limit=100,fewshot=5,plain/acc_norm": 0.25,
            "tasks/quiz/exact_match,strict-match": 0.9453125,
            "eval_loss": 0.6,
        },
        "stderr": {"tasks/arc_easy@limit=100,fewshot=5,plain/acc": 0.0502},
        "datasets": {"arc_easy": {"path": "allenai/ai2_arc", "config": "ARC-Easy", "split": "test"}},
    }
    folder = store.folder(StepKind.EVALUATE, after_key(one.key, "abc"))
    folder.path.mkdir(parents=True)
    folder.done.write_text(Outcome(OutcomeStatus.SUCCEEDED, 1, 1.0, 2.0, facts=facts).to_json())
