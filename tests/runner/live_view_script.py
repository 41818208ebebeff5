"""Shows a sweep's live view on the terminal at its stderr, one frame for each line of its stdin. Three runs at a time
work on 24 runs, as files of their store say; two of them fail. After each frame, the terminal is asked for its cursor.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict
from itertools import count
from pathlib import Path

from modal_app.store.claim import claim, this_process
from modal_app.store.layout import Attempt, Store
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, StepKind, write_atomically
from runner.console import terminal
from runner.show.headway import ExpectedSeconds
from runner.show.progress import Progress
from runner.types import Run
from tests.runner.builders import finish, plan, run

END_OF_FRAME = b"\x1b[6n"
STEPS = 200
SECONDS_A_FRAME = 20.0
FRAMES_A_RUN = 3
AT_A_TIME = 3
STARTED = 1_800_000_000.0
FAILED_RUNS = (5, 13)
NOTED, NOTE = 3, "note: a message that another part of the program prints meanwhile"
OUT_OF_MEMORY = f"CUDA\x1b]0;own\x07 out of memory: tried to allocate 20.00 GiB, of which 10.00 GiB are free {'.' * 90}"

now = STARTED


def sweep_of(number: int) -> list[Run]:
    """Runs that differ in three values: two values begin alike, and the paths also end alike."""
    places = ("/data/models/of/the/team/base-7b", "/data/models/of/another/team/base-7b")
    return [
        run(
            {
                "learning_rate": (1e-3, 3e-4, 1e-4)[index % 3],
                "base_model": places[index // 3 % 2],
                "seed": index // 6,
                "datasets": [{"path": "rows.jsonl"}],
            }
        )
        for index in range(number)
    ]


class Worker:
    """Does to one run at a time what the trainer does, one part for each frame."""

    def __init__(self, store: Store, runs: list[Run], failed: tuple[int, ...]) -> None:
        self.store, self.runs, self.failed = store, runs, failed
        self.held = contextlib.ExitStack()
        self.number: int | None = None
        self.done = 0
        self.attempt: Attempt
        self.began = 0.0

    def work(self, waiting: list[int]) -> None:
        if self.number is not None:
            self._go_on(self.number)
        if self.number is None and waiting:
            self._begin(waiting.pop(0))

    def _begin(self, number: int) -> None:
        folder = self.store.folder(StepKind.TRAIN, self.runs[number].key)
        self.held.enter_context(claim(folder))
        self.attempt = folder.attempt(1)
        self.attempt.path.mkdir(parents=True)
        self.number, self.done, self.began = number, 0, now
        write_atomically(self.attempt.started, json.dumps(asdict(this_process("sweep")) | {"at": now}))

    def _go_on(self, number: int) -> None:
        self.done += 1
        if self.done == 2 and number in self.failed:
            self._end(number, OutcomeStatus.FAILED, FailureReason.OOM, OUT_OF_MEMORY)
        elif self.done == FRAMES_A_RUN:
            self._log(number, STEPS)
            self._end(number, OutcomeStatus.SUCCEEDED)
        else:
            self._log(number, STEPS * self.done // FRAMES_A_RUN)

    def _log(self, number: int, step: int) -> None:
        self.attempt.train_state.write_text(json.dumps({"max_steps": STEPS, "phases": {"load": 2.0}}))
        row = {"step": step, "attempt": 1, "time": now, "loss": 2 - step / STEPS, "eval_loss": 2.5 - step / STEPS}
        with self.store.folder(StepKind.TRAIN, self.runs[number].key).metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def _end(self, number: int, status: OutcomeStatus, reason: FailureReason | None = None, message: str = "") -> None:
        outcome = Outcome(status, 1, self.began, now, reason, message).to_json()
        if status is OutcomeStatus.SUCCEEDED:
            write_atomically(self.store.folder(StepKind.TRAIN, self.runs[number].key).done, outcome)
        write_atomically(self.attempt.result, outcome)
        self.held.close()
        self.number = None


def main(folder: str, number: int) -> None:
    global now
    store, runs = Store(Path(folder)), sweep_of(number)
    for key in {one.data_key for one in runs}:
        finish(store, StepKind.PREPROCESS, key, manifest={"rows": 70})
    planned = plan(runs, store)
    (store.sweeps / planned.sweep).mkdir(parents=True)
    ExpectedSeconds({one.key: 45.0 for one in runs}, at_a_time=AT_A_TIME).save(store, planned.sweep)
    workers = [Worker(store, runs, FAILED_RUNS) for _ in range(AT_A_TIME)]
    waiting = list(range(number))
    with Progress(planned, store, seconds_between_frames=0.0, clock=lambda: now) as progress:
        for frame, _ in zip(count(), sys.stdin, strict=False):
            now = STARTED + SECONDS_A_FRAME * frame
            for worker in workers:
                worker.work(waiting)
            if frame == NOTED:
                terminal.message(NOTE)
            progress.update()
            os.write(2, END_OF_FRAME)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
