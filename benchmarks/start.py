"""How much processor time the shortest commands take: help, the status of 20 sweeps, the plan of one run.

    .venv/bin/python benchmarks/start.py

`plan` needs the trainer environment once, for Axolotl's verdict on its run, which is remembered. Writes
benchmarks/results/start.json; docs/benchmarks.md has the figures. Each command runs five times; the least time counts,
since other work on the machine only adds to it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe
from modal_app.store.layout import Store
from tests.runner.builders import finish_run, open_sweep, run

HERE = Path(__file__).resolve().parent
REPEATS = 5
SWEEPS, RUNS = 20, 10
COMMANDS = ("--help", "status", "plan lora=r8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the shortest commands.")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "start.json")
    args = parser.parse_args()
    machine = describe(("hydra-core", "rich"))
    with tempfile.TemporaryDirectory(prefix="axosweep-benchmark-") as name:
        store = Store(Path(name))
        for sweep in range(SWEEPS):
            runs = [run({"base_model": "tiny", "seed": sweep, "learning_rate": rate}) for rate in range(RUNS)]
            open_sweep(store, runs, f"sweep-{sweep}")
            for one in runs:
                finish_run(store, one, {10: 1.0})
        taken = {command: _least(command.split(), store) for command in COMMANDS}
    result = {"sweeps": SWEEPS, "runs_each": RUNS, "commands": taken, "machine": machine}
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def _least(words: list[str], store: Store) -> dict[str, float]:
    command = [sys.executable, "-m", "runner", *words]
    environment = {**os.environ, "AXOSWEEP_STORE": str(store.root)}
    taken = []
    for _ in range(1 + REPEATS):  # the first one writes bytecode and gets Axolotl's verdict
        before, began = os.times(), time.perf_counter()
        subprocess.run(command, cwd=HERE.parent, env=environment, capture_output=True, check=True)
        seconds, after = time.perf_counter() - began, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        taken.append((cpu, seconds))
    return {
        "cpu_seconds": round(min(cpu for cpu, _ in taken), 3),
        "seconds": round(min(seconds for _, seconds in taken), 3),
    }


if __name__ == "__main__":
    main()
