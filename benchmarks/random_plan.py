"""How long it takes to plan 1,000 points of search=random, compared with a grid of 1,000 runs over the same keys.

    .venv/bin/python benchmarks/random_plan.py

Needs the trainer environment. Writes benchmarks/results/random_plan.json; docs/benchmarks.md has the figures. Both are
the complete process `axosweep plan`, in turn on the same machine, after Axolotl's verdicts on all runs were stored.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import measured
from benchmarks.machine import describe

HERE = Path(__file__).resolve().parent
RENTED = ("executor=modal", "gpu=l4", "model=llama3_2_1b", "revision_of_model=" + "a" * 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="a multiple of 50")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "random_plan.json")
    args = parser.parse_args()
    machine = describe(("hydra-core", "omegaconf"))
    sides = {"grid": _grid(args.runs), "random": _random(args.runs)}
    with tempfile.TemporaryDirectory(prefix="axosweep-benchmark-") as name:
        taken = _measure(sides, Path(name), args.repeats, args.runs)
    ratios = [one["cpu_seconds"] / other["cpu_seconds"] for one, other in zip(*reversed(taken.values()), strict=True)]
    found = {
        "machine": machine,
        "runs": args.runs,
        "repeats": args.repeats,
        **{side: {key: _median(several, key) for key in several[0]} for side, several in taken.items()},
        "random_to_grid_cpu": round(statistics.median(ratios), 3),
        "random_to_grid_cpu_each": [round(one, 3) for one in ratios],
    }
    args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def _grid(runs: int) -> list[str]:
    rates = ",".join(f"{number + 1}e-5" for number in range(runs // 50))
    dropouts = ",".join(f"{number / 100}" for number in range(10))
    return [f"learning_rate={rates}", "lora_r=4,8,16,32,64", f"lora_dropout={dropouts}"]


def _random(runs: int) -> list[str]:
    axes = ["learning_rate=tag(log,interval(1e-5,1e-3))", "lora_r=int(tag(log,interval(4,64)))"]
    return [*axes, "lora_dropout=interval(0,0.1)", "search=random", f"search.runs={runs}"]


def _measure(
    sides: Mapping[str, Sequence[str]], store: Path, repeats: int, runs: int
) -> dict[str, list[dict[str, float]]]:
    """The sides in turn. The first round stores verdicts, and is not counted."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number in range(repeats + 1):
        for side, words in sides.items():
            one = _planned(words, store, runs)
            if number:
                found[side].append(one)
            print(number, side, one, file=sys.stderr)
    return found


def _planned(words: Sequence[str], store: Path, runs: int) -> dict[str, float]:
    command = [sys.executable, "-m", "runner", "plan", "-m", *words, *RENTED, f"store={store}"]
    taken, text = measured(command)
    if f": {runs} runs" not in text:
        raise SystemExit(f"{' '.join(command)}\nplanned something else:\n{text[-3000:]}")
    return taken


def _median(several: Sequence[Mapping[str, Any]], key: str) -> float:
    return round(float(statistics.median(one[key] for one in several)), 3)


if __name__ == "__main__":
    main()
