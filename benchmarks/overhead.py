"""Where the seconds of a sweep go, and the share of training.

    .venv/bin/python benchmarks/overhead.py

Needs the trainer environment. A sweep of 16 tiny runs, its dataset not prepared, nothing warm (or --warm), with a clock
on the launcher's stages (stage_clock.py). Seconds that runs spent side by side are divided by the number of slots (runs
at a time), so that all lines add up to the command's seconds; `idle` is the time in which a slot had no run. Writes
benchmarks/results/overhead.json; docs/benchmarks.md has the table.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import sides
from benchmarks.machine import describe
from benchmarks.sides import axosweep, timed
from modal_app.store.layout import StepFolder, Store
from modal_app.store.step import StepKind

HERE = Path(__file__).resolve().parent
WORDS = ("-m", "learning_rate=1e-3,2e-3,3e-3,4e-3", "lora_alpha=8,16,32,64", "name=benchmark")
RECIPE = (
    "max_steps=20", "micro_batch_size=8", "logging_steps=5", "eval_steps=10", "evals_per_epoch=null", "save_steps=10",
    "saves_per_epoch=null", "tracking=disabled",
)  # fmt: skip
TRAINING = ("first", "train")
OF_A_RUN = ("import", "config", "prepare", "load", "first", "train", "eval", "save")
"""The phases that a run records with its clock (modal_app/process/rank.py)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parallel", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--warm", action="store_true", help="with the trainer and dataset of an earlier sweep")
    parser.add_argument("--words", type=str.split, default=[*WORDS, *RECIPE], help="another sweep, in one argument")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "overhead.json")
    args = parser.parse_args()
    machine = describe(("hydra-core",))
    with tempfile.TemporaryDirectory(prefix="axosweep-benchmark-") as name:
        measured = _measured(Path(name), args.words, args.parallel, warm=args.warm)
    result = {"words": " ".join(args.words), "parallel": args.parallel, "warm": args.warm, **measured}
    args.output.write_text(json.dumps(result | {"machine": machine}, indent=1) + "\n", encoding="utf-8")
    _show(result)


def _measured(folder: Path, words: Sequence[str], parallel: int, *, warm: bool) -> dict[str, Any]:
    store, log, clock = folder / "store", folder / "log.txt", folder / "clock.json"
    command: list[str | Path] = [sys.executable, HERE / "stage_clock.py", clock, *words]
    try:
        if warm:
            timed(axosweep("learning_rate=9e-3", *RECIPE, f"store={store}"), folder, log)
            sides.require_warm_server(store, log)
        before = time.time()
        sweep = timed([*command, f"executor.parallel={parallel}", f"store={store}"], folder, log)
    finally:
        sides.stop_warm_server(store, log)
    launcher = json.loads(clock.read_text(encoding="utf-8"))
    stages: dict[str, float] = launcher["stages"]
    # The clock inside the process does not measure the start and end of the interpreter.
    stages["python"] = sweep.seconds - (launcher["ended"] - launcher["began"])
    executing = stages.pop("execute") + stages.pop("watch", 0.0)
    spent = _spent_by_steps(Store(store), since=before)
    side_by_side = {name: seconds / parallel for name, seconds in spent.items()}
    idle = executing - sum(side_by_side.values())
    lines = {**{f"launcher: {name}": seconds for name, seconds in stages.items()}, **side_by_side, "idle": idle}
    training = sum(side_by_side.get(f"run: {name}", 0.0) for name in TRAINING)
    return {
        "seconds": sweep.seconds,
        "lines": {name: round(seconds, 3) for name, seconds in lines.items()},
        "training_share": round(training / sweep.seconds, 3),
    }


def _spent_by_steps(store: Store, since: float) -> dict[str, float]:
    """Seconds of all steps that started after `since`: of a run, its phases and the rest."""
    spent: defaultdict[str, float] = defaultdict(float)
    for kind, root, suffix in ((StepKind.PREPROCESS, store.prepared, ".work"), (StepKind.TRAIN, store.runs, "")):
        for path in sorted(root.iterdir()):
            if path.name.endswith(".work") == bool(suffix):
                _add(spent, kind, store.folder(kind, path.name.removesuffix(suffix)), since)
    return spent


def _add(spent: defaultdict[str, float], kind: StepKind, folder: StepFolder, since: float) -> None:
    result = json.loads(folder.attempts()[-1].result.read_text(encoding="utf-8"))
    if result["started_at"] < since:
        return
    seconds = result["finished_at"] - result["started_at"]
    if kind is StepKind.PREPROCESS:
        spent["dataset"] += seconds
        return
    phases: Mapping[str, float] = result["facts"]["phases"]
    for name, part in phases.items():
        spent[f"run: {name}"] += part
    spent["run: the rest"] += seconds - sum(phases.values())


def _show(result: Mapping[str, Any]) -> None:
    table = Table(
        title=f"{result['seconds']:.1f} seconds, {result['parallel']} at a time", title_justify="left", box=None
    )
    for heading in ("where", "seconds", "share", ""):
        table.add_column(heading, justify="right" if heading in ("seconds", "share") else "left")
    for name, seconds in result["lines"].items():
        share = seconds / result["seconds"]
        table.add_row(name, f"{seconds:.2f}", f"{share:.1%}", "#" * round(40 * max(share, 0)))
    Console().print(table)
    print(f"Training: {result['training_share']:.1%}")


if __name__ == "__main__":
    main()
