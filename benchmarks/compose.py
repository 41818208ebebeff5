"""How long it takes to compose and plan sweeps of 100, 1,000 and 5,000 runs, compared with stock Hydra and hydra-fast.

    .venv/bin/python benchmarks/compose.py

Needs the trainer environment and a package index, since hydra-fast gets a temporary environment. Writes
benchmarks/results/compose.json; docs/benchmarks.md has the table. All tools compose the project's own conf/. Stock
Hydra starts with -m and a launcher that composes each job and does nothing else (compose_stock.py); the others make a
plain, resolved dict of each. A side that takes more than a minute is measured once, the others three times.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import measured
from benchmarks.compose_sweeps import SWEEPS, axes
from benchmarks.machine import describe

HERE = Path(__file__).resolve().parent
HYDRA_FAST = "hydra-fast==0.1.1"
REPEATS, LONG_S = 3, 60.0
SIZES = (100, 1000, 5000)
MOST_BY_STOCK = 1000
"""Stock Hydra takes minutes for these; larger sweeps are extrapolated, and marked so in the results."""

Command = Callable[[str, int], Sequence[str]]
"""The command for a sweep and a number of runs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="multiples of 100")
    parser.add_argument("--most-by-stock", type=int, default=MOST_BY_STOCK)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "compose.json")
    args = parser.parse_args()
    if any(size % 100 for size in args.sizes):
        parser.error("--sizes: multiples of 100")
    machine = describe(("hydra-core", "omegaconf"))
    with tempfile.TemporaryDirectory(prefix="axosweep-benchmark-") as name:
        folder = Path(name)
        sides = _sides(folder)
        sweeps = {sweep: _measure(sides, sweep, args.sizes, args.most_by_stock) for sweep in SWEEPS}
    result = {"machine": machine, "hydra_fast": HYDRA_FAST, "sweeps": sweeps}
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def _sides(folder: Path) -> Mapping[str, Command]:
    """The command of each side."""
    conf, ours = str(_plain_conf(folder)), str(HERE.parent / "conf")
    python, fast = sys.executable, _hydra_fast(folder)
    stock, jobs = str(HERE / "compose_stock.py"), ["-m", "benchmarks.compose_jobs"]
    rented = ["executor=modal", "gpu=l4", f"store={folder / 'store'}"]
    return {
        "stock Hydra -m": lambda sweep, size: [python, stock, conf, "-m", *axes(sweep, size)],
        "hydra-fast": lambda sweep, size: [fast, *jobs, "hydra-fast", conf, sweep, str(size)],
        "axosweep": lambda sweep, size: [python, *jobs, "axosweep", ours, sweep, str(size)],
        "axosweep plan": lambda sweep, size: [python, "-m", "runner", "plan", "-m", *axes(sweep, size), *rented],
    }


def _measure(sides: Mapping[str, Command], sweep: str, sizes: Sequence[int], most_by_stock: int) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {name: {} for name in sides}
    for size in sizes:
        _run(sides["axosweep plan"](sweep, size))  # so that Axolotl's verdicts are stored before anything is measured
        for name, command in sides.items():
            if name.startswith("stock") and size > most_by_stock:
                below = found[name][str(max(one for one in sizes if one <= most_by_stock))]
                share = size / below["runs"]
                found[name][str(size)] = {
                    "runs": size,
                    "extrapolated": True,
                    **{key: round(below[key] * share, 2) for key in ("seconds", "cpu_seconds")},
                }
            else:
                found[name][str(size)] = _median(command(sweep, size), size)
            print(sweep, name, found[name][str(size)], file=sys.stderr)
    return found


def _median(command: Sequence[str], size: int) -> dict[str, Any]:
    taken = [_run(command)]
    while len(taken) < REPEATS and taken[0]["seconds"] < LONG_S:
        taken.append(_run(command))
    middle = {key: round(statistics.median(one[key] for one in taken), 3) for key in taken[0]}
    return {"runs": size, **middle, "times": len(taken)}


def _run(command: Sequence[str]) -> dict[str, float]:
    """Run a command; the result has the processor seconds of composing, if the command prints them."""
    taken, text = measured(command)
    composing = re.search(r"^composing_cpu_seconds ([\d.]+)$", text, re.M)
    return {**taken, **({"composing_cpu_seconds": float(composing[1])} if composing else {})}


def _plain_conf(folder: Path) -> Path:
    """conf/ for any Hydra application: without our sweeper and launcher."""
    conf = folder / "conf"
    shutil.copytree(HERE.parent / "conf", conf)
    config = conf / "config.yaml"
    text = re.sub(r"  - override hydra/.*\n", "", config.read_text(encoding="utf-8"))
    config.write_text(text.partition("\nhydra:")[0] + "\n", encoding="utf-8")
    return conf


def _hydra_fast(folder: Path) -> str:
    python = str(folder / "venv" / "bin" / "python")
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder / "venv")], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, HYDRA_FAST], check=True)
    return python


if __name__ == "__main__":
    main()
