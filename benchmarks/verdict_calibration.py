"""How often verdicts are wrong: for settings that are truly equal, and for one setting with many seeds.

    .venv/bin/python benchmarks/verdict_calibration.py
    .venv/bin/python benchmarks/verdict_calibration.py --seeds-of STORE

The first line draws losses with a known truth, and exits with 1 if a share is not what docs/benchmarks.md says. The
second one adds what real runs of one setting under many seeds give: those of a store that has nothing else. Both write
benchmarks/results/verdict_calibration.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each process has a core

import numpy as np

from benchmarks.machine import describe
from modal_app.held_out.row_losses import RowLosses
from modal_app.store.layout import Store
from runner.verdict.intervals import intervals
from runner.verdict.judged import SettingLosses, judged
from tests.runner.synthetic_losses import Truth, losses_with, with_rows_as_documents

HERE = Path(__file__).resolve().parent
TIMES = 2000
DRAWS = 1000
TEN = (0.0,) * 10


@dataclass(frozen=True, slots=True)
class Case:
    """Settings that are truly equal."""

    name: str
    truth: Truth
    at_least: float
    at_most: float
    """The share of sets in which any setting is shown worse than another."""
    rows_as_documents: bool = False


CASES = (
    Case("10 settings, 300 documents", Truth(TEN), 0.04, 0.06),
    Case("10 settings, 1,000 documents", Truth(TEN, documents=1000), 0.04, 0.06),
    Case("10 settings, 87 documents", Truth(TEN, documents=87), 0.03, 0.06),
    Case("2 settings, 300 documents", Truth((0.0, 0.0)), 0.04, 0.06),
    Case("10 settings, 3 seeds each", Truth(TEN, seeds=3, of_seeds=0.02), 0.04, 0.06),
    Case("5 settings, 2 seeds each", Truth((0.0,) * 5, seeds=2, of_seeds=0.02), 0.03, 0.06),
    Case("10 settings, 3 seeds each, which move single rows only", Truth(TEN, seeds=3), 0.02, 0.06),
    Case("10 settings, 300 documents, rows taken as documents", Truth(TEN, of_documents=0.2), 0.1, 1.0, True),
)  # fmt: skip


def share_separated(case: Case, times: int, draws: int = DRAWS) -> float:
    """The share of sets of equal settings in which any setting is shown to be worse than another."""
    random = np.random.default_rng(1)
    wrong = 0
    for at in range(times):
        of = losses_with(case.truth, random)
        of = with_rows_as_documents(of) if case.rows_as_documents else of
        wrong += bool((intervals(of, draws=draws, seed=at).low > 0).any())
    return wrong / times


@dataclass(frozen=True, slots=True)
class OneSetting:
    """Runs of one setting that differ in the seed alone. Any verdict but "cannot tell" is wrong."""

    runs: int
    rows: int
    documents: int
    mean: float
    sd: float
    """Of the runs' losses."""
    by_rows: float
    """The share of pairs, each judged by itself, of which one run is shown to be better by the rows alone."""
    by_rows_at_once: float
    """The same with intervals that hold for all pairs at once."""
    with_seeds: float
    """The share of WAYS to make SETTINGS settings of the runs, with equally many seeds, in which any is shown worse."""
    pairs_with_seeds: float
    """The share of pairs of such settings."""


SETTINGS, WAYS = 5, 200


def one_setting(losses: Sequence[RowLosses]) -> OneSetting:
    """`losses`: of runs with the same rows."""
    runs = {str(at): one for at, one in enumerate(losses)}
    all_of = judged({key: [key] for key in runs}, runs)
    assert all_of is not None, "they have rows"
    pairs = [judged({key: [key] for key in pair}, runs) for pair in itertools.combinations(runs, 2)]
    random, ways = np.random.default_rng(0), []
    for _ in range(WAYS):
        order = random.permutation(len(runs)).astype(str)
        ways.append(judged({str(at): list(order[at::SETTINGS]) for at in range(SETTINGS)}, runs))
    means = np.concatenate(all_of.run_means)
    return OneSetting(
        runs=len(runs),
        rows=len(all_of.tokens),
        documents=all_of.documents,
        mean=float(means.mean()),
        sd=float(means.std(ddof=1)),
        by_rows=_share(pairs, _any),
        by_rows_at_once=_pairs(all_of),
        with_seeds=_share(ways, _any),
        pairs_with_seeds=_share(ways, _pairs),
    )


def _share(sets: Sequence[SettingLosses | None], of_one: Callable[[SettingLosses], float]) -> float:
    return float(np.mean([of_one(one) for one in sets if one is not None]))


def _any(of: SettingLosses) -> float:
    return float((intervals(of).low > 0).any())


def _pairs(of: SettingLosses) -> float:
    return float((intervals(of).low > 0).sum() / math.comb(len(of.settings), 2))


def main() -> bool:
    parser = argparse.ArgumentParser(description="Count wrong verdicts.")
    parser.add_argument("--times", type=int, default=TIMES, help="sets of losses for each share")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--seeds-of", type=Path, metavar="STORE", help="with runs of one setting under many seeds")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "verdict_calibration.json")
    args = parser.parse_args()
    if args.seeds_of:
        found = [RowLosses.read(path) for path in sorted(Store(args.seeds_of).root.glob("runs/*/losses.npz"))]
        one = one_setting([losses for losses in found if losses is not None])
        _write(args.output, json.loads(args.output.read_text()) | {"one_setting": asdict(one)})
        return False
    with ProcessPoolExecutor(args.processes) as pool:
        shares = dict(zip(CASES, pool.map(share_separated, CASES, [args.times] * len(CASES)), strict=True))
    result = {
        "times": args.times,
        "draws": DRAWS,
        "equal_settings": {case.name: share for case, share in shares.items()},
        "machine": describe(["numpy"]),
    }
    _write(args.output, result)
    wrong = [case.name for case, share in shares.items() if not case.at_least <= share <= case.at_most]
    print("\n".join(f"not as expected: {name}" for name in wrong), file=sys.stderr, end="")
    return bool(wrong)


def _write(path: Path, result: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    sys.exit(main())
