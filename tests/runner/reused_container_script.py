"""A container that trains runs one after the other and writes its records: `python SCRIPT STORE KEY...`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from modal_app.cloud.meter import Meter, Reservation
from modal_app.store.layout import Store
from modal_app.store.step import Outcome, OutcomeStatus, StepKind, write_atomically

PHASES = ("import", "config", "prepare", "load", "first", "train", "eval", "save")


def train(store: Store, key: str) -> Meter:
    folder = store.folder(StepKind.TRAIN, key)
    attempt = folder.attempt(1)
    attempt.path.mkdir(parents=True)
    reserved = Reservation(2.0, 16.0)
    meter = Meter(folder.containers, step=f"train/{key}", call=f"fc-{key}", attempt=1, reserved=reserved)
    started, phases = time.time(), {}
    for phase in PHASES:
        before = time.monotonic()
        time.sleep(0.02)
        phases[phase] = time.monotonic() - before
    write_atomically(attempt.train_state, json.dumps({"global_step": 9, "max_steps": 9, "phases": phases}))
    facts = {"phases": phases, "step": 9, "max_steps": 9, "eval_fingerprint": "rows"}
    outcome = Outcome(OutcomeStatus.SUCCEEDED, 1, started, time.time(), facts=facts)
    write_atomically(attempt.result, outcome.to_json())
    write_atomically(folder.done, outcome.to_json())
    with meter.copying():
        time.sleep(0.04)
    meter.end()
    return meter


if __name__ == "__main__":
    for one in sys.argv[2:]:
        last = train(Store(Path(sys.argv[1])), one)
        time.sleep(0.06)
    last.end_container(f"the run left a process:\nsleep <b>100</b> --token=hf_{'q' * 30}")
