"""How long preflight takes for 300 configs that were never checked before, after the validator has started.

    .venv/bin/python benchmarks/preflight.py

Needs the trainer environment. Writes benchmarks/results/preflight.json; docs/benchmarks.md has the figures. The
validator is the preloaded trainer that a launch on this machine starts anyway; its start is measured separately.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from modal_app.store.facts import DataManifest
from runner.config.known_names import facts_in
from runner.config.shipped import shipped_root
from runner.environment import trainer_environment
from runner.environment.verdicts import Verdicts
from runner.executors.warm_workers import WarmWorkers
from runner.preflight.findings import blocking
from runner.preflight.stage import Preflight
from runner.types import DataChoice, ExecutorChoice, Experiment, Gpu, TrackingChoice

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description="Time preflight on distinct configs.")
    parser.add_argument("--configs", type=int, default=300)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "preflight.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="axosweep-benchmark-") as name:
        result = measure(args.configs, Path(name))
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def measure(count: int, store: Path) -> dict[str, Any]:
    workers = WarmWorkers(trainer_environment.find(), store, {"HF_HUB_OFFLINE": "1"})
    try:
        first = [_experiment(-1)]
        began = time.perf_counter()
        Preflight(first, Verdicts(None, "")).ask(workers, first)
        start = time.perf_counter() - began

        experiments = [_experiment(number) for number in range(count)]
        verdicts = Verdicts(store / "cache" / "verdicts.json", trainer_environment.identity(None))
        began = time.perf_counter()
        preflight = Preflight(experiments, verdicts)
        preflight.prepared = [DataManifest()] * count  # memory is estimated as well
        quick = time.perf_counter() - began
        preflight.ask(workers, experiments)
        validated = time.perf_counter() - began
        refused = blocking(preflight.findings(), force=False)
        total = time.perf_counter() - began
    finally:
        workers.close()
    assert not refused, refused
    return {
        "configs": count,
        "validator_start_s": round(start, 2),
        "without_axolotl_s": round(quick, 3),
        "axolotls_schema_s": round(validated - quick, 3),
        "memory_and_telling_s": round(total - validated, 3),
        "total_s": round(total, 3),
        "ms_each": round(1000 * total / count, 2),
        "axolotl": _axolotl(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _experiment(number: int) -> Experiment:
    """A LoRA of Llama 3 8B on one A100, with its own learning rate."""
    conf = shipped_root() / "conf"
    layers = [conf / "training" / "default.yaml", conf / "lora" / f"r{2 ** (3 + number % 4)}.yaml"]
    axolotl: dict[str, Any] = {"seed": 42}
    for file in layers:
        axolotl |= {key: value for key, value in _yaml(file).items() if key != "defaults"}
    model = _yaml(conf / "model" / "llama3_8b.yaml")
    axolotl |= model["axolotl"]
    axolotl |= {
        "datasets": [{"path": "tatsu-lab/alpaca", "type": "alpaca"}],
        "learning_rate": 1e-5 * (number + 2),
        "lora_mlp_kernel": False,
        "lora_qkv_kernel": False,
        "lora_o_kernel": False,
    }
    return Experiment(
        overrides=(f"learning_rate={axolotl['learning_rate']}",),
        axolotl=axolotl,
        gpu=Gpu("a100_80gb", 1),
        data=DataChoice(),
        tracking=TrackingChoice("offline", "axosweep"),
        executor=ExecutorChoice("local"),
        model=facts_in(model["model"]),
    )


def _yaml(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


def _axolotl() -> str:
    from runner.config.fields import axolotl_fields

    return axolotl_fields().version


if __name__ == "__main__":
    main()
