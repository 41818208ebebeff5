"""A sweep of 60 tiny runs on the local Modal of the tests, and every few seconds one fault.

    .venv/bin/python benchmarks/modal_soak.py --seeds 1 2 3

The command, Modal's client and the containers' entrypoint are the real ones; the worker trains deterministically in no
time (modal_soak_worker.py). A random generator with the given seed draws the faults (modal_soak_faults.py); the moment
at which one strikes depends on the machine, so a seed does not repeat a soak exactly. If the client ends for another
reason than success, the same command is run again, as a user would.

Writes benchmarks/results/modal_soak.json; exits with 1 if a check fails (modal_soak_checks.py). Needs root, as all
tests with Volumes do.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks import modal_soak_checks as checks
from benchmarks.machine import describe
from benchmarks.modal_soak_faults import Faults, processes_of
from modal_app.cloud.container import STOP_GRACE_S
from modal_app.store.layout import Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import StepKind
from tests.end_to_end.axosweep import Axosweep, kill
from tests.end_to_end.on_modal import ON_GPUS, RUNS, local_modal, machine
from tests.modal_app.deployments import shipped
from tests.modal_server import ModalServer, Settings
from tests.modal_server.layers import HOME

HERE = Path(__file__).resolve().parent
STEPS, STEP_S, SAVE_STEPS = 60, 0.1, 4
PAUSES_S = (3.0, 7.0)
LONGEST_S = 1800.0
RUNGS = ("search.rungs=[0.2,0.6]", "search.eta=3", "search.audit=false")
MOST_STARTS = 12
"""Of clients that end by themselves and without success."""


@dataclass
class Client:
    """The command, started again whenever it has ended too soon."""

    axosweep: Axosweep
    words: tuple[str, ...]
    log: IO[str]
    process: subprocess.Popen[str] | None = None
    codes: list[int] = field(default_factory=list)
    """Of those that ended by themselves."""

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runner", *self.words], cwd=self.axosweep.folder, text=True,
            env=self.axosweep.variables(), stdout=self.log, stderr=self.log, start_new_session=True,
        )  # fmt: skip

    def restart(self) -> None:
        assert self.process is not None
        kill(self.process.pid)
        self.process.wait()
        self.start()

    def has_succeeded(self) -> bool:
        """Whether it has succeeded; if it has ended in another way, it is started again."""
        assert self.process is not None
        if (code := self.process.poll()) is None:
            return False
        self.codes.append(code)
        if code != 0:
            self.start()
        return code == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[random.SystemRandom().randrange(10_000)])
    parser.add_argument("--output", type=Path, default=HERE / "results" / "modal_soak.json")
    parser.add_argument("--pauses", type=float, nargs=2, default=PAUSES_S, help="least and most seconds between faults")
    parser.add_argument("--rungs", action="store_true", help="let runs stop at the rungs of a search")
    parser.add_argument("--logs", type=Path, help="folder for what the clients and the containers have printed")
    args = parser.parse_args()
    described, soaks = describe(("modal",)), []
    for seed in args.seeds:
        say(f"seed {seed}: {args.runs} runs")
        soaks.append(soak(args.runs, seed, tuple(args.pauses), args.logs, RUNGS if args.rungs else ()))
        result = {"machine": described, "steps": STEPS, "step_s": STEP_S, "soaks": soaks}
        args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        say(json.dumps(soaks[-1], indent=1))
    return 1 if any(one["wrong"] for one in soaks) else 0


def soak(
    runs: int, seed: int, pauses_s: tuple[float, float], logs: Path | None, words: tuple[str, ...]
) -> dict[str, Any]:
    """One sweep: its figures, and what contradicts the checks."""
    variables = {"SOAK_STEPS": str(STEPS), "SOAK_STEP_S": str(STEP_S), "SOAK_SAVE_STEPS": str(SAVE_STEPS)}
    settings = Settings(
        container_environment=variables,
        files={f"{HOME}/modal_app/worker.py": HERE / "modal_soak_worker.py"},
        grace_s=STOP_GRACE_S / 2,
        max_containers=8,
        start_attempts=1000,  # Modal starts a container again if its entrypoint could not reach Modal
    )
    with tempfile.TemporaryDirectory(prefix="axosweep-soak-") as name, local_modal(settings) as server:
        axosweep = machine(server, Path(name))
        rates = ",".join(f"{number}e-5" for number in range(1, runs + 1))
        with (Path(name) / "client.log").open("w") as log:
            client = Client(axosweep, ("-m", f"learning_rate={rates}", *ON_GPUS, *words), log)
            began = time.monotonic()
            client.start()
            try:
                faults, first_seen = strike_until_done(server, client, runs, seed, pauses_s, began)
            finally:
                if client.process and client.process.poll() is None:
                    kill(client.process.pid)
                    client.process.wait()
            seconds = time.monotonic() - began
        result = judge(server, axosweep, faults, first_seen, runs)
        printed = (Path(name) / "client.log").read_text()
        if "Traceback" in printed:
            result["wrong"].append(f"the command has printed {printed.count('Traceback')} tracebacks")
        if logs:
            logs.mkdir(parents=True, exist_ok=True)
            (logs / f"{seed}-client.log").write_text(printed)
            (logs / f"{seed}-containers.log").write_text(server.log())
            (logs / f"{seed}-faults.json").write_text(json.dumps(faults.as_json(), indent=1))
    ended = dict(Counter(str(code) for code in client.codes))
    figures = {"seed": seed, "runs": runs, "seconds": round(seconds, 1), "seconds_between_faults": pauses_s}
    return {**figures, "clients_ended_by_themselves": ended, **result}


def strike_until_done(
    server: ModalServer, client: Client, runs: int, seed: int, pauses_s: tuple[float, float], began: float
) -> tuple[Faults, dict[str, bytes]]:
    """Until a client has succeeded. Also: each run's result, as it was when it was first seen."""
    drawn = random.Random(seed)
    faults = Faults(server, shipped().claims, drawn, client.restart)
    first_seen: dict[str, bytes] = {}
    server.wait_until(lambda: server.function_calls(), 120)
    next_at, said = time.monotonic() + drawn.uniform(*pauses_s), 0
    while not client.has_succeeded():
        now = time.monotonic()
        if now - began > LONGEST_S or len(client.codes) > MOST_STARTS:
            say("given up: no client has succeeded")
            break
        faults.step()
        for path in (server.volume_tree(RUNS) / "runs").glob("*/result.json"):
            if path.parent.name not in first_seen:
                first_seen[path.parent.name] = path.read_bytes()
        if now >= next_at and _ended(Store(server.volume_tree(RUNS))) < runs:
            faults.strike()
            next_at = now + drawn.uniform(*pauses_s)
        if now - began > said + 20:
            said = int(now - began)
            say(f"  {said} s: {len(first_seen)} runs have results, {len(faults.hits)} faults {faults.counts()}")
        time.sleep(0.1)
    faults.end()
    return faults, first_seen


def _ended(store: Store) -> int:
    """How many runs have finished or stopped at a rung; what goes on from there meets no further fault."""
    phases = [observe(store, StepKind.TRAIN, path.name).phase for path in store.runs.glob("*")]
    return sum(phase in (Phase.SUCCEEDED, Phase.AT_RUNG) for phase in phases)


def judge(
    server: ModalServer, axosweep: Axosweep, faults: Faults, first_seen: dict[str, bytes], runs: int
) -> dict[str, Any]:
    wrong = []
    try:
        server.wait_until(lambda: all(task.ended_at for task in server.tasks()), 120)
    except TimeoutError:
        wrong.append("some containers do not end")
    rows = axosweep.json("compare")["runs"]
    statuses = Counter(str(row["status"]) for row in rows)
    halved = any(axosweep.store.root.glob("modal/sweeps/*/rungs"))
    if not set(statuses) <= {"succeeded", *(["stopped at rung"] if halved else [])} or statuses.total() != runs:
        wrong.append(f"statuses: {dict(statuses)}")
    store = Store(server.volume_tree(RUNS))
    keys = sorted(str(row["key"]) for row in rows)
    tasks = {task.id: task for task in server.tasks()}
    trained = checks.trained_of(server.log(function="train"))
    needed = checks.needed_steps(store, keys, STEPS)
    not_met, untouched = checks.untouched(trained, faults.hits, tasks, needed)
    paid, figures = checks.receipt(store, rows, tasks, faults.hits, trained)
    ended = [key for key in keys if needed[key] == STEPS]
    wrong += checks.losses(store, needed) + checks.results(store, ended, first_seen)
    wrong += (
        checks.training(store, trained, faults.hits, needed) + checks.at_rest(store, needed, STEPS) + not_met + paid
    )
    left = [*processes_of(set(tasks)), *axosweep.processes()]
    if left:
        wrong.append(f"processes left: {left}")
    attempts = Counter(len(store.folder(StepKind.TRAIN, key).attempts()) for key in keys)
    return {
        "faults": faults.counts(),
        "attempts": {str(number): attempts[number] for number in sorted(attempts)},
        "untouched_runs": untouched,
        "trained_steps": sum(len(one.steps) for all_ in trained.values() for one in all_),
        "needed_steps": sum(needed.values()),
        "statuses": dict(statuses),
        "containers": len(server.tasks("train")),
        "calls": len(server.function_calls("train")),
        "receipt": figures,
        "wrong": wrong,
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.chdir(HERE.parent)
    sys.exit(main())
