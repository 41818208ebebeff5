"""Shared by the benchmarks of training: one environment for all sides, timing a command, reading its runs' logs.

Every side is read in the same way: losses from the trainer's own state, with all digits; Hugging Face's train_runtime
from the last line that it prints, the only place that has it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.pace import Pace
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.environment import trainer_environment

TRAIN_RUNTIME = re.compile(r"'train_runtime': '([0-9.e+-]+)'")
ENVIRONMENT = {
    "AXOLOTL_DO_NOT_TRACK": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "",  # the next command uses the compiled bytecode, as on any user's machine
    "PYTHONPATH": "",
    "TOKENIZERS_PARALLELISM": "false",
}
"""The same for Axolotl alone and for axosweep, which sets most of it itself."""
TAIL_BYTES = 4000

Losses = Mapping[str, Mapping[str, float]]
"""By run key, then by `step name`."""


class CommandFailed(Exception):
    """A side of a benchmark failed, so nothing is measured."""


@dataclass(frozen=True)
class Timed:
    """A command from its start to its end."""

    seconds: float
    cpu_s: float
    """Processor seconds of the processes that it waited for, so not of a server that outlives it."""
    loop_ms: float
    """How slow the machine was during the command (pace.py)."""

    def steady_s(self, loop_ms: float) -> float:
        """The seconds that it would have taken at another pace."""
        return self.seconds * loop_ms / self.loop_ms


@dataclass(frozen=True)
class Trained:
    """The results of one run."""

    losses: Mapping[str, float]
    train_runtime_s: float | None
    """None if no line contains it."""
    seconds: float | None = None
    """Of the run alone, from its own record; None for plain Axolotl, which has no record."""


def timed(command: Sequence[str | Path], folder: Path, log: Path, **variables: str) -> Timed:
    """Run a command to its end, with its output in `log`. Raises CommandFailed with the end of the output."""
    programs = trainer_environment.find().parent  # `axolotl train` looks for accelerate and torchrun
    path = os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, **ENVIRONMENT, "PATH": path, **variables}
    began, before = time.perf_counter(), os.times()
    with log.open("wb") as file, Pace() as pace:
        done = subprocess.run(
            list(command), cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False
        )
    seconds, after = time.perf_counter() - began, os.times()
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{tail(log)}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Timed(round(seconds, 2), round(cpu, 2), pace.loop_ms)


def tail(log: Path) -> str:
    return log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")


def axolotl(*words: str | Path) -> list[str | Path]:
    """Axolotl's command in the trainer environment."""
    return [trainer_environment.find().parent / "axolotl", *words]


def axosweep(*words: str) -> list[str | Path]:
    """The command of this checkout, from any folder."""
    return [sys.executable, "-P", "-m", "runner", *words]


def median(tries: Sequence[Timed]) -> float:
    return round(statistics.median(one.seconds for one in tries), 2)


def written_configs(folder: Path, words: Sequence[str], log: Path) -> dict[str, dict[str, Any]]:
    """The Axolotl config of each run of a sweep, as `axosweep plan --write` writes it, by run key."""
    target = folder / "configs"
    timed(axosweep("plan", *words, "--write", str(target), f"store={folder / 'plan'}"), folder, log)
    files = [path for path in sorted(target.glob("*.yml")) if not path.name.startswith("prepare-")]
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in files}


def trained_by_axolotl(output: Path, log: Path) -> Trained:
    """`log` contains the output of this run. If it also contains that of others, the train_runtime is unknown."""
    runtimes = TRAIN_RUNTIME.findall(log.read_text(encoding="utf-8", errors="replace"))
    return Trained(logged_losses(output), float(runtimes[0]) if len(runtimes) == 1 else None)


def train_runtimes(log: Path) -> list[float]:
    """The train_runtime of every run that printed into a log, in the order of the log."""
    return [float(one) for one in TRAIN_RUNTIME.findall(log.read_text(encoding="utf-8", errors="replace"))]


def trained_by_axosweep(store: Store, key: str) -> Trained:
    folder = store.folder(StepKind.TRAIN, key)
    result = json.loads(folder.done.read_text(encoding="utf-8"))
    runtimes = train_runtimes(folder.attempt(result["attempt"]).log)
    seconds = result["finished_at"] - result["started_at"]
    return Trained(logged_losses(folder.model), runtimes[-1] if runtimes else None, seconds)


def logged_losses(output: Path) -> dict[str, float]:
    """Every loss and eval loss up to the newest checkpoint, by step and name, from the trainer's own state."""
    states = sorted(output.glob("checkpoint-*/trainer_state.json"), key=lambda path: int(path.parent.name[11:]))
    logs = json.loads(states[-1].read_text(encoding="utf-8"))["log_history"]
    return {f"{log['step']} {name}": log[name] for log in logs for name in ("loss", "eval_loss") if name in log}


def store_with_dataset(base: Path, store: Path) -> None:
    """Create a store with the prepared dataset of another store, and none of its runs or caches."""
    store.mkdir(parents=True)
    for name in ("inputs", "prepared"):
        shutil.copytree(base / name, store / name, symlinks=True)


def versions(store: Path) -> dict[str, str]:
    """The versions of the trainer's libraries, from the manifest of the store's dataset."""
    manifest = next((store / "prepared").glob("*/manifest.json"))
    found: dict[str, str] = json.loads(manifest.read_text(encoding="utf-8"))["versions"]
    return found


def require_warm_server(store: Path, log: Path) -> None:
    """Raises CommandFailed when no preloaded trainer waits for the store's next command."""
    command = axosweep("warm", "status", "--json", "--store", str(store))
    done = subprocess.run(command, cwd=log.parent, env={**os.environ, **ENVIRONMENT}, capture_output=True, check=True)
    if not json.loads(done.stdout)["trainers"]:
        raise CommandFailed(f"No preloaded trainer waits for {store}. The command before it printed:\n{tail(log)}")


def stop_warm_server(store: Path, log: Path) -> None:
    """Does nothing if none runs."""
    timed(axosweep("warm", "stop", "--store", str(store)), log.parent, log.with_name("stop.txt"))
