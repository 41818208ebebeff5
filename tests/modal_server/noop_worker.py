"""Put over modal_app/worker.py in a test's containers: a step that claims, begins and ends like a real one, and does
nothing in between.

It lasts NOOP_PREPROCESS_S or NOOP_TRAIN_S seconds (a follow-up step AFTER_S, unless NOOP_MERGE_S or the like says
more). Each tenth of a second is a step of a training, with one line of metrics. If its config has `max_steps`, it lasts
so many tenths. Then it waits for the file NOOP_TRAIN_UNTIL or the like, if there is such a variable. On SIGTERM it
saves a checkpoint and stops at once, or as soon as there is the file NOOP_SAVE_UNTIL, and the next attempt goes on from
there. A run leaves the losses of its rows if the folder NOOP_LOSSES has them: RATE-SEED.npz. At a rung of a search, the
lower its rate, the better it is.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modal_app.process import attempt as attempts
from modal_app.process import stop
from modal_app.store import checkpoints
from modal_app.store.claim import AlreadyClaimed, claim
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.step import EXIT_HELD, FOLLOW_UP_KINDS, Outcome, OutcomeStatus, Step, StepKind, write_atomically

STEPS = 10
AFTER_S = "0.2"
LOG_LINES = 60
FINGERPRINT = "0" * 64


def main() -> int:
    step = Step.from_json(sys.stdin.read())
    store = Store(Path(sys.argv[sys.argv.index("--store") + 1]).resolve())
    published = store.folder(step.kind, step.key)
    scratch = Path(sys.argv[sys.argv.index("--scratch") + 1])
    folder = published.draft_of(int(sys.argv[sys.argv.index("--attempt") + 1]), scratch)
    try:
        with claim(folder, step.sweep):
            if not published.done.exists():
                _do_nothing(step, store, folder)
    except AlreadyClaimed:
        return EXIT_HELD
    return 0 if folder.done.exists() or published.done.exists() else 3


def _do_nothing(step: Step, store: Store, folder: StepFolder) -> None:
    attempt, started_at = attempts.begin(step, store, folder), time.time()
    os.environ |= attempts.environment(step, folder, attempt)
    stop.set_stop_handler(None)
    print(f"began {step.kind} {step.key}", flush=True)  # in the container's own log: what follows is in the attempt's
    attempts.enter(attempt)
    print("\n".join(f"{step.kind} {step.key}: nothing to do ({line})" for line in range(LOG_LINES)))
    try:
        number = _pass_the_time(step, folder, attempt)
    except stop.AtRung as at_rung:
        _save(folder, at_rung.facts["step"])
        outcome = Outcome(
            OutcomeStatus.AT_RUNG, attempt.number, started_at, time.time(), message=str(at_rung), facts=at_rung.facts
        )
        write_atomically(folder.result_of(attempt), outcome.to_json())
        return
    if number is None:
        outcome = _succeed(step, store, folder, attempt, started_at)
    else:
        _wait_for("NOOP_SAVE_UNTIL", lambda: False)
        if step.kind is StepKind.TRAIN:
            _save(folder, number)
        outcome = Outcome(OutcomeStatus.STOPPED, attempt.number, started_at, time.time(), message="stopped")
    write_atomically(folder.result_of(attempt), outcome.to_json())


def _pass_the_time(step: Step, folder: StepFolder, attempt: Attempt) -> int | None:
    """The step at which it was requested to stop."""
    name = f"NOOP_{step.kind.upper()}"
    defaults = {f"{name}_S": AFTER_S} if step.kind in FOLLOW_UP_KINDS else {}
    pause_s = float({**defaults, **os.environ}[f"{name}_S"]) / (STEPS + 1)
    steps = _steps(step)
    for number in range(checkpoints.newest_step(folder.model), steps + 1):
        if step.kind is StepKind.TRAIN:
            _log(folder, attempt, number, steps)
            _ask(step, attempt, number, steps)
        until = time.monotonic() + pause_s
        while time.monotonic() < until and not stop.requested():
            time.sleep(min(pause_s, 0.05))
        if stop.requested():
            return number
    return None if _wait_for(f"{name}_UNTIL", stop.requested) else steps


def _wait_for(variable: str, gives_up: Callable[[], bool]) -> bool:
    """Wait for the file that a variable names, if it names one. Whether that was not given up."""
    file = os.environ.get(variable)
    while file and not os.path.exists(file):
        if gives_up():
            return False
        time.sleep(0.05)
    return True


def _ask(step: Step, attempt: Attempt, number: int, steps: int) -> None:
    rung = step.rungs.at(number, steps) if step.rungs else 0
    if not rung or step.rungs is None:
        return
    from modal_app.halving.asking import ByFile  # imported late, as in the real worker
    from modal_app.halving.snapshot import Reading

    reading = Reading(float(step.config["learning_rate"]), steps, FINGERPRINT)
    answer = ByFile(step.rungs.search, step.key, attempt).ask(rung, reading)
    if not answer.goes_on:
        facts = {"search": step.rungs.search, "rung": rung, "rungs": len(step.rungs.fractions), "step": number}
        raise stop.AtRung({**facts, "max_steps": steps, "place": answer.place, "of": answer.of, "why": ""})


def _steps(step: Step) -> int:
    return int(step.config.get("max_steps") or STEPS) if step.kind is StepKind.TRAIN else STEPS


def _log(folder: StepFolder, attempt: Attempt, number: int, steps: int) -> None:
    line = {"attempt": attempt.number, "step": number, "time": time.time(), "eval_loss": 2.0 - number / steps}
    with folder.metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    write_atomically(attempt.train_state, json.dumps({"global_step": number, "max_steps": steps}))


def _save(folder: StepFolder, number: int) -> None:
    checkpoint = folder.model / f"{checkpoints.PREFIX}{number}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": number}))
    checkpoints.mark_complete(checkpoint, {})


def _succeed(step: Step, store: Store, folder: StepFolder, attempt: Attempt, started_at: float) -> Outcome:
    facts: dict[str, Any] = {"eval_fingerprint": FINGERPRINT}
    if step.kind is StepKind.PREPROCESS:
        facts |= {"key": step.key, "attempt": attempt.number, "rows": 5000, "eval_rows": 250}
        facts |= {"started_at": started_at, "finished_at": time.time()}
        write_atomically(folder.done, json.dumps(facts))
    elif step.kind in FOLLOW_UP_KINDS:
        trained = store.folder(StepKind.TRAIN, step.run).done
        assert not step.run or trained.exists(), f"{step.kind} before its run {step.run} had finished"
    else:
        assert store.manifest(step.data_key).exists(), f"trained before its dataset {step.data_key} was there"
        facts |= {"step": _steps(step), "max_steps": _steps(step), "world_size": step.processes}
        facts |= {"phases": {"train": time.time() - started_at}}
    outcome = Outcome(OutcomeStatus.SUCCEEDED, attempt.number, started_at, time.time(), facts=facts)
    if step.kind is not StepKind.PREPROCESS:
        folder.model.mkdir(exist_ok=True)
        (folder.model / "adapter_model.safetensors").write_bytes(b"")
        if (losses := os.environ.get("NOOP_LOSSES")) and step.kind is StepKind.TRAIN:
            shutil.copy(f"{losses}/{step.config['learning_rate']}-{step.config['seed']}.npz", folder.losses)
        write_atomically(folder.done, outcome.to_json())
    return outcome
