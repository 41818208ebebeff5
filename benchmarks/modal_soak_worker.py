"""Put over modal_app/worker.py in the containers of modal_soak.py: trains in tiny steps, saves, resumes.

SOAK_STEPS steps of SOAK_STEP_S seconds, a checkpoint every SOAK_SAVE_STEPS. A loss depends on the run's key and on all
steps before, so a step that is left out, taken twice, or taken from another run shows. Every step that is trained is
printed, also one whose files are lost with their container: modal_soak.py counts these lines. At a rung of a search, it
asks whether it goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from modal_app.halving.asking import ByFile
from modal_app.halving.snapshot import Reading
from modal_app.process import attempt as attempts
from modal_app.process import stop
from modal_app.store import checkpoints
from modal_app.store.claim import claim
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.step import Outcome, OutcomeStatus, Step, StepKind, write_atomically

MODULUS = 2_147_483_647
STATE = "trainer_state.json"
TRAINED = "soak-trained"


def main() -> int:
    step = Step.from_json(sys.stdin.read())
    store = Store(Path(sys.argv[sys.argv.index("--store") + 1]).resolve())
    folder = store.folder(step.kind, step.key).draft_of(int(sys.argv[sys.argv.index("--attempt") + 1]))
    with claim(folder, step.sweep):
        attempt, began_at = attempts.begin(step, store, folder), time.time()
        stop.set_stop_handler(None)
        stopped_at = None
        try:
            if step.kind is StepKind.TRAIN:
                stopped_at = _train(step, folder, attempt)
        except stop.AtRung as at_rung:
            message, facts = str(at_rung), at_rung.facts
            outcome = Outcome(OutcomeStatus.AT_RUNG, attempt.number, began_at, time.time(), None, message, facts)
            write_atomically(attempt.result, outcome.to_json())
            return 4
        if stopped_at is None:
            outcome = _succeed(step, folder, attempt, began_at)
        else:
            text = f"stopped at step {stopped_at}"
            outcome = Outcome(OutcomeStatus.STOPPED, attempt.number, began_at, time.time(), message=text)
        write_atomically(attempt.result, outcome.to_json())
    return 0 if stopped_at is None else 1


def first_value(key: str) -> int:
    """What the losses of a run start from."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:12], 16) % (MODULUS - 1) + 1


def next_value(value: int) -> int:
    return value * 48_271 % MODULUS


def _train(step: Step, folder: StepFolder, attempt: Attempt) -> int | None:
    """The step at which it was stopped; None at the end."""
    folder.model.mkdir(exist_ok=True)
    resumed = checkpoints.set_aside_unusable(folder.model)
    number, value = 0, first_value(step.key)
    if resumed is not None:
        state = json.loads((resumed / STATE).read_text())
        number, value = state["global_step"], state["value"]
    steps, save_steps = int(os.environ["SOAK_STEPS"]), int(os.environ["SOAK_SAVE_STEPS"])
    if facts := _stops_at_rung(step, attempt, number, value):
        raise stop.AtRung(facts)
    while number < steps:
        if stop.requested() and number == 0:
            return 0
        time.sleep(float(os.environ["SOAK_STEP_S"]))
        number, value = number + 1, next_value(value)
        print(TRAINED, step.key, attempt.number, os.environ["MODAL_TASK_ID"], number, flush=True)
        loss = value / MODULUS
        line = {"attempt": attempt.number, "step": number, "time": time.time(), "loss": loss, "eval_loss": loss}
        with folder.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        facts = {} if stop.requested() else _stops_at_rung(step, attempt, number, value)
        if facts or stop.requested() or number % save_steps == 0:
            _save(folder, number, value)
        if facts:
            raise stop.AtRung(facts)
        if stop.requested():
            return number
    return None


def _stops_at_rung(step: Step, attempt: Attempt, number: int, value: int) -> dict[str, Any]:
    """The facts of a run that stops after a step; empty if it goes on."""
    steps = int(os.environ["SOAK_STEPS"])
    rung = step.rungs.at(number, steps) if step.rungs else 0
    if step.rungs is None or not rung:
        return {}
    asks = ByFile(step.rungs.search, step.key, attempt, is_over=stop.requested)
    answer = asks.ask(rung, Reading(value / MODULUS, steps, "0" * 64))
    if answer.goes_on:
        return {}
    facts = {"search": step.rungs.search, "rung": rung, "rungs": len(step.rungs.fractions), "step": number}
    return facts | {"max_steps": steps, "place": answer.place, "of": answer.of, "why": ""}


def _save(folder: StepFolder, number: int, value: int) -> None:
    checkpoint = folder.model / f"{checkpoints.PREFIX}{number}"
    older = checkpoints.all_checkpoints(folder.model)
    checkpoint.mkdir()
    state = {"global_step": number, "max_steps": int(os.environ["SOAK_STEPS"]), "value": value}
    (checkpoint / STATE).write_text(json.dumps(state))
    checkpoints.mark_complete(checkpoint, {})
    for one in older:  # the local server copies a Volume for each container: few files, please
        one.unlink() if one.is_symlink() else shutil.rmtree(one)


def _succeed(step: Step, folder: StepFolder, attempt: Attempt, began_at: float) -> Outcome:
    facts = {"eval_fingerprint": "0" * 64}
    now = time.time()
    if step.kind is StepKind.PREPROCESS:
        rows = {"key": step.key, "attempt": attempt.number, "rows": 1, "eval_rows": 1}
        write_atomically(folder.done, json.dumps(rows | facts | {"started_at": began_at, "finished_at": now}))
        return Outcome(OutcomeStatus.SUCCEEDED, attempt.number, began_at, now, facts={**rows, **facts})
    number = int(os.environ["SOAK_STEPS"])
    length = {"step": number, "max_steps": number, "world_size": step.processes, "phases": {"train": now - began_at}}
    outcome = Outcome(OutcomeStatus.SUCCEEDED, attempt.number, began_at, now, facts={**facts, **length})
    (folder.model / "adapter_model.safetensors").write_bytes(b"")
    write_atomically(folder.done, outcome.to_json())
    return outcome


if __name__ == "__main__":
    sys.exit(main())
