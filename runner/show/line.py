"""The present state of a step, as a line in a pipe and as a row of the live view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from modal_app.store.step import FailureReason, StepKind
from runner.cost.spent import money
from runner.show.headway import Timing
from runner.show.rung_words import rung_words
from runner.store.run_state import RunStatus, status_text
from runner.store.searches import RungReached


@dataclass(frozen=True, slots=True)
class Line:
    """The present state of a step."""

    kind: StepKind
    key: str
    label: str
    status: RunStatus
    reason: FailureReason | None
    step: str = ""
    loss: float | None = None
    eval_loss: float | None = None
    message: str = ""
    counted: str = ""
    """How much of what `message` names is done, of a step without optimizer steps: `64 of 128`."""
    dollars: float | None = None
    """So far; None if nothing was rented, or there is no price."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """What tells a run apart from the others; empty for other steps."""
    timing: Timing | None = None
    rung: int = 0
    """The rung at which it has stopped; 0 otherwise."""
    reached: RungReached | None = None
    """The last rung that it has come to."""

    def text(self) -> str:
        numbers = [f"{name} {value:.3f}" for name, value in self._numbers() if value is not None]
        message = f"{self.message} {self.counted}".strip()
        step = f"step {self.step}" if self.step else ""
        parts = [self.status_text, self.at_rung, step, *numbers, self.price, message]
        return f"{self.kind:<10} {self.label}: {'  '.join(part for part in parts if part)}"

    @property
    def status_text(self) -> str:
        return status_text(self.status, self.reason, self.rung)

    @property
    def at_rung(self) -> str:
        return rung_words(self.status, self.reached)

    @property
    def is_deciding(self) -> bool:
        """Whether it has come to a rung, and it is not known yet if it goes on."""
        return self.status is RunStatus.RUNNING and self.reached is not None and self.reached.is_open

    @property
    def change(self) -> tuple[object, ...]:
        """What makes a new line in a pipe when it changes: not its place at a rung, which changes as others come."""
        return self.status, self.reason, self.rung, self.reached and (self.reached.rung, self.reached.why)

    @property
    def price(self) -> str:
        return "" if self.dollars is None else money(self.dollars)

    def seconds(self, now: float) -> float | None:
        """Since it began, or until it ended."""
        if self.timing is None or self.timing.started_at is None:
            return None
        return (self.timing.ended_at or now) - self.timing.started_at

    def _numbers(self) -> Iterator[tuple[str, float | None]]:
        yield "loss", self.loss
        yield "eval loss", self.eval_loss
