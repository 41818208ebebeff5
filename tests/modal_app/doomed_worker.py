"""Put over modal_app/worker.py in a test's containers: trains in tiny steps, saves, resumes, and fails where it is told
to.

WORKER_STEPS steps of WORKER_STEP_S seconds, a checkpoint of WORKER_BYTES bytes every WORKER_SAVE_STEPS. The loss
depends on all earlier steps, so that a repeated or missing step shows. WORKER_DOOM is JSON: an attempt's number,
<run>/<number> or "*" -> what becomes of it, and after which step (0: before the first; left out: before it begins at
all):

    crash       the worker dies of a bad memory access
    container   the container dies of SIGKILL, as from the machine's out-of-memory killer
    deaf        it does not hear SIGTERM any more
    linger      a child of it holds a file of the run open for a while
    idle        it waits to be stopped, then it saves
    fail        it says that it has failed, and why: there was no sense in it
    rank        it says that a rank of it was killed
    nan         it says that it has diverged
    asked       its container dies of SIGKILL when the run has asked at a rung
    told        the same when it has its answer, and has stopped
    killed      the worker dies of SIGKILL
    memory      it says that its GPU was out of memory
    harmless    what it changes of its own process goes with it

and what it leaves in its container, although it succeeds:

    child       a process
    daemon      a process that has left its session and its parent
    file        a file in /tmp
    holder      a daemon that holds a file of the run open
    limit       another limit of the container's own process
    gpu         memory of the GPU, as the tests' nvidia-smi shows it

In a search, its loss at each rung is what its config says. WORKER_WAITS_S: how long it waits for an answer.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from modal_app.halving.asking import ByFile
from modal_app.halving.snapshot import Reading
from modal_app.process import attempt as attempts
from modal_app.process import healing, stop
from modal_app.process.failures import StepFailed
from modal_app.store import checkpoints
from modal_app.store.claim import claim
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.out_of_memory import Memory
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, Step, write_atomically

MODULUS = 2_147_483_647
STATE = "trainer_state.json"


def main() -> int:
    step = Step.from_json(sys.stdin.read())
    store = Store(Path(sys.argv[sys.argv.index("--store") + 1]).resolve())
    number = int(sys.argv[sys.argv.index("--attempt") + 1])
    scratch = Path(sys.argv[sys.argv.index("--scratch") + 1])
    folder = store.folder(step.kind, step.key).draft_of(number, scratch)
    doom = _Doom(folder)
    doom.strike(None)
    with claim(folder, step.sweep):
        asked, step = step, healing.with_smaller_batch(step, folder)
        attempt, began_at = attempts.begin(step, store, folder, asked.config), time.time()
        stop.set_stop_handler(None)
        status, reason, message = OutcomeStatus.SUCCEEDED, None, ""
        steps = int(os.environ["WORKER_STEPS"])
        facts: dict[str, Any] = {"step": steps, "max_steps": steps, "eval_fingerprint": "rows"}
        try:
            doom.strike(0)
            if (stopped_at := _train(folder, attempt, doom, _Rungs(step, attempt, doom))) is not None:
                status, message = OutcomeStatus.STOPPED, f"stopped at step {stopped_at}"
        except _AtRung as stop_there:
            doom.strike_if("told")
            status, message = OutcomeStatus.AT_RUNG, f"stopped at rung {stop_there.rung}"
            facts |= {"rung": stop_there.rung, "search": step.rungs and step.rungs.search}
        except StepFailed as failure:
            status, reason, message = OutcomeStatus.FAILED, failure.reason, str(failure)
            facts |= {"out_of_memory_on": Memory.GPU} if reason is FailureReason.OOM else {}
        outcome = Outcome(status, attempt.number, began_at, time.time(), reason, message, facts)
        outcome = healing.judged(outcome, asked, step, folder)
        if status is OutcomeStatus.SUCCEEDED:
            folder.done.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(folder.done, outcome.to_json())
        write_atomically(folder.result_of(attempt), outcome.to_json())
    return 0 if status is OutcomeStatus.SUCCEEDED else 1


class _AtRung(Exception):
    def __init__(self, rung: int) -> None:
        self.rung = rung


class _Rungs:
    def __init__(self, step: Step, attempt: Attempt, doom: _Doom) -> None:
        self._step, self._attempt, self._doom = step, attempt, doom

    def stop_at(self, number: int) -> bool:
        """Whether the run stops after a step. Raises nothing, since a checkpoint has to be saved."""
        return self.at(number) > 0 and not self._goes_on(self.at(number))

    def at(self, number: int) -> int:
        return self._step.rungs.at(number, int(os.environ["WORKER_STEPS"])) if self._step.rungs else 0

    def _wait(self, pause_s: float) -> None:
        self._doom.strike_if("asked")
        time.sleep(pause_s)

    def _goes_on(self, rung: int) -> bool:
        assert self._step.rungs is not None
        waits_s = float(os.environ["WORKER_WAITS_S"])
        asks = ByFile(self._step.rungs.search, self._step.key, self._attempt, waits_s, self._wait, stop.requested)
        steps = int(os.environ["WORKER_STEPS"])
        return asks.ask(rung, Reading(float(self._step.config["loss"]), steps, "rows")).goes_on


def _train(folder: StepFolder, attempt: Attempt, doom: _Doom, rungs: _Rungs) -> int | None:
    """The step at which it was stopped; None if it has reached its end."""
    folder.model.mkdir(exist_ok=True)
    resumed = checkpoints.set_aside_unusable(folder.model)
    number, value = 0, 1
    if resumed is not None:
        state = json.loads((resumed / STATE).read_text())
        number, value = state["global_step"], state["value"]
    steps, save_steps = int(os.environ["WORKER_STEPS"]), int(os.environ["WORKER_SAVE_STEPS"])
    if rungs.stop_at(number):
        raise _AtRung(rungs.at(number))
    while number < steps:
        if stop.requested() and number == 0:
            return 0
        time.sleep(float(os.environ["WORKER_STEP_S"]))
        number, value = number + 1, value * 48_271 % MODULUS
        with folder.metrics.open("a", encoding="utf-8") as file:
            line = {"attempt": attempt.number, "step": number, "loss": value / MODULUS, "at": time.monotonic()}
            file.write(json.dumps(line) + "\n")
        if stop.requested():
            _save(folder, number, value)
            return number
        if number % save_steps == 0:
            _save(folder, number, value)
        doom.strike(number)
        if rungs.stop_at(number):
            _save(folder, number, value)
            raise _AtRung(rungs.at(number))
        if rungs.at(number) and stop.requested():  # instead of an answer
            _save(folder, number, value)
            return number
    return None


def _save(folder: StepFolder, number: int, value: int) -> None:
    checkpoint = folder.model / f"{checkpoints.PREFIX}{number}"
    shutil.rmtree(checkpoint, ignore_errors=True)
    checkpoint.mkdir()
    state = {"global_step": number, "max_steps": int(os.environ["WORKER_STEPS"]), "value": value}
    (checkpoint / STATE).write_text(json.dumps(state))
    (checkpoint / "weights").write_bytes(bytes(int(os.environ["WORKER_BYTES"])))
    checkpoints.mark_complete(checkpoint, {})


class _Doom:
    def __init__(self, folder: StepFolder) -> None:
        told = json.loads(os.environ["WORKER_DOOM"])
        self._folder, number = folder, str(folder.drafted_by)
        doom = told.get(f"{folder.path.name}/{number}", told.get(number, told.get("*", "")))
        self._kind, _, at = doom.partition("@")
        self._at = int(at) if at else None

    def strike_if(self, kind: str) -> None:
        """Kill the container if that is its fault in this test."""
        if self._kind == kind:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)

    def strike(self, number: int | None) -> None:
        if number != self._at:
            return
        match self._kind:
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "container":
                self.strike_if("container")
            case "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            case "fail":
                raise StepFailed(FailureReason.CONFIG, "there was no sense in it")
            case "rank":
                raise StepFailed(FailureReason.LOST, "rank 1 was killed by signal 9")
            case "nan":
                raise StepFailed(FailureReason.NAN, "the loss is NaN")
            case "idle":
                stop.set_stop_handler(None)
                while not stop.requested():
                    time.sleep(0.05)
            case "linger":
                subprocess.Popen(["sleep", "2"], stdout=self._folder.metrics.open("a"), start_new_session=True)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "memory":
                raise StepFailed(FailureReason.OOM, "out of memory")
            case "harmless":
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_NPROC, (4096, 4096))
                os.environ["LEFT"] = "behind"
                os.chdir(self._folder.path)
            case "child":
                subprocess.Popen(["sleep", "600"])
            case "daemon":
                _start_daemon()
            case "file":
                Path("/", "tmp", "left").write_text("behind")
            case "holder":
                _start_daemon(self._folder.metrics)
            case "limit":
                resource.prlimit(os.getppid(), resource.RLIMIT_NPROC, (4096, 4096))
            case "gpu":
                Path("/var/used-mib").write_text("70000")


def _start_daemon(held: Path = Path(os.devnull)) -> None:
    """Forked twice, so that it has no parent in the container."""
    if (child := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            os.dup2(os.open(held, os.O_RDONLY), 0)
            os.execvp("sleep", ["sleep", "600"])
        os._exit(0)
    os.waitpid(child, 0)
