"""The held-out losses of a grid of real runs at several steps: what benchmarks/search.py replays.

    .venv/bin/python benchmarks/search_curves.py [--store DIR]

Needs the trainer environment. Trains seven learning rates at four ranks with three seeds on the tiny task, 84 runs,
about fifteen minutes of an idle core. A run keeps the per-row losses of its last evaluation only, so they are copied
while it trains. With --store, what is there already is not trained again.
Writes benchmarks/results/search_curves.npz.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import axosweep
from benchmarks.machine import describe
from modal_app.held_out.row_losses import RowLosses

Floats = NDArray[np.float64]
HERE = Path(__file__).resolve().parent
CURVES = HERE / "results" / "search_curves.npz"
RATES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
RANKS = (4, 8, 16, 32)
SEEDS = (1, 2, 3)
STEPS, BETWEEN = 200, 40
AT = tuple(range(BETWEEN, STEPS + 1, BETWEEN))
"""The steps that are evaluated."""
BY_ROW = (40, 120, 200)
"""Those of which the per-row losses are stored: the rungs, and the end."""
RECIPE = (f"max_steps={STEPS}", "evals_per_epoch=null", f"eval_steps={BETWEEN}", "saves_per_epoch=null",
          "save_strategy=no", "tracking=disabled", "executor.parallel=1", "name=truth")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Curves:
    """The losses of runs. The first index of each array is the run, in the order of seeds, then rates, then ranks."""

    rate: Floats
    rank: NDArray[np.int64]
    seed: NDArray[np.int64]
    seconds: Floats
    """Of training."""
    first: Floats
    """The eval loss before training."""
    loss: Floats
    """The eval loss, runs x AT, as Axolotl's Trainer has it. NaN after a run has failed."""
    nll: Floats
    """Runs x BY_ROW x rows: the summed negative log-likelihood."""
    tokens: NDArray[np.int64]
    """Of each row."""
    document: NDArray[np.uint64]
    """Of each row."""
    about: dict[str, Any]

    def write(self, path: Path) -> None:
        arrays = {name: getattr(self, name) for name in ARRAYS}
        arrays["nll"] = self.nll.astype(np.float32)
        np.savez_compressed(path, about=np.array(json.dumps(self.about)), **arrays)

    @classmethod
    def read(cls, path: Path = CURVES) -> Curves:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ARRAYS}
            arrays["nll"] = arrays["nll"].astype(np.float64)
            return cls(about=json.loads(str(file["about"])), **arrays)


ARRAYS = ("rate", "rank", "seed", "seconds", "first", "loss", "nll", "tokens", "document")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a folder for the runs; a temporary one by default")
    parser.add_argument("--output", type=Path, default=CURVES)
    args = parser.parse_args()
    machine = describe(["numpy"])
    with tempfile.TemporaryDirectory(prefix="axosweep-benchmark-") as name:
        store = args.store or Path(name)
        with _copied_losses(store):
            runs = [run for seed in SEEDS for run in _trained(store, seed)]
        _recorded(store, runs, machine).write(args.output)
    print(f"{args.output}: {len(runs)} runs, {args.output.stat().st_size} bytes")


@dataclass(frozen=True, slots=True)
class _TrainedRun:
    row: axosweep.Row
    rate: float
    rank: int
    seed: int


def _trained(store: Path, seed: int) -> list[_TrainedRun]:
    words = (f"lora={','.join(f'r{rank}' for rank in RANKS)}", f"learning_rate={','.join(map(str, RATES))}",
             f"seed={seed}", *RECIPE)  # fmt: skip
    rows = {row.key: row for row in axosweep.launch(*words, store=str(store)).rows}
    runs = [
        _TrainedRun(rows[str(run.key)], run.config["learning_rate"], run.config["lora_r"], seed)
        for run in axosweep.plan(*words, store=str(store)).runs
    ]
    return sorted(runs, key=lambda one: (one.rate, one.rank))


@contextmanager
def _copied_losses(store: Path) -> Iterator[None]:
    """While this is open, the per-row losses of every evaluation are copied: to losses-at-STEP.npz."""
    end = threading.Event()
    copier = threading.Thread(target=_copy, args=(store, end))
    copier.start()
    try:
        yield
    finally:
        end.set()
        copier.join()


def _copy(store: Path, end: threading.Event) -> None:
    seen: dict[Path, int] = {}
    while not end.wait(0.1):
        for path in store.glob("runs/*/losses.npz"):
            changed = path.stat().st_mtime_ns
            if seen.get(path) != changed and (losses := RowLosses.read(path)) is not None:
                losses.write(_copied(path.parent, losses.about.step))
                seen[path] = changed


def _copied(folder: Path, step: int) -> Path:
    return folder / f"losses-at-{step}.npz"


def _recorded(store: Path, runs: Sequence[_TrainedRun], machine: dict[str, Any]) -> Curves:
    nll, tokens, document = [], None, None
    for one in runs:
        losses = [_rows(store / "runs" / one.row.key, step) for step in BY_ROW]
        order = np.argsort(losses[0].id)
        nll.append([found.row_nll[np.argsort(found.id)] for found in losses])
        tokens, document = losses[0].row_tokens[order].astype(np.int64), losses[0].document[order]
    assert tokens is not None
    assert document is not None
    logged = [_logged(store / "runs" / one.row.key) for one in runs]
    return Curves(
        rate=np.array([one.rate for one in runs]),
        rank=np.array([one.rank for one in runs]),
        seed=np.array([one.seed for one in runs]),
        seconds=np.array([one.row.train_seconds or math.nan for one in runs]),
        first=np.array([losses[0] for losses in logged]),
        loss=np.array([[losses.get(step, math.nan) for step in AT] for losses in logged]),
        nll=np.array(nll),
        tokens=tokens,
        document=document,
        about={"recipe": " ".join(RECIPE), "machine": machine},
    )


def _rows(folder: Path, step: int) -> RowLosses:
    losses = RowLosses.read(_copied(folder, step))
    if losses is None:
        raise SystemExit(f"{folder.name} has no per-row losses of step {step}: remove its folder, and start again.")
    return losses


def _logged(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}


if __name__ == "__main__":
    main()
