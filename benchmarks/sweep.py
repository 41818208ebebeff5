"""The same sweep of tiny runs with Axolotl's own --sweep and with axosweep: the seconds and the losses of both.

    .venv/bin/python benchmarks/sweep.py

Needs the trainer environment, and about 35 minutes of a machine with nothing else to do; `--runs 2` is a quick try.
Every side trains the configs that `axosweep plan --write` writes, on a dataset that was prepared before, once without
tracking and once with W&B offline. The sides take turns, round by round; a side that takes less than a minute is run
three times (the median counts), a slower one once. A rented core does not always have the same speed. So the ratios
compare seconds at a steady pace, the mean pace of all measurements (pace.py); the ratios of the measured seconds are
printed as well. Writes benchmarks/results/sweep.json; docs/benchmarks.md has the table. Exits with 1 if any digit of
any loss differs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks import sides
from benchmarks.machine import describe
from benchmarks.sides import Timed, Trained, axolotl, axosweep, timed
from modal_app.store.layout import Store
from runner.config.fields import axolotl_fields

HERE = Path(__file__).resolve().parent
RATES = ("1e-3", "2e-3", "3e-3", "4e-3")
ALPHAS = ("8", "16", "32", "64")
RECIPE = (
    "max_steps=20", "micro_batch_size=8", "logging_steps=5", "eval_steps=10", "evals_per_epoch=null", "save_steps=10",
    "saves_per_epoch=null",
)  # fmt: skip
TRACKING = ("disabled", "offline")
TRIES, ONCE_ABOVE_S = 3, 60.0
WANTED = {
    "axolotl, default launcher": {"cold, one at a time": 12.0, "cold": 16.0, "warm": 35.0},
    "axolotl, --launcher python": {"cold, one at a time": 1.4, "cold": 2.0, "warm": 4.0},
}
"""How many times faster than each side of Axolotl's our sides must be, at least."""


@dataclass(frozen=True)
class Question:
    """The sweep that all sides run."""

    words: tuple[str, ...]
    configs: Mapping[str, Mapping[str, Any]]
    """For plain Axolotl, by run key."""
    base: Path
    """A store with the prepared dataset."""
    folder: Path


@dataclass(frozen=True)
class Try:
    timed: Timed
    trained: Mapping[str, Trained]
    """By run key."""
    train_runtimes_s: Sequence[float]


@dataclass
class Side:
    name: str
    take: Callable[[Question, Path], Try]
    """Runs the sweep in an empty folder."""
    tries: list[Try] = field(default_factory=list)

    @property
    def due(self) -> bool:
        """Whether it must be run once more."""
        return not self.tries or (len(self.tries) < TRIES and self.tries[0].timed.seconds < ONCE_ABOVE_S)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=16, choices=(2, 4, 8, 12, 16))
    parser.add_argument(
        "--tracking", choices=TRACKING, help="measure only this; the other stays as it is in the file (default: both)"
    )
    parser.add_argument("--once", action="store_true", help="run each side once")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "sweep.json")
    args = parser.parse_args()
    machine = describe(("hydra-core", "wandb"))
    results = _earlier_results(args.output, args.runs) if args.tracking else {}
    for tracking in (args.tracking,) if args.tracking else TRACKING:
        with tempfile.TemporaryDirectory(prefix="axosweep-benchmark-") as name:
            question = _question(args.runs, tracking, Path(name))
            machine["trainer"] = sides.versions(question.base)
            results[tracking] = {"date": machine["date"], **_summary(_answers(question, once=args.once))}
    result = {
        "runs": args.runs,
        "recipe": " ".join(RECIPE),
        "machine": machine | {"axolotl": axolotl_fields().version},
        "tracking": results,
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _show(result)
    return 0 if all(one["losses_equal"] for one in results.values()) else 1


def _earlier_results(path: Path, runs: int) -> dict[str, Any]:
    """Earlier results of the same question, by tracking."""
    if not path.exists():
        return {}
    before = json.loads(path.read_text(encoding="utf-8"))
    same = (before["runs"], before["recipe"]) == (runs, " ".join(RECIPE))
    return dict(before["tracking"]) if same else {}


def _question(runs: int, tracking: str, folder: Path) -> Question:
    """Prepare the dataset for all sides, which is not measured."""
    rates, alphas = RATES[: -(-runs // len(ALPHAS))], ALPHAS[: min(runs, len(ALPHAS))]
    common = (*RECIPE, f"tracking={tracking}", "name=benchmark")
    words = ("-m", f"learning_rate={','.join(rates)}", f"lora_alpha={','.join(alphas)}", *common)
    log = folder / "log.txt"
    configs = sides.written_configs(folder, words, log)
    first = next((folder / "configs").glob("*.yml"))
    timed(axolotl("preprocess", first), folder, log)
    _train_another(folder / "base", common, log)
    sides.stop_warm_server(folder / "base", log)
    return Question(words, configs, folder / "base", folder)


def _train_another(store: Path, common: Sequence[str], log: Path) -> None:
    """Train a run that is not in the question, so that its dataset and a preloaded trainer exist."""
    timed(axosweep("-m", "learning_rate=9e-3", *common, f"store={store}"), store.parent, log)


def _answers(question: Question, *, once: bool) -> list[Side]:
    answers = [
        Side("axolotl, --launcher python", lambda one, folder: _by_axolotl(one, folder, "--launcher", "python")),
        Side("cold, one at a time", lambda one, folder: _by_axosweep(one, folder, "executor.parallel=1")),
        Side("cold", lambda one, folder: _by_axosweep(one, folder)),
        Side("warm", lambda one, folder: _by_axosweep(one, folder, warm=True)),
        # It takes minutes and is run once, between rounds of the others, since the machine's speed changes.
        Side("axolotl, default launcher", lambda one, folder: _by_axolotl(one, folder)),
    ]
    for number in range(1 if once else TRIES):
        for side in [side for side in answers if side.due]:
            folder = question.folder / f"try-{number}" / side.name.replace(" ", "-").replace(",", "")
            folder.mkdir(parents=True)
            side.tries.append(side.take(question, folder))
            print(f"{side.name}: {side.tries[-1].timed}", file=sys.stderr, flush=True)
            shutil.rmtree(folder)
    return answers


def _by_axolotl(question: Question, folder: Path, *launcher: str) -> Try:
    """One base config; what differs between the runs is in --sweep's paired values, including the output folder."""
    placed = {key: {**config, "output_dir": str(folder / key)} for key, config in question.configs.items()}
    first, *others = placed.values()
    common = {name: value for name, value in first.items() if all(one.get(name) == value for one in others)}
    pairs = [{name: value for name, value in one.items() if name not in common} for one in placed.values()]
    (folder / "base.yml").write_text(yaml.safe_dump(common), encoding="utf-8")
    (folder / "sweep.yml").write_text(yaml.safe_dump({"_": pairs}), encoding="utf-8")
    log = folder / "log.txt"
    seconds = timed(axolotl("train", "base.yml", "--sweep", "sweep.yml", *launcher), folder, log)
    # It continues after a failed run and exits with 0, so missing results are detected here.
    outputs = {key: next((folder / key).glob("sweep*"), None) for key in placed}
    if missing := [key for key, output in outputs.items() if output is None]:
        raise sides.CommandFailed(f"axolotl --sweep left nothing for {', '.join(missing)}:\n{sides.tail(log)}")
    trained = {key: Trained(sides.logged_losses(output), None) for key, output in outputs.items() if output}
    return Try(seconds, trained, sides.train_runtimes(log))


def _by_axosweep(question: Question, folder: Path, *more: str, warm: bool = False) -> Try:
    store, log = folder / "store", folder / "log.txt"
    sides.store_with_dataset(question.base, store)
    try:
        if warm:
            _train_another(store, question.words[3:], log)
            sides.require_warm_server(store, log)
        seconds = timed(axosweep(*question.words, *more, f"store={store}"), folder, log)
        trained = {key: sides.trained_by_axosweep(Store(store), key) for key in question.configs}
    finally:
        sides.stop_warm_server(store, log)
    return Try(seconds, trained, [one.train_runtime_s for one in trained.values() if one.train_runtime_s is not None])


def _summary(answers: Sequence[Side]) -> dict[str, Any]:
    paces = [one.timed.loop_ms for side in answers for one in side.tries]
    pace = statistics.mean(paces)
    reference = {key: one.losses for key, one in answers[0].tries[0].trained.items()}
    equal = {
        side.name: all({key: run.losses for key, run in one.trained.items()} == reference for one in side.tries)
        for side in answers
    }
    seconds = {side.name: sides.median([one.timed for one in side.tries]) for side in answers}
    steady = {
        side.name: round(statistics.median(one.timed.steady_s(pace) for one in side.tries), 2) for side in answers
    }
    return {
        "loop_ms": {"mean": round(pace, 3), "least": min(paces), "most": max(paces)},
        "sides": {
            side.name: {
                "seconds": seconds[side.name],
                "steady_s": steady[side.name],
                "tries": [one.timed.seconds for one in side.tries],
                "cpu_s": [one.timed.cpu_s for one in side.tries],
                "loop_ms": [one.timed.loop_ms for one in side.tries],
                "losses_equal": equal[side.name],
                **_a_run(side, seconds[side.name]),
            }
            for side in answers
        },
        "losses": sum(map(len, reference.values())),
        "losses_equal": all(equal.values()) and all(reference.values()),
        "ratios": [
            {
                "of": theirs,
                "to": ours,
                "times": round(steady[theirs] / steady[ours], 2),
                "times_in_bare_seconds": round(seconds[theirs] / seconds[ours], 2),
                "wanted": wanted,
                "reached": steady[theirs] / steady[ours] >= wanted,
            }
            for theirs, ours_wanted in WANTED.items()
            for ours, wanted in ours_wanted.items()
        ],
    }


def _a_run(side: Side, seconds: float) -> dict[str, Any]:
    """Mean seconds of a run: in Hugging Face's train_runtime, outside it according to the run's own record, and as its
    share of the command (which is less than the run's seconds if several run at a time).
    """
    runtimes = list(itertools.chain.from_iterable(one.train_runtimes_s for one in side.tries))
    runs = [run for one in side.tries for run in one.trained.values()]
    outside = [run.seconds - run.train_runtime_s for run in runs if run.seconds and run.train_runtime_s is not None]
    return {
        "train_runtime_s": round(statistics.mean(runtimes), 3) if runtimes else None,
        "outside_s": round(statistics.mean(outside), 3) if outside else None,
        "most_outside_s": round(max(outside), 3) if outside else None,
        "command_s": round(seconds / len(side.tries[0].trained), 3),
    }


def _show(result: Mapping[str, Any]) -> None:
    console = Console()
    for tracking, summary in result["tracking"].items():
        table = Table(title=f"{result['runs']} runs, tracking={tracking}", title_justify="left", box=None)
        for heading in ("side", "seconds", "steady", "a run", "in train_runtime", "outside", "losses"):
            table.add_column(heading, justify="left" if heading == "side" else "right")
        for name, side in summary["sides"].items():
            numbers = (side["seconds"], side["steady_s"], side["command_s"], side["train_runtime_s"], side["outside_s"])
            table.add_row(name, *map(_number, numbers), "equal" if side["losses_equal"] else "DIFFER")
        console.print(table)
        for one in summary["ratios"]:
            mark = "" if one["reached"] else "   NOT REACHED"
            bare = f"{one['times_in_bare_seconds']}x in measured seconds"
            console.print(f"  {one['of']} / {one['to']}: {one['times']}x (at least {one['wanted']}x; {bare}){mark}")
        equal = "equal" if summary["losses_equal"] else "DIFFERENT"
        console.print(f"  {summary['losses']} losses a side, all digits: {equal}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
