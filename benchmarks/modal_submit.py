"""How many calls and seconds it takes to submit many runs to Modal, compared with hydra-modal-launcher.

    .venv/bin/python benchmarks/modal_submit.py

Both tools use the unmodified Modal client, the local Modal of tests/modal_server on this machine, and steps that do
nothing, so the figures show the tools' own part. hydra-modal-launcher is installed into a temporary folder. The first
launch (deployment, uploads, the dataset) is not measured, but the second one, which submits the new runs. The configs
are not checked against Axolotl's schema, which preflight.py measures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import modal_peer
from benchmarks.machine import describe
from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import noop_settings
from tests.modal_server.record import CLIENT

RESULT = Path(__file__).resolve().parent / "results" / "modal_submit.json"
SUBMITTING = ("FunctionMap", "FunctionPutInputs", "DictUpdate")
"""Calls that submit runs: submitting ends with the last of them."""


@dataclass(frozen=True)
class Measured:
    """A launch of this many runs. Seconds count from the start of the command."""

    runs: int
    calls_per_run: float
    """Calls of the client from the first that submits a run to the last, per run."""
    calls_to_submit: int
    """All calls of the client from its start to the last that submits."""
    calls_by_name: Mapping[str, int]
    """The same, by name."""
    seconds_to_submit: float
    seconds_to_end: float
    """Until the command ends, with every run done."""
    containers: int
    calls_when_asked_again: int
    """Runs submitted when the same command is given once more, which would train again."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    machine = describe(("modal", "hydra-core"))
    with tempfile.TemporaryDirectory(prefix="modal-submit-") as folder:
        tools = {
            "axosweep": _axosweep(Path(folder), args.runs),
            f"{modal_peer.NAME} {modal_peer.VERSION}": _peer(Path(folder), args.runs),
        }
    result = {"machine": machine, "tools": {name: asdict(measured) for name, measured in tools.items()}}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    for name, measured in tools.items():
        print(f"{name}: {measured}")


def _axosweep(folder: Path, runs: int) -> Measured:
    def command(numbers: range) -> list[str]:
        rates = ",".join(f"{number}e-5" for number in numbers)
        words = ["-m", f"learning_rate={rates}", "gpu=a100_80gb", "gpu.count=2", "executor=modal", "--yes", "--force"]
        return [sys.executable, "-m", "runner", *words, "tracking=disabled", f"store={folder / 'store'}"]

    return _measure(noop_settings(), command, folder, runs)


def _peer(folder: Path, runs: int) -> Measured:
    settings, command, work = modal_peer.install(folder)
    return _measure(settings, command, work, runs)


def _measure(settings: Settings, command: modal_peer.Command, folder: Path, runs: int) -> Measured:
    with ModalServer(settings) as server:
        server.set_secret("secrets-hf-wandb", {"HUGGINGFACE_TOKEN": "hf_local", "WANDB_API_KEY": "local"})
        environment = os.environ | server.environment() | {"AXOSWEEP_TRAINER": str(folder / "none")}

        def launch(numbers: range) -> tuple[float, float]:
            began = time.time()
            done = subprocess.run(command(numbers), cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
            return began, time.time()

        launch(range(1, 2))
        began, ended = launch(range(2, 2 + runs))
        ours = [call for call in server.calls(caller=CLIENT) if call.at >= began]
        submitting = [index for index, call in enumerate(ours) if call.name in SUBMITTING]
        containers = sum(task.started_at >= began for task in server.tasks())
        last = ours[max(submitting)]
        called = len(server.function_calls())
        inputs = _inputs(server)
        launch(range(2, 2 + runs))
        return Measured(
            runs=runs,
            calls_per_run=round((max(submitting) + 1 - min(submitting)) / runs, 2),
            calls_to_submit=max(submitting) + 1,
            calls_by_name=dict(Counter(call.name for call in ours[: max(submitting) + 1])),
            seconds_to_submit=round(last.at - began, 2),
            seconds_to_end=round(ended - began, 2),
            containers=containers,
            calls_when_asked_again=max(len(server.function_calls()) - called, _inputs(server) - inputs),
        )


def _inputs(server: ModalServer) -> int:
    """Runs that clients have submitted: one call may contain many."""
    return sum(
        len(getattr(call.request, "inputs", ())) + len(getattr(call.request, "pipelined_inputs", ()))
        for call in server.calls(caller=CLIENT)
        if call.name in ("FunctionMap", "FunctionPutInputs")
    )


if __name__ == "__main__":
    main()
