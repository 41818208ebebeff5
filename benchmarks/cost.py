"""How close the estimates of `plan` are to the measured seconds of tiny sweeps, after one sweep of another size.

    .venv/bin/python benchmarks/cost.py

Needs the trainer environment. Writes benchmarks/results/cost.json; docs/benchmarks.md has the figures. Errors in
processor seconds come from the estimate alone; errors in seconds also depend on other work of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CALIBRATION = ("-m", "lora=r8,r16", "max_steps=60", "tracking=disabled")
SWEEPS = {
    "three times the steps": ("-m", "lora=r8,r16", "max_steps=180", "tracking=disabled"),
    "two epochs of half the rows": ("-m", "lora=r8,r16", "data.limit=800", "tracking=disabled"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the estimates of plan.")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "cost.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="axosweep-benchmark-") as folder:
        store = Path(folder)
        _axosweep(store, *CALIBRATION)
        plans = {name: json.loads(_axosweep(store, "plan", *words, "--json")) for name, words in SWEEPS.items()}
        results = {name: _measured(store, words, plans[name]) for name, words in SWEEPS.items()}
    result = {
        "calibration": " ".join(CALIBRATION),
        "sweeps": results,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    json.dump(result, sys.stdout, indent=1)
    print()


def _measured(store: Path, words: tuple[str, ...], plan: dict[str, Any]) -> dict[str, Any]:
    """Sums over the runs of a sweep."""
    _axosweep(store, *words)
    runs = plan["cost"]["runs"]
    results = [json.loads((store / "runs" / run["key"] / "result.json").read_text()) for run in runs]
    seconds = sum(result["finished_at"] - result["started_at"] for result in results)
    cpu = sum(sum(result["facts"]["cpu"].values()) for result in results)
    predicted_cpu, predicted = sum(run["cpu_seconds"] for run in runs), plan["cost"]["seconds"]["likely"]
    return {
        "command": " ".join(words),
        "steps": [run["steps"] for run in runs],
        "steps_taken": [result["facts"]["step"] for result in results],
        "cpu_s": {"predicted": round(predicted_cpu, 2), "measured": round(cpu, 2), "off": _off(predicted_cpu, cpu)},
        "seconds": {"predicted": round(predicted, 2), "measured": round(seconds, 2), "off": _off(predicted, seconds)},
        "within_the_range": plan["cost"]["seconds"]["low"] <= seconds <= plan["cost"]["seconds"]["high"],
    }


def _off(predicted: float, measured: float) -> float:
    return round(predicted / measured - 1, 3)


def _axosweep(store: Path, *words: str) -> str:
    command = [sys.executable, "-m", "runner", *words]
    environment = {**os.environ, "AXOSWEEP_STORE": str(store)}
    done = subprocess.run(command, cwd=HERE.parent, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    main()
