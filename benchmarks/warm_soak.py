"""Whether one preloaded trainer gets slower or leaks anything: 200 tiny runs forked from it, one after another.

    .venv/bin/python benchmarks/warm_soak.py

Needs the trainer environment. Writes benchmarks/results/warm_soak.json: the mean seconds of runs 2 to 21 and of the
last twenty (wall time; the run's own processor time, which other work on the machine does not lengthen; and that at a
steady pace (pace.py), since the speed of a rented core changes within ten minutes). Also, before and after: the number
of the server's descriptors and children and of files in /dev/shm and in the temporary folder, and the server's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.pace import Pace
from modal_app.store.layout import Store
from modal_app.store.state import observe
from modal_app.store.step import OutcomeStatus, Step, StepKind
from runner.environment import trainer_environment
from runner.executors.warm_server import running
from runner.executors.warm_workers import WarmWorkers

HERE = Path(__file__).resolve().parent
IDLE_S = 600.0
WINDOW = 20
WORDS = ("max_steps=20", "tracking=disabled", f"executor.warm_idle_s={IDLE_S:.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Fork many runs from one preloaded trainer.")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "warm_soak.json")
    args = parser.parse_args()
    if args.runs < 2 * WINDOW + 1:
        parser.error(f"--runs: expected at least {2 * WINDOW + 1}, to compare the last {WINDOW} with the first")
    machine = describe(("hydra-core", "wandb"))
    with tempfile.TemporaryDirectory(prefix="axosweep-benchmark-") as name:
        result = measure(args.runs, Path(name))
    args.output.write_text(json.dumps({"machine": machine, **result}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    return 0 if abs(result["slower"]["steady"] - 1) <= 0.1 and result["before"] == result["after"] else 1


def measure(count: int, folder: Path) -> dict[str, Any]:
    os.environ |= {"XDG_RUNTIME_DIR": str(folder), "TMPDIR": str(folder / "temporary")}
    (folder / "temporary").mkdir()
    store = Store(folder / "store")
    subprocess.run([sys.executable, "-m", "runner", *WORDS, f"store={store.root}"], cwd=HERE.parent, check=True)
    pattern = first_step(store)
    workers = WarmWorkers(trainer_environment.find(), store.root, {"HF_HUB_OFFLINE": "1"}, IDLE_S)
    workers.warm_up()
    assert workers.is_up, "the first command's trainer is there"
    server = running(store.root)[0].owner.pid
    before, memory = left(server, folder), [resident(server)]
    seconds: list[float] = []
    cpu: list[float] = []
    loops: list[float] = []
    for number in range(1, count + 1):
        step = replace(pattern, key=f"soak-{number:03}")
        began = time.perf_counter()
        with Pace() as pace:
            workers.start(step)
            while not workers.wait(60):
                pass
        seconds.append(time.perf_counter() - began)
        outcome = observe(store, step.kind, step.key).outcome
        assert outcome is not None
        assert outcome.status is OutcomeStatus.SUCCEEDED, outcome.message
        cpu.append(sum(outcome.facts["cpu"].values()))
        loops.append(pace.loop_ms)
        if number % WINDOW == 0:
            memory.append(resident(server))
            print(f"{number} runs, the last in {seconds[-1]:.2f} s", file=sys.stderr)
    after = left(server, folder)
    workers.close()
    subprocess.run(
        [sys.executable, "-m", "runner", "warm", "stop", "--store", str(store.root)], cwd=HERE.parent, check=True
    )
    means = {name: early_and_late(all_) for name, all_ in (("seconds", seconds), ("cpu_s", cpu), ("loop_ms", loops))}
    slower = {"seconds": ratio(means["seconds"]), "cpu": ratio(means["cpu_s"])}
    slower["steady"] = round(slower["cpu"] / ratio(means["loop_ms"]), 3)
    return {"runs": count, **means, "slower": slower, "server_mib": memory, "before": before, "after": after}


def first_step(store: Store) -> Step:
    (path,) = store.runs.glob("*/attempt-1/step.json")
    step = Step.from_json(path.read_text(encoding="utf-8"))
    assert step.kind is StepKind.TRAIN
    return step


def early_and_late(values: list[float]) -> dict[str, float]:
    """Means of runs 2 to 21, and of the last twenty."""
    early, late = values[1 : WINDOW + 1], values[-WINDOW:]
    return {"early": round(statistics.fmean(early), 3), "late": round(statistics.fmean(late), 3)}


def ratio(means: dict[str, float]) -> float:
    return round(means["late"] / means["early"], 3)


def left(server: int, folder: Path) -> dict[str, int]:
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return {
        "children": len(children),
        "descriptors": len(os.listdir(f"/proc/{server}/fd")),
        "shared_memory": len(os.listdir("/dev/shm")),
        "temporary": len(os.listdir(folder / "temporary")),
    }


def resident(pid: int) -> int:
    """MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    sys.exit(main())
