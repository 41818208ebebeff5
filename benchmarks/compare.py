"""How much processor time `axosweep compare` takes for a sweep of 200 runs.

    .venv/bin/python benchmarks/compare.py

The store is created for it: each run has trained on Modal for 200 steps, and has all of Axolotl's log lines and the
record of its container. Writes benchmarks/results/compare.json; docs/benchmarks.md has the figures. Nothing is cached
between two commands: each reads all files again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from modal_app.cloud.meter import Card, ContainerRecord
from modal_app.store.layout import SUBMISSION, Store
from modal_app.store.step import StepKind
from runner.types import Gpu, Run
from tests.runner.builders import finish_run, open_sweep, run

HERE = Path(__file__).resolve().parent
REPEATS = 5
RATES = {"h100": 0.001097, "cpu": 0.0000131, "memory": 0.00000222}
COMMANDS: tuple[list[str], ...] = ([], ["--json"], ["--over", "seed"], ["--sort", "dollars", "--where", "lora_r=8"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Time axosweep compare.")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=200, help="logged by each run")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "compare.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="axosweep-benchmark-") as name:
        store = Store(Path(name))
        make_sweep(store, args.runs, args.steps)
        seconds = {" ".join(["compare", *words]): cpu_seconds(store, words) for words in COMMANDS}
    result = {"runs": args.runs, "steps": args.steps, "cpu_seconds": seconds, "machine": describe(["rich"])}
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def make_sweep(store: Store, number: int, steps: int, *, seeds: int = 5) -> list[Run]:
    """Every run has finished: ranks x seeds x as many learning rates as necessary."""
    rates = range(1, 1 + -(-number // (4 * seeds)))
    grid = [(rank, seed, rate) for rate in rates for rank in (4, 8, 16, 32) for seed in range(seeds)]
    runs = [_run(rank, seed, rate * 1e-5) for rank, seed, rate in grid[:number]]
    planned = open_sweep(store, runs, "benchmark")
    for one in runs:
        finish_run(store, one, {})
        _write(store, one, steps)
    priced = {name: {"dollars": dollars, "origin": "modal"} for name, dollars in RATES.items()}
    dated = {"rates": priced, "date": "2026-11-01", "table_date": "2026-09-20"}
    submission = {"steps": [{"key": one.key} for one in runs], "rates": dated}
    (store.sweeps / planned.sweep / SUBMISSION).write_text(json.dumps(submission))
    return runs


def cpu_seconds(store: Store, words: list[str]) -> float:
    """Processor seconds of the complete command, user and system; the least of several repeats."""
    command = [sys.executable, "-m", "runner", "compare", *words, "--store", str(store.root)]
    taken = []
    for _ in range(REPEATS):
        before = os.times()
        subprocess.run(command, cwd=HERE.parent, stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return round(min(taken), 3)


def _run(rank: int, seed: int, rate: float) -> Run:
    config = {
        "base_model": "NousResearch/Meta-Llama-3-8B-Instruct",
        "adapter": "lora",
        "lora_r": rank,
        "lora_alpha": 2 * rank,
        "learning_rate": rate,
        "seed": seed,
        **{f"key_{index}": index for index in range(40)},  # as many as a composed config has
    }
    return run(config, gpu=Gpu("h100", 1))


def _write(store: Store, one: Run, steps: int) -> None:
    folder = store.folder(StepKind.TRAIN, one.key)
    drawn = random.Random(one.key)
    with folder.metrics.open("w", encoding="utf-8") as file:
        for step in range(steps + 1):
            line = _line(step, drawn)
            if step:
                file.write(json.dumps(line | _trained(step, drawn)) + "\n")
            if step % max(1, steps // 10) == 0:
                file.write(json.dumps(line | _evaluated(step, drawn)) + "\n")
    (attempt,) = folder.attempts()
    attempt.train_state.write_text(json.dumps({"max_steps": steps, "phases": {"first": 2.0, "train": 240.0}}))
    card = Card("NVIDIA H100 80GB HBM3", 81559, 41000, 87.0)
    record = ContainerRecord(
        "ta-1", "fc-1", "train", 1.0, 2.0, 300.0, True, 300.0, (1,), (card,), 0.125, 1.0, 0.125, 9.0
    )
    folder.containers.mkdir()
    (folder.containers / "ta-1.json").write_text(record.to_json())


def _line(step: int, drawn: random.Random) -> dict[str, Any]:
    memory = {f"memory/{name} (GiB)": 30.0 + drawn.random() for name in ("max_active", "max_allocated", "reserved")}
    return {"attempt": 1, "step": step, "epoch": step / 206, "time": 1.0 + step, "seconds": 1.2 * step, **memory}


def _trained(step: int, drawn: random.Random) -> dict[str, Any]:
    return {
        "loss": 2.0 / (1 + step / 50) + drawn.random() / 10,
        "grad_norm": drawn.random(),
        "learning_rate": drawn.random() * 1e-4,
        "ppl": drawn.random() * 8,
        "tokens": 4096 * step,
        "tokens/trainable": 4096 * step,
        "tokens/total": 8192 * step,
        "tokens/train_per_sec_per_gpu": 3400 * drawn.random(),
    }


def _evaluated(step: int, drawn: random.Random) -> dict[str, Any]:
    loss = 2.1 / (1 + step / 50) + drawn.random() / 10
    return {"eval_loss": loss, "eval_ppl": 8.0, "eval_runtime": 4.0, "eval_samples_per_second": 20.0}


if __name__ == "__main__":
    main()
