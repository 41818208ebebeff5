"""Steps over the tiny model and its data, and the processes that run them: what the tests of the worker share."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import modal_app
from modal_app.layout import Store
from modal_app.step import Outcome, Step, StepKind, Tracking
from runner.shipped import shipped_root

DATA, MODEL = "inputs/rows.jsonl", "inputs/model"
PACKAGE = Path(next(iter(modal_app.__path__)))
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "WANDB_ERROR_REPORTING": "false"}
CONFIG: dict[str, Any] = {
    "base_model": MODEL,
    "chat_template": "tokenizer_default",
    "datasets": [{"path": DATA, "ds_type": "json", "type": "chat_template"}],
    "val_set_size": 0.05,
    "sequence_len": 128,
    "seed": 42,
    "adapter": "lora",
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.05,  # resumed losses are equal only if the random state is restored, too
    "lora_target_linear": True,
    "lora_mlp_kernel": False,
    "lora_qkv_kernel": False,
    "lora_o_kernel": False,
    "micro_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_epochs": 1,
    "max_steps": 20,
    "logging_steps": 5,
    "eval_steps": 10,
    "save_steps": 7,
    "learning_rate": 2e-3,
    "lr_scheduler": "cosine",
    "optimizer": "adamw_torch",
    "bf16": False,
    "fp16": False,
    "tf32": False,
    "flash_attention": False,
    "gradient_checkpointing": False,
    "dataloader_num_workers": 0,
}


def make_store(root: Path) -> Store:
    """A store whose inputs are the tiny model and its rows."""
    store = Store(root)
    store.inputs.mkdir(parents=True)
    shutil.copy(shipped_root() / "tiny" / "data" / "train.jsonl", root / DATA)
    (root / MODEL).symlink_to(shipped_root() / "tiny" / "model")
    return store


def preprocess_step(key: str = "data", **changes: Any) -> Step:
    return Step(StepKind.PREPROCESS, key, CONFIG | changes, key)


def train_step(
    key: str, *, data_key: str = "data", processes: int = 1, tracking: Tracking | None = None, **changes: Any
) -> Step:
    off = Tracking("disabled")
    config = CONFIG | changes
    return Step(StepKind.TRAIN, key, config, data_key, processes, base_model="the/base", tracking=tracking or off)


def run_fresh(python: Path, store: Store, step: Step) -> int:
    """Run a step in a process of its own; returns its exit code."""
    return subprocess.run(
        [python, PACKAGE / "worker.py", "--store", store.root],
        input=step.to_json(),
        text=True,
        env=ENVIRONMENT,
        check=False,
    ).returncode


@dataclass
class Warm:
    """The preloaded process, and the events that it has told so far."""

    process: subprocess.Popen[str]
    events: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def start(cls, python: Path, store: Store) -> Warm:
        command = [python, PACKAGE / "warm.py", "--store", store.root]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        warm = cls(subprocess.Popen(command, text=True, env=ENVIRONMENT, start_new_session=True, **pipes))  # type: ignore[call-overload]
        warm.next("ready")
        return warm

    def begin(self, step: Step) -> int:
        """Start a step; returns its process."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"step": json.loads(step.to_json())}) + "\n")
        self.process.stdin.flush()
        pid: int = self.next("started", step.key)["pid"]
        return pid

    def end(self, step: Step) -> int:
        """Wait for a step's end; returns its exit code."""
        code: int = self.next("exited", step.key)["code"]
        return code

    def run(self, step: Step) -> int:
        self.begin(step)
        return self.end(step)

    def next(self, event: str, key: str | None = None) -> dict[str, Any]:
        """Take the first event of this name (and step) that has not been taken, waiting for it."""
        assert self.process.stdout is not None
        while True:
            for told in self.events:
                if told["event"] == event and told.get("key") == key:
                    self.events.remove(told)
                    return told
            line = self.process.stdout.readline()
            assert line, f"the preloaded process ended with {self.process.wait()} before {event} {key}"
            self.events.append(json.loads(line))


def outcome(store: Store, step: Step) -> Outcome:
    """How the newest attempt ended, by its own word."""
    attempt = store.folder(step.kind, step.key).attempts()[-1]
    return Outcome.from_json(attempt.result.read_text())


def lines(store: Store, step: Step) -> list[dict[str, Any]]:
    text = store.folder(step.kind, step.key).metrics.read_text()
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def losses(store: Store, step: Step) -> dict[tuple[int, str], float]:
    """Every logged loss by step, the last value told winning, rounded to what summing in another order changes."""
    return {
        (line["step"], name): round(line[name], 5)
        for line in lines(store, step)
        for name in ("loss", "eval_loss")
        if name in line
    }


def wait_for_step(store: Store, step: Step, number: int, timeout_s: float = 120) -> None:
    """Until training has logged that step."""

    def there() -> bool:
        folder = store.folder(step.kind, step.key)
        return folder.metrics.exists() and any(line["step"] >= number for line in lines(store, step))

    wait_until(there, f"{step.key} to reach step {number}", timeout_s)


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.01)


def kill_group(pid: int) -> None:
    os.killpg(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """The processes that it has forked and not reaped."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
