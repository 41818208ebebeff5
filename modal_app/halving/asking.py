"""How a run at a rung finds out whether it goes on. On this machine, it reads and puts the entries itself. In a
container on Modal, its trainer cannot reach them: it writes a question into its attempt's folder, and the container
answers there.

Standard library.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from modal_app.halving.entries import Entries, FileEntries, entries_folder
from modal_app.halving.halve import Answer, ask, known_answer
from modal_app.halving.snapshot import Reading, Why
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.read_json import read_as
from modal_app.store.step import Step, write_atomically

WAITS_S = 30.0
"""How long a question waits for its answer. Without one, the run goes on."""
POLL_S = 0.05


class Asks(Protocol):
    def ask(self, rung: int, reading: Reading) -> Answer: ...
    def known(self, rung: int) -> Answer | None:
        """The answer to a run that resumes at a rung where it already has the answer to go on; None for any other."""
        ...


def asks_of(
    step: Step, store: Store, folder: StepFolder, attempt: Attempt, is_over: Callable[[], bool] = lambda: False
) -> Asks | None:
    """The way in which a train step asks; None for one without rungs. The container on Modal has drafted the step's
    folder. `is_over`: whether no answer will come any more."""
    if step.rungs is None:
        return None
    if folder.drafted_by:
        return ByFile(step.rungs.search, step.key, attempt, is_over=is_over)
    return AtOnce(FileEntries(entries_folder(store, step.rungs.search)), step.key)


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Asks from a process that can reach the entries."""

    entries: Entries
    run: str

    def ask(self, rung: int, reading: Reading) -> Answer:
        return ask(self.entries, self.run, rung, reading)

    def known(self, rung: int) -> Answer | None:
        return known_answer(self.entries, self.run, rung)


@dataclass(frozen=True, slots=True)
class Question:
    """rung-<k>.json: that a run has reached a rung, and what it has reached there."""

    search: str
    run: str
    rung: int
    reading: Reading

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Question:
        return cls(raw["search"], raw["run"], int(raw["rung"]), Reading.of(raw["reading"]))


@dataclass(frozen=True, slots=True)
class ByFile:
    """Asks from a process that cannot reach them."""

    search: str
    run: str
    attempt: Attempt
    waits_s: float = WAITS_S
    sleep: Callable[[float], None] = time.sleep
    is_over: Callable[[], bool] = lambda: False

    def ask(self, rung: int, reading: Reading) -> Answer:
        question = Question(self.search, self.run, rung, reading)
        write_atomically(self.attempt.rung_question(rung), question.to_json())
        deadline = time.monotonic() + self.waits_s
        while time.monotonic() < deadline and not self.is_over():
            if (answer := read_as(self.attempt.rung_answer(rung), Answer.from_json)) is not None:
                return answer
            self.sleep(POLL_S)
        return Answer(Why.UNANSWERED, 1, 1)

    def known(self, rung: int) -> Answer | None:
        """The answer that was written before the trainer was started."""
        return read_as(self.attempt.rung_answer(rung), Answer.from_json)


def open_questions(attempt: Attempt, rungs: int) -> list[Question]:
    """The questions of an attempt that have no answer yet. `rungs`: how many rungs its search has."""
    unanswered = [rung for rung in range(1, rungs + 1) if not attempt.rung_answer(rung).exists()]
    found = [read_as(attempt.rung_question(rung), Question.of) for rung in unanswered]
    return [one for one in found if one is not None]


def give_answer(attempt: Attempt, rung: int, answer: Answer) -> None:
    write_atomically(attempt.rung_answer(rung), json.dumps(answer.to_json()))
