"""What 16 tiny trainings take on Modal in four containers that each take one run after the other, compared with a
container for each run; and whether their losses are those of the same runs on this machine.

    .venv/bin/python benchmarks/modal_trainings.py

The command, Modal's client, Axolotl and its trainings are the real ones; Modal is the local one of tests/modal_server,
whose containers share this machine's cores. The seconds by part are those of `axosweep compare --receipt`. Writes
benchmarks/results/modal_trainings.json. Needs root, as all tests with Volumes do, and `make trainer`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from tests.end_to_end.axosweep import Axosweep
from tests.end_to_end.on_modal import local_modal, machine, with_axolotl

RESULT = Path(__file__).resolve().parent / "results" / "modal_trainings.json"
CONTAINERS = 4
RATES, SEEDS = ("1e-4", "3e-4", "1e-3", "3e-3"), (1, 2, 3, 4)
RUNS = len(RATES) * len(SEEDS)
OF_A_RUN = ("data.limit=200", "max_steps=10", "eval_steps=5", "save_steps=5", "tracking=disabled", "--yes")
ON_MODAL = ("executor=modal", f"executor.parallel={CONTAINERS}")
SIDES = {"here": (), "reused": ON_MODAL, "single-use": (*ON_MODAL, "executor.modal.reuse=false")}
LOGGED = ("loss", "eval_loss", "grad_norm")

Curves = Mapping[tuple[float, int], Mapping[int, Mapping[str, float]]]
"""(learning rate, seed) -> step -> what was logged there, with all digits."""


@dataclass(frozen=True)
class Measured:
    """One launch of all runs, with everything that it needs."""

    seconds: float
    """Of the command."""
    containers: int
    """That have trained."""
    paid_seconds: float
    """Of the runs: those of their containers, and on this machine those of their processes."""
    parts: Mapping[str, float]
    """Of these, by what they were used for; without `queue`, which is not paid."""
    of_containers: tuple[Mapping[str, Any], ...]
    """What each container has done: how many runs, and its seconds by part."""
    equal_to_here: bool
    """Whether every logged loss and gradient norm is that of the run on this machine, in every digit."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    described = describe(("modal",))
    with tempfile.TemporaryDirectory() as folder:
        launched = {name: _launch(Path(folder, name), words) for name, words in SIDES.items()}
    here = launched["here"][2]
    sides = {name: asdict(_measured(*one, here)) for name, one in launched.items()}
    logged = sum(len(values) for curve in here.values() for values in curve.values())
    result = {"machine": described, "runs": RUNS, "values_compared": logged, "sides": sides}
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    for name, side in sides.items():
        print(name, {**side, "of_containers": len(side["of_containers"])})


def _launch(folder: Path, words: tuple[str, ...]) -> tuple[float, Mapping[str, Any], Curves]:
    """The seconds that a side takes, what `compare` says of it, and what its runs have logged."""
    if not words:
        (folder / "work").mkdir(parents=True)
        return _sweep(Axosweep(Store(folder / "store"), folder / "work"), words)
    with local_modal(with_axolotl(max_containers=CONTAINERS)) as server:
        return _sweep(machine(server, folder), words)


def _sweep(one: Axosweep, words: tuple[str, ...]) -> tuple[float, Mapping[str, Any], Curves]:
    sweep = ("-m", f"learning_rate={','.join(RATES)}", f"seed={','.join(map(str, SEEDS))}", *OF_A_RUN)
    began = time.monotonic()
    done = one.run(*sweep, *words, timeout_s=3600)
    seconds = time.monotonic() - began
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    compared = one.json("compare")
    print(f"{' '.join(words) or 'here'}: {seconds:.0f} s", flush=True)
    return seconds, compared, _curves(Store(one.store.root / "modal") if words else one.store, compared)


def _curves(store: Store, compared: Mapping[str, Any]) -> Curves:
    curves: dict[tuple[float, int], dict[int, dict[str, float]]] = {}
    for row in compared["runs"]:
        curve = curves.setdefault((row["params"]["learning_rate"], row["params"]["seed"]), {})
        for text in store.folder(StepKind.TRAIN, row["key"]).metrics.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            curve.setdefault(line["step"], {}).update({name: line[name] for name in LOGGED if name in line})
    return curves


def _measured(seconds: float, compared: Mapping[str, Any], curves: Curves, here: Curves) -> Measured:
    receipts = [row["receipt"] for row in compared["runs"]]
    parts: dict[str, float] = {}
    for receipt in receipts:
        for name, took in receipt["parts"].items():
            parts[name] = parts.get(name, 0.0) + took
    parts.pop("queue", None)
    containers = tuple(
        {"runs": len(one["runs"]), "seconds": one["seconds"], "parts": one["parts"]} for one in compared["containers"]
    )
    return Measured(
        seconds=round(seconds, 1),
        containers=len(containers),
        paid_seconds=round(sum(receipt["seconds"] for receipt in receipts), 1),
        parts={name: round(took, 1) for name, took in parts.items()},
        of_containers=containers,
        equal_to_here=len(curves) == RUNS and curves == here,
    )


if __name__ == "__main__":
    main()
