"""One tiny run on two ranks of this machine's CPU: forked from a warm trainer, fresh, and with Axolotl under torchrun.

    .venv/bin/python benchmarks/two_ranks.py

Needs the trainer environment. The dataset is prepared before. Plain Axolotl gets the config that `axosweep plan
--write` writes, and benchmarks/cpu_ranks.py, without which it cannot train on two ranks of a CPU. The sides take turns
in three rounds (the medians count). Writes benchmarks/results/two_ranks.json. Exits with 1 if a loss differs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks import sides
from benchmarks.machine import describe
from benchmarks.sides import Timed, Trained, axolotl, axosweep, timed
from modal_app.store.layout import Store
from runner.config.fields import axolotl_fields

HERE = Path(__file__).resolve().parent
COMMON = (
    "gpu.count=2", "max_steps=20", "micro_batch_size=8", "logging_steps=5", "eval_steps=10", "evals_per_epoch=null",
    "save_steps=10", "saves_per_epoch=null", "tracking=disabled", "name=benchmark",
)  # fmt: skip
REQUEST = ("learning_rate=1e-3", *COMMON)
TORCHRUN = ("--launcher", "torchrun", "--", "--nproc_per_node=2", "--nnodes=1", "--standalone")
WANTED = 3.0
TRIES = 3


@dataclass(frozen=True)
class Question:
    key: str
    config: Path
    base: Path
    """A store with the prepared dataset."""


@dataclass(frozen=True)
class Try:
    timed: Timed
    trained: Trained


@dataclass
class Side:
    name: str
    take: Callable[[Question, Path], Try]
    tries: list[Try] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=TRIES)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "two_ranks.json")
    args = parser.parse_args()
    machine = describe(("hydra-core",))
    answers = [
        Side("axolotl, torchrun", _by_torchrun),
        Side("fresh", lambda question, folder: _by_axosweep(question, folder, "executor.warm=false")),
        Side("cold", lambda question, folder: _by_axosweep(question, folder)),
        Side("warm", lambda question, folder: _by_axosweep(question, folder, warm=True)),
    ]
    with tempfile.TemporaryDirectory(prefix="axosweep-benchmark-") as name:
        question = _question(Path(name))
        machine["trainer"] = sides.versions(question.base)
        for number in range(args.tries):
            for side in answers:
                folder = Path(name) / f"try-{number}" / side.name.replace(" ", "-").replace(",", "")
                folder.mkdir(parents=True)
                side.tries.append(side.take(question, folder))
                print(f"{side.name}: {side.tries[-1].timed}", file=sys.stderr, flush=True)
                shutil.rmtree(folder)
    machine["axolotl"] = axolotl_fields().version
    result = {"recipe": " ".join(REQUEST), "machine": machine, **_summary(answers)}
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    return 0 if result["losses_equal"] else 1


def _question(folder: Path) -> Question:
    log, base = folder / "log.txt", folder / "base"
    ((key, config),) = sides.written_configs(folder, REQUEST, log).items()
    file = folder / "two-ranks.yml"
    file.write_text(yaml.safe_dump({**config, "plugins": ["cpu_ranks.CpuRanks"]}), encoding="utf-8")
    timed(axolotl("preprocess", folder / "configs" / f"{key}.yml"), folder, log)
    _train_another(base, log)
    sides.stop_warm_server(base, log)
    return Question(key, file, base)


def _train_another(store: Path, log: Path) -> None:
    """Train another run, so that its dataset and a preloaded trainer exist."""
    timed(axosweep("learning_rate=9e-3", *COMMON, f"store={store}"), store.parent, log)


def _by_torchrun(question: Question, folder: Path) -> Try:
    config = yaml.safe_load(question.config.read_text(encoding="utf-8"))
    (folder / "config.yml").write_text(yaml.safe_dump({**config, "output_dir": str(folder / "model")}))
    log = folder / "log.txt"
    seconds = timed(axolotl("train", "config.yml", *TORCHRUN), folder, log, PYTHONPATH=str(HERE))
    return Try(seconds, sides.trained_by_axolotl(folder / "model", log))


def _by_axosweep(question: Question, folder: Path, *more: str, warm: bool = False) -> Try:
    store, log = folder / "store", folder / "log.txt"
    sides.store_with_dataset(question.base, store)
    try:
        if warm:
            _train_another(store, log)
            sides.require_warm_server(store, log)
        seconds = timed(axosweep(*REQUEST, *more, f"store={store}"), folder, log)
        return Try(seconds, sides.trained_by_axosweep(Store(store), question.key))
    finally:
        sides.stop_warm_server(store, log)


def _summary(answers: list[Side]) -> dict[str, Any]:
    reference = answers[0].tries[0].trained.losses
    equal = {side.name: all(one.trained.losses == reference for one in side.tries) for side in answers}
    seconds = {side.name: sides.median([one.timed for one in side.tries]) for side in answers}
    theirs = answers[0].name
    return {
        "sides": {
            side.name: {
                "seconds": seconds[side.name],
                "tries": [one.timed.seconds for one in side.tries],
                "cpu_s": [one.timed.cpu_s for one in side.tries],
                "run_s": [round(one.trained.seconds, 2) for one in side.tries if one.trained.seconds is not None],
                "train_runtime_s": [one.trained.train_runtime_s for one in side.tries],
                "losses_equal": equal[side.name],
            }
            for side in answers
        },
        "losses": len(reference),
        "losses_equal": bool(reference) and all(equal.values()),
        "ratio": {
            "of": theirs,
            "to": "warm",
            "times": round(seconds[theirs] / seconds["warm"], 2),
            "wanted": WANTED,
            "reached": seconds[theirs] / seconds["warm"] >= WANTED,
        },
    }


if __name__ == "__main__":
    sys.exit(main())
