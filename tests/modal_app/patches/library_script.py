"""Real libraries before and after their patches, outside of a run; prints what they do as JSON.

Run with the trainer's Python and this checkout in PYTHONPATH: `python library_script.py FOLDER`.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from modal_app.patches import apply
from modal_app.store.step import Device, Step, StepKind, Tracking
from runner.config.shipped import shipped_root

STEP = Step(StepKind.TRAIN, "run", {}, "data", device=Device.CPU, tracking=Tracking("offline"))


def not_a_number(folder: Path) -> float | None:
    """What a trainer logs for a loss that is not finite; None for NaN."""
    import torch
    from transformers import Trainer, TrainingArguments

    class Broken(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: Any) -> dict[str, Any]:
            return {"loss": (self.weight * math.nan).sum()}

    arguments = TrainingArguments(str(folder), max_steps=1, logging_steps=1, report_to=[], use_cpu=True)
    trainer = Trainer(Broken(), arguments, train_dataset=[{"x": torch.ones(1)}] * 8)
    apply.apply_trainer_patches(trainer, None)
    trainer.train()
    loss = float(trainer.state.log_history[0]["loss"])
    return None if math.isnan(loss) else loss


def cached_rows(folder: Path) -> list[str]:
    """What is in the folder once rows were read from a file."""
    import datasets

    (folder / "rows.jsonl").write_text('{"a": 1}\n')
    apply.cache_datasets_in(folder / "cache")
    datasets.load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train")
    return [path.name for path in (folder / "cache").glob("json")]


def pictured_rows(folder: Path) -> list[str]:
    """The digests of a row with a picture: in one folder, in another, inside the row, and of another picture."""
    import datasets

    from modal_app.steps.fingerprint import row_digests

    def digest(name: str, colour: bytes, *, inside: bool = False) -> str:
        path = folder / name / "picture.ppm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"P6 1 1 255\n" + colour)
        stored = {"bytes": path.read_bytes() if inside else None, "path": str(path)}
        rows = datasets.Dataset.from_dict({"text": ["a"], "images": [[stored]]})
        return row_digests(rows.cast_column("images", datasets.List(datasets.Image())))[0]

    red, blue = b"\xff\0\0", b"\0\0\xff"
    return [digest("a", red), digest("b", red), digest("c", red, inside=True), digest("d", blue)]


def offline() -> list[list[bool]]:
    from datasets import config
    from huggingface_hub import is_offline_mode

    found = []
    for variables in ({}, {"HF_HUB_OFFLINE": "1"}, {"HF_DATASETS_OFFLINE": "1"}):
        apply.be_offline_as(variables)
        found.append([is_offline_mode(), config.HF_DATASETS_OFFLINE])
    apply.be_offline_as({"HF_HUB_OFFLINE": "1"})
    return found


def cached_file(folder: Path) -> list[bool]:
    """Whether the hub's library finds a file before, in and after the block."""
    from huggingface_hub import try_to_load_from_cache

    repository = folder / "hub" / "datasets--owner--name"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "file").touch()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")

    def found() -> bool:
        return isinstance(try_to_load_from_cache("owner/name", "file", repo_type="dataset"), str)

    before = found()
    with apply.hub_cache_in(folder / "hub"):
        within = found()
    return [before, within, found()]


def reaches() -> list[str]:
    import torch

    def answer() -> str:
        try:
            return str(torch.cuda.can_device_access_peer(0, 1))
        except (AssertionError, RuntimeError) as error:
            return type(error).__name__

    before = answer()
    apply.apply_cpu_rank_patches()
    return [before, answer()]


def schema_builds() -> list[int]:
    """How often the schema is built for three configs: before the patch, while it is applied, after it."""
    config: Any = importlib.import_module("axolotl.utils.config")
    build, counts = config.merge_input_args, [0]

    def counted() -> Any:
        counts[-1] += 1
        return build()

    def validate() -> None:
        for rate in (1e-3, 1e-4, 1e-5):
            data = {"datasets": [{"path": "a/b", "type": "alpaca"}], "base_model": "a/b", "learning_rate": rate}
            checked = config.DictDefault({**data, "micro_batch_size": 1, "gradient_accumulation_steps": 1})
            config.validate_config(checked, capabilities={"bf16": False}, env_capabilities={"torch_version": "2.14.0"})

    config.merge_input_args = counted
    validate()
    counts.append(0)
    apply.apply_schema_patches()
    counts.append(0)
    validate()
    return counts


def tracked(folder: Path) -> dict[str, Any]:
    """What W&B does before and after the patches of a tracked run."""
    from wandb import util
    from wandb.sdk.lib.service import service_port_file as service

    theirs, slow = listed_packages(util)
    before = looks(service, folder / "port")
    apply.apply_run_patches(STEP)
    ours, fast = listed_packages(util)
    packages = {"equal": theirs == ours, "count": len(ours), "times": slow / fast}
    return {"packages": packages, "service": [before, looks(service, folder / "port")]}


def listed_packages(util: Any) -> tuple[set[tuple[str, str]], float]:
    """Names and versions, and the processor seconds that it took."""
    began = time.process_time()
    found = {(one.key, one.version) for one in util.working_set()}
    return found, time.process_time() - began


def looks(service: Any, file: Path) -> int:
    """How often W&B looks for its service, which takes half a second to start."""
    sleep, counted, until = service._SLEEP, SimpleNamespace(looks=0), time.monotonic() + 0.5

    def sleep_and_answer_late(seconds: float) -> None:
        counted.looks += 1
        sleep(seconds)
        if time.monotonic() > until:
            file.write_text("sock=7\nEOF")

    service._SLEEP = sleep_and_answer_late
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    token = service.poll_for_token(file, process, timeout=30)
    process.kill()
    process.wait()
    file.unlink()
    service._SLEEP = sleep
    assert token._port == 7
    return int(counted.looks)


def asked_for_native_code() -> tuple[bool, list[str]]:
    """Whether bitsandbytes would get its kernel from the hub in a process that is online, and which hosts it asks."""
    import socket

    from kernels import get_kernel

    from modal_app.process import imports

    imports.load((), Device.CPU)
    asked: list[str] = []

    def refuse(host: Any, *_: Any, **__: Any) -> Any:
        asked.append(str(host))
        raise OSError("refused")

    look_up, socket.getaddrinfo = socket.getaddrinfo, refuse
    try:
        get_kernel("kernels-community/quantization-bitsandbytes", version=1)
    except FileNotFoundError:
        return False, asked
    except Exception as error:  # whatever the error is, the library has gone on to look for the kernel
        return True, [*asked, repr(error)]
    finally:
        socket.getaddrinfo = look_up
    return True, asked


def restarts(folder: Path) -> list[dict[str, Any]]:
    """How two ranks restart ReLoRA from different random states, before the patches and after."""
    return [_restarted(folder / "before"), _restarted(folder / "after", patched=True)]


def _restarted(folder: Path, *, patched: bool = False) -> dict[str, Any]:
    import peft
    import torch
    from axolotl.monkeypatch.relora import ReLoRACallback
    from axolotl.utils.dict import DictDefault

    if patched:
        apply.apply_run_patches(replace(STEP, processes=2, config={"relora": True}))
    folder.mkdir()
    arguments = SimpleNamespace(seed=1, optim="adamw_torch", output_dir=str(folder), relora_prune_ratio=None)
    drawn = []
    for rank in range(2):
        torch.manual_seed(rank)
        model: Any = peft.get_peft_model(
            torch.nn.Sequential(torch.nn.Linear(4, 4)), peft.LoraConfig(target_modules=["0"])
        )
        callback = ReLoRACallback(DictDefault({"base_model": str(folder), "jagged_restart_steps": 2}))
        callback.on_step_begin(
            arguments, SimpleNamespace(global_step=2), None, model, optimizer=torch.optim.AdamW(model.parameters())
        )
        drawn.append(model.model[0].lora_A["default"].weight.tolist())
    return {"equal": drawn[0] == drawn[1], "saved": [path.name for path in folder.iterdir()]}


def texts_cut_into_rows() -> tuple[bool, list[int]]:
    """Whether texts give the same columns inside the patch's block, and the rows of each text that the patch
    reports."""
    from axolotl.prompt_strategies.completion import CompletionPrompter, CompletionPromptTokenizingStrategy
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shipped_root() / "tiny" / "model")
    strategy = CompletionPromptTokenizingStrategy(CompletionPrompter(), tokenizer, True, 8, max_length=32)
    texts = {"text": ["", "one short", "a text of many words " * 20, "one short"], "other": [1, 2, 3, 4]}
    before, told = strategy.tokenize_prompt(texts), list[int]()
    with apply.note_where_rows_are_from(lambda *_: None, lambda rows: told.append(len(rows.get("input_ids", ())))):
        inside = strategy.tokenize_prompt(texts)
    return list(before.items()) == list(inside.items()) and strategy.tokenize_prompt(texts) == before, told


def main(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tracked(folder)
    found |= {"loss": not_a_number(folder / "model"), "offline": offline(), "rows": cached_rows(folder)}
    return found | {
        "file": cached_file(folder),
        "pictures": pictured_rows(folder),
        "reaches": reaches(),
        "restarts": restarts(folder),
        "schema": schema_builds(),
        "texts": texts_cut_into_rows(),
        "native": asked_for_native_code(),
    }


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of libraries is not part of it
    json.dump(main(Path(sys.argv[1])), answer)
    answer.flush()
