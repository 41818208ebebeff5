"""How much processor time and memory `axosweep compare` takes if all runs have per-row losses.

    .venv/bin/python benchmarks/compare_verdict.py

Stores are created for it, with 5,000 held-out rows of 2,500 documents: 200 settings with one seed, 40 settings with
five seeds, and a fourth of the runs. Writes benchmarks/results/compare_verdict.json; docs/benchmarks.md has the
figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.compare import make_sweep
from benchmarks.machine import describe
from modal_app.held_out.row_losses import About, RowLosses
from modal_app.store.layout import Store
from modal_app.store.step import StepKind

HERE = Path(__file__).resolve().parent
REPEATS = 3
STEPS = 200


@dataclass(frozen=True)
class Measurement:
    runs: int
    seeds: int
    cpu_seconds: float
    """Of the complete command, user and system; the least of several repeats."""
    peak_mib: float
    file_kib: float
    """Of one run's losses."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Time axosweep compare with verdicts.")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "compare_verdict.json")
    args = parser.parse_args()
    cases = ((args.runs, 1), (args.runs, 5), (args.runs // 4, 1))
    found = [asdict(measure(runs, seeds, args.rows)) for runs, seeds in cases]
    result = {"rows": args.rows, "cases": found, "machine": describe(["numpy", "rich"])}
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def measure(number: int, seeds: int, rows: int) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="axosweep-benchmark-") as name:
        store = Store(Path(name))
        files = []
        for place, one in enumerate(make_sweep(store, number, STEPS, seeds=seeds)):
            files.append(store.folder(StepKind.TRAIN, one.key).losses)
            losses(rows, place // seeds, place).write(files[-1])
        taken = [compare(store) for _ in range(REPEATS)]
        size = files[0].stat().st_size / 1024
    seconds, peaks = zip(*taken, strict=True)
    return Measurement(number, seeds, round(min(seconds), 2), round(max(peaks), 1), round(size, 1))


def losses(rows: int, setting: int, run: int) -> RowLosses:
    """Rows whose difficulty all runs share, with a difference of each setting's own, and one of each run's own."""
    shared, of_setting, of_run = (np.random.default_rng([kind, at]) for kind, at in ((0, 0), (1, setting), (2, run)))
    tokens = np.random.default_rng(3).integers(5, 400, rows).astype(np.int32)
    own = of_setting.normal(0.001 * setting, 0.05, rows) + of_run.normal(0, 0.02, rows)
    by_token = shared.gamma(4, 0.4, rows) + own
    number = np.arange(rows)
    return RowLosses(
        About("rows", STEPS, float(by_token.mean()), ("a.jsonl",), documents_known=True),
        id=np.random.default_rng(4).integers(0, 2**63, rows, dtype=np.uint64),
        document=(number // 2).astype(np.uint64),
        dataset=np.zeros(rows, np.uint16),
        length=2 * tokens,
        batch=(number // 8).astype(np.int32),
        turns=np.ones(rows, np.int32),
        tokens=tokens,
        nll=by_token * tokens,
    )


def compare(store: Store) -> tuple[float, float]:
    """Processor seconds, and the peak of its memory in MiB."""
    command = [sys.executable, "-m", "runner", "compare", "--store", str(store.root)]
    quiet = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    pid = os.posix_spawn(command[0], command, environment, file_actions=[quiet])
    _, status, used = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
