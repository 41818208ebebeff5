"""Steps over the tiny model and its data, and the processes that run them: what the tests of the worker share."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

import modal_app
from modal_app.process.attempt import base_environment
from modal_app.store.layout import Store
from modal_app.store.sources import RUN
from modal_app.store.step import Device, Outcome, Step, StepKind, Tracking
from modal_app.warm.address import Address
from modal_app.warm.context import Context, import_environment
from runner.config.shipped import shipped_root
from tests.forked_trainer.popen import BROKER
from tests.waiting import wait_until

DATA, MODEL = "inputs/rows.jsonl", "inputs/model"
ROWS = 600
"""Enough for the longest run, once through."""
PACKAGE = Path(next(iter(modal_app.__path__)))
OTHER_VERSION = Path(__file__).with_name("patches") / "other_version"
ENVIRONMENT = os.environ | {
    "HF_HUB_OFFLINE": "1",
    "WANDB_ERROR_REPORTING": "false",
    "AXOLOTL_DO_NOT_TRACK": "1",  # without a network, Axolotl's telemetry may wait forever when its process ends
}
CONFIG: dict[str, Any] = {
    "base_model": MODEL,
    "chat_template": "tokenizer_default",
    "datasets": [{"path": DATA, "ds_type": "json", "type": "chat_template"}],
    "val_set_size": 0.05,
    "sequence_len": 128,
    "pad_to_sequence_len": False,  # otherwise, each batch is padded to 64 tokens a row, though no row has more than 18
    "seed": 42,
    "adapter": "lora",
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.05,  # resumed losses are equal only if the random state is restored, too
    "lora_target_linear": True,
    "lora_mlp_kernel": False,
    "lora_qkv_kernel": False,
    "lora_o_kernel": False,
    "micro_batch_size": 4,
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

SLOWER: dict[str, Any] = {"pad_to_sequence_len": None}
"""Axolotl's default: batches are padded to 64 tokens a row, so that steps take half as long again. For tests that act
between two steps."""


def make_store(root: Path) -> Store:
    """A store whose inputs are the tiny model and some of its rows."""
    store = Store(root)
    store.inputs.mkdir(parents=True)
    rows = (shipped_root() / "tiny" / "data" / "train.jsonl").read_text().splitlines(keepends=True)
    (root / DATA).write_text("".join(rows[:ROWS]))
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


def run_fresh(python: Path, store: Store, step: Step, **variables: str) -> int:
    """Run a step in a process of its own; returns its exit code."""
    return subprocess.run(
        [python, RUN, "worker", "--store", store.root],
        input=step.to_json(),
        text=True,
        env={**ENVIRONMENT, **variables},
        check=False,
    ).returncode


def run_with_other_version(python: Path, store: Store, step: Step, gone: str) -> int:
    """Run a step in processes that import everything themselves, of a library that lacks something in the module
    `gone`; returns the exit code."""
    other = {"PYTHONPATH": str(OTHER_VERSION), "OTHER_VERSION": gone, BROKER: ""}
    return subprocess.run(
        [python, "-u", RUN, "worker", "--store", store.root],  # with an option before the program, it is not a fork
        input=step.to_json(), text=True, env={**ENVIRONMENT, **other}, check=False,
    ).returncode  # fmt: skip


@dataclass
class Warm:
    """The preloaded process, and its events so far."""

    process: subprocess.Popen[bytes]
    here: Address
    line: socket.socket
    heard: BufferedReader
    events: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def start(cls, python: Path, store: Store, environment: Mapping[str, str] = ENVIRONMENT) -> Warm:
        """A preloaded process that ends with its last command. This test is its first command."""
        folder = tempfile.mkdtemp(prefix="axosweep-", dir="/tmp")  # a socket's name is short
        atexit.register(shutil.rmtree, folder, ignore_errors=True)  # even if the test fails
        here = Address(Path(folder) / "warm")
        variables = import_environment({**environment, **base_environment(Device.CPU)})
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(here.socket))
            listener.listen()
            options = ["--store", str(store.root), "--address", str(here.stem), "--listen", str(listener.fileno())]
            command: list[str | Path] = [python, RUN, "preloaded-trainer", *options]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL, env=variables, start_new_session=True, pass_fds=(listener.fileno(),),
            )  # fmt: skip
        return cls.join(process, here, environment)

    @classmethod
    def join(cls, process: subprocess.Popen[bytes], here: Address, environment: Mapping[str, str]) -> Warm:
        """Connect as another command."""
        line = socket.socket(socket.AF_UNIX)
        line.connect(str(here.socket))
        warm = cls(process, here, line, line.makefile("rb"))
        warm.say(context=Context.of_this_process(environment).as_json())
        warm.events.append(json.loads(warm.heard.readline()))
        if warm.events[0]["event"] == "ready":
            warm.next("ready")
        return warm

    def say(self, **request: Any) -> None:
        self.line.sendall(json.dumps(request).encode() + b"\n")

    def leave(self) -> None:
        self.heard.close()
        self.line.close()

    def close(self) -> None:
        """Disconnect as the last command, and wait for its end."""
        self.leave()
        assert self.process.wait(timeout=60) == 0

    def begin(self, step: Step) -> int:
        """Start a step; returns its process."""
        self.say(step=json.loads(step.to_json()))
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
        while True:
            for told in self.events:
                if told["event"] == event and told.get("key") == key:
                    self.events.remove(told)
                    return told
            line = self.heard.readline()
            assert line, f"the preloaded process ended with {self.process.wait()} before {event} {key}"
            self.events.append(json.loads(line))


def outcome(store: Store, step: Step) -> Outcome:
    """How the newest attempt ended, according to its result."""
    attempt = store.folder(step.kind, step.key).attempts()[-1]
    return Outcome.from_json(attempt.result.read_text())


def lines(store: Store, step: Step) -> list[dict[str, Any]]:
    text = store.folder(step.kind, step.key).metrics.read_text()
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def losses(store: Store, step: Step) -> dict[tuple[int, str], float]:
    """Every logged loss by step, the last value of each, rounded so that another order of summing makes no
    difference."""
    return {
        (line["step"], name): round(line[name], 5)
        for line in lines(store, step)
        for name in ("loss", "eval_loss")
        if name in line
    }


def wait_for_step(store: Store, step: Step, number: int, timeout_s: float = 120) -> None:
    """Wait until training has logged that step."""

    def there() -> bool:
        folder = store.folder(step.kind, step.key)
        return folder.metrics.exists() and any(line["step"] >= number for line in lines(store, step))

    wait_until(there, f"{step.key} to reach step {number}", timeout_s)


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
