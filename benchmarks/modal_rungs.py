"""What a search with rungs pays on Modal compared with its grid, and what it pays for nothing.

    .venv/bin/python benchmarks/modal_rungs.py

The command and Modal's client are the real ones, on the local Modal of tests/modal_server, whose containers do nothing
for as long as a training would take. The client is killed when it has called the runs, so everything else happens
without it. Seconds are those that the containers have recorded, as they are paid. Writes
benchmarks/results/modal_rungs.json. Needs root, as all tests with Volumes do.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.machine import describe
from modal_app.store.layout import Store
from modal_app.store.state import read_outcome
from modal_app.store.step import StepKind
from tests.end_to_end.axosweep import kill
from tests.end_to_end.on_modal import ON_GPUS, RUNS, container_records, local_modal, machine
from tests.modal_server import ModalServer
from tests.modal_server.fixture import noop_settings

RESULT = Path(__file__).resolve().parent / "results" / "modal_rungs.json"
RUNGS = ("search.rungs=[0.2,0.6]", "search.eta=3", "search.audit=false")


@dataclass(frozen=True)
class Paid:
    """What one sweep has paid."""

    containers: int
    """With a run."""
    statuses: dict[str, int]
    seconds: float
    """Of all containers together, from their start to their end."""
    start_seconds: float
    """Of these: from a container's start until its trainer begins, which is where an attempt begins."""
    answer_seconds: tuple[float, ...]
    """How long each question at a rung has waited for its answer, with its GPUs."""
    end_seconds: float
    """From the end of a trainer to the end of its container, all of them together."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=60.0, help="of a run")
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    described = describe(("modal",))
    grid, search = (_measure(args.runs, args.seconds, words) for words in ((), RUNGS))
    share = search.seconds / grid.seconds
    sides = {"grid": asdict(grid), "search": asdict(search)}
    result = {"machine": described, "run_seconds": args.seconds, "share": round(share, 3), **sides}
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{share:.0%} of the grid's paid seconds\ngrid   {grid}\nsearch {search}")


def _measure(runs: int, seconds: float, words: tuple[str, ...]) -> Paid:
    settings = noop_settings(train_s=seconds, max_containers=runs)
    with tempfile.TemporaryDirectory() as folder, local_modal(settings) as server:
        here = machine(server, Path(folder))
        rates = ",".join(f"{1 + 5 * number % runs}e-4" for number in range(runs))
        client = here.start("-m", f"learning_rate={rates}", *ON_GPUS, *words)
        server.wait_until(lambda: len(server.function_calls("train")) >= runs, 300)
        kill(client.pid)
        client.communicate()
        server.wait_until(lambda: all(one.status == "success" for one in server.function_calls()), 20 * seconds + 300)
        server.wait_until(lambda: all(task.ended_at for task in server.tasks("train")), 60)
        return _paid(server)


def _paid(server: ModalServer) -> Paid:
    store = Store(server.volume_tree(RUNS))
    ends = {task.id: task for task in server.tasks("train")}
    statuses, records, answers, begins, tails = Counter[str](), [], list[float](), 0.0, 0.0
    for run in store.runs.iterdir():
        folder = store.folder(StepKind.TRAIN, run.name)
        records += container_records(server, f"runs/{run.name}")
        for attempt in folder.attempts():
            outcome = read_outcome(attempt.result)
            task = ends[json.loads(attempt.container.read_text())["container"]]
            assert outcome is not None
            assert task.ended_at is not None
            begins += outcome.started_at - task.started_at
            tails += task.ended_at - outcome.finished_at
            for rung in (1, 2):
                question, answer = attempt.rung_question(rung), attempt.rung_answer(rung)
                answers += [answer.stat().st_mtime - question.stat().st_mtime] if answer.exists() else []
            last = str(outcome.status)
        statuses[last] += 1
    return Paid(
        len(records),
        dict(statuses),
        round(sum(float(one["seconds"]) for one in records), 1),
        round(begins, 1),
        tuple(round(one, 2) for one in sorted(answers)),
        round(tails, 1),
    )


if __name__ == "__main__":
    main()
