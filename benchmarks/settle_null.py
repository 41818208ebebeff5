"""How often `axosweep settle` finds a difference between settings that do not differ.

    .venv/bin/python benchmarks/settle_null.py

Nothing is trained: rows and runs are drawn, with noise of rows, of seeds and of both, as tests/runner/settling.py says.
Writes benchmarks/results/settle_null.json; docs/benchmarks.md has the figures.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.machine import describe
from runner.settle.policy import Conclusion
from tests.runner.settling import TERMS, World, play

HERE = Path(__file__).resolve().parent
DRAWS = 1000
WORLDS: dict[str, dict[str, Any]] = {
    "2 settings": {"losses": [1.0] * 2},
    "3 settings": {"losses": [1.0] * 3},
    "6 settings": {"losses": [1.0] * 6},
    "2 settings, 3 rows a document": {"losses": [1.0] * 2, "documents": 60, "rows_a_document": 3},
    "2 settings, seeds differ little": {"losses": [1.0] * 2, "seed_sd": 0.001},
    "2 equal settings and 4 that are worse": {"losses": [1.0, 1.0, 1.2, 1.3, 1.4, 1.5]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=300, help="of each kind")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "settle_null.json")
    args = parser.parse_args()
    found = {name: _played(options, args.sweeps) for name, options in WORLDS.items()}
    result = {"sweeps": args.sweeps, "found": found, "machine": describe(["numpy"])}
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def _played(options: dict[str, Any], sweeps: int) -> dict[str, float]:
    random = np.random.default_rng(7)
    played = []
    for _ in range(sweeps):
        world = World(random, **options)
        played.append(play(world.judged, world.train, len(world.losses), draws=DRAWS))
    separated = sum(one.verdict is Conclusion.SEPARATED for one in played) / sweeps
    return {
        "separated": separated,
        "standard_error": round(math.sqrt(separated * (1 - separated) / sweeps), 4),
        "runs": round(fmean(one.runs for one in played), 2),
        "looks": round(fmean(one.looks for one in played), 2),
        "max_looks": TERMS.looks,
    }


if __name__ == "__main__":
    main()
