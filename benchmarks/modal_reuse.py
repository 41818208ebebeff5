"""What a run on Modal costs besides its work: in a container that takes one run after the other, in a container of its
own, and with hydra-modal-launcher.

    .venv/bin/python benchmarks/modal_reuse.py [--before COMMIT]

64 runs that do nothing, in six containers at a time, on the local Modal of tests/modal_server. hydra-modal-launcher and
axosweep take turns, round by round, each with its own server; the slower sides are measured once. The first launch of
each is not measured: it deploys the program, prepares the dataset, compiles bytecode, and has one run more than there
are containers. The second one submits new runs, and is measured. All files are in memory, for every side. Seconds
depend on this machine; requests do not. `--before`: also the launcher as it was at that commit. Needs root, as all
tests with Volumes do.
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
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import modal_peer
from benchmarks.machine import describe
from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import SECRET, noop_settings
from tests.modal_server.layers import HOME
from tests.modal_server.record import CLIENT, Call

ROOT = Path(__file__).resolve().parent.parent
RESULT = Path(__file__).resolve().parent / "results" / "modal_reuse.json"
CONTAINERS = 6
PEER, REUSED, SINGLE_USE, BEFORE = f"{modal_peer.NAME} {modal_peer.VERSION}", "axosweep", "single-use", "before"
ON_GPUS = ("gpu=a100_80gb", "gpu.count=2", "executor=modal", f"executor.parallel={CONTAINERS}", "tracking=disabled")
STARTED = ("FunctionMap", "FunctionPutInputs")


@dataclass(frozen=True)
class Side:
    """A tool with its containers."""

    settings: Settings
    command: modal_peer.Command
    folder: Path
    """To start it from."""


@dataclass(frozen=True)
class Measured:
    """One launch of the runs. Seconds count from the start of the command."""

    seconds: float
    """Until the command ends, with every run done."""
    seconds_to_first_run: float
    """Until the first run is submitted."""
    seconds_to_last_run: float
    """Until the last run has ended."""
    containers: int
    """That were started."""
    rented_seconds: float
    """Of all containers together, from their start to their end or to that of the command."""
    requests_of_client: int
    requests_per_run: Mapping[str, float]
    """Those of the containers, by name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", metavar="COMMIT", help="of a version of axosweep to be measured, too")
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    machine = describe(("modal", "hydra-core"))
    found: dict[str, list[Measured]] = {}
    tempfile.tempdir = os.environ["TMPDIR"] = "/dev/shm"
    with tempfile.TemporaryDirectory(prefix="modal-reuse-") as folder:
        sides = _sides(Path(folder), args.before)
        for number in range(args.rounds):
            for name in sides if number == 0 else (PEER, REUSED):
                measured = _measure(sides[name], Path(folder, f"{name}-{number}"), args.runs)
                found.setdefault(name, []).append(measured)
                print(f"{name}: {measured}", flush=True)
            _write(args.output, machine, args.runs, found)


def _write(output: Path, machine: Mapping[str, Any], runs: int, found: Mapping[str, Sequence[Measured]]) -> None:
    medians = {name: round(statistics.median(one.seconds for one in many), 2) for name, many in found.items()}
    result = {
        "machine": machine,
        "runs": runs,
        "containers_at_a_time": CONTAINERS,
        "seconds": medians,
        "times_the_peer": {name: round(seconds / medians[PEER], 2) for name, seconds in medians.items()},
        "rounds": {name: [asdict(one) for one in many] for name, many in found.items()},
    }
    output.write_text(json.dumps(result, indent=1) + "\n")
    print(medians, result["times_the_peer"])


def _sides(folder: Path, before: str | None) -> dict[str, Side]:
    sides = {
        PEER: Side(*modal_peer.install(folder)),
        REUSED: Side(noop_settings(), _axosweep(), ROOT),
        SINGLE_USE: Side(noop_settings(), _axosweep("executor.modal.reuse=false"), ROOT),
    }
    if before:
        clone = folder / "clone"
        subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, clone], check=True)
        subprocess.run(["git", "-C", clone, "checkout", "--quiet", before], check=True)
        worker = {f"{HOME}/modal_app/worker.py": clone / "tests" / "modal_server" / "noop_worker.py"}
        sides[BEFORE] = Side(replace(noop_settings(), files=worker), _axosweep(), clone)
    return sides


def _axosweep(*words: str) -> modal_peer.Command:
    def command(numbers: range) -> Sequence[str]:
        rates = ",".join(f"{number}e-5" for number in numbers)
        return [sys.executable, "-m", "runner", "-m", f"learning_rate={rates}", *ON_GPUS, "--yes", "--force", *words]

    return command


def _measure(side: Side, store: Path, runs: int) -> Measured:
    settings = replace(side.settings, max_containers=CONTAINERS)
    with ModalServer(settings) as server:
        server.set_secret("secrets-hf-wandb", SECRET)
        variables = {"AXOSWEEP_TRAINER": str(store / "none"), "AXOSWEEP_STORE": str(store)}
        environment = os.environ | server.environment() | variables
        for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH"):  # each command would compile, or find the other tool
            environment.pop(name, None)
        _launch(side, range(1, 2 + CONTAINERS), environment)
        server.wait_until(lambda: all(task.ended_at for task in server.tasks()), 60)
        began = time.time()
        _launch(side, range(2 + CONTAINERS, 2 + CONTAINERS + runs), environment)
        ended = time.time()
        return _describe(server, began, ended, runs)


def _launch(side: Side, numbers: range, environment: Mapping[str, str]) -> None:
    command = side.command(numbers)
    done = subprocess.run(command, cwd=side.folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)[:500]}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def _describe(server: ModalServer, began: float, ended: float, runs: int) -> Measured:
    calls = [call for call in server.calls() if began <= call.at <= ended]
    ours = [call for call in calls if call.caller == CLIENT]
    theirs = Counter(call.name for call in calls if call.caller != CLIENT)
    tasks = [task for task in server.tasks() if not task.ended_at or task.ended_at >= began]
    rented = sum((task.ended_at or ended) - max(task.started_at, began) for task in tasks)
    return Measured(
        seconds=round(ended - began, 2),
        seconds_to_first_run=round(min(_times(ours, *STARTED)) - began, 2),
        seconds_to_last_run=round(max(_times(calls, "FunctionPutOutputs")) - began, 2),
        containers=sum(task.started_at >= began for task in tasks),
        rented_seconds=round(rented, 1),
        requests_of_client=len(ours),
        requests_per_run={name: round(number / runs, 2) for name, number in theirs.most_common()},
    )


def _times(calls: Sequence[Call], *names: str) -> list[float]:
    return [call.at for call in calls if call.name in names]


if __name__ == "__main__":
    main()
