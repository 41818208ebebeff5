"""An exception -> why a step failed, and one line about it. The exception's type decides if that is enough."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modal_app.patches.patch import CorrectionMissing
from modal_app.store.full_disk import full_disk
from modal_app.store.out_of_memory import is_out_of_memory, memory_limit, where_out_of_memory
from modal_app.store.step import FailureReason

LONGEST_MESSAGE = 400


class StepFailed(Exception):
    """Our own verdict on a step."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Failure:
    reason: FailureReason
    message: str
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else is known, for the outcome."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Failure:
        raw = json.loads(text)
        return cls(**{**raw, "reason": FailureReason(raw["reason"])})


def classify(error: BaseException, during: str) -> Failure:
    """Name the failure. `during` is the phase in which it occurred: config, prepare, load, train, ..."""
    if isinstance(error, StepFailed):
        return Failure(error.reason, str(error))
    if isinstance(error, CorrectionMissing):
        return Failure(FailureReason.ERROR, str(error))
    if full := full_disk(error, (Path.cwd(), Path(tempfile.gettempdir()))):
        return Failure(FailureReason.DISK, full)
    if is_out_of_memory(error):
        text = _one_line(error)
        said = text if "memory" in text.lower().replace("memoryerror", "") else f"out of memory: {text}"
        facts = {"out_of_memory_on": where_out_of_memory(error)}
        return Failure(FailureReason.OOM, f"{said}{memory_limit()}", facts)
    return Failure(_reason(error, during), _one_line(error))


def _reason(error: BaseException, during: str) -> FailureReason:
    names = {base.__name__ for base in type(error).__mro__}
    if names & {"FloatingPointError"}:
        return FailureReason.NAN
    if names & {"ValidationError"} or during == "config":
        return FailureReason.CONFIG
    if names & {"DatasetsError", "DatasetGenerationError", "DataFilesNotFoundError"} or during == "prepare":
        return FailureReason.DATA
    if during == "load" and names & {"ValueError", "TypeError", "KeyError", "FileNotFoundError", "ImportError"}:
        # What the model, the adapter or the trainer refuses when it is built, before the first step, is caused by the
        # config.
        return FailureReason.CONFIG
    return FailureReason.ERROR


def _one_line(error: BaseException) -> str:
    details: Any = getattr(error, "errors", None)
    if type(error).__name__ == "ValidationError" and callable(details):  # pydantic's own text is a page
        text = "; ".join(
            ": ".join(filter(None, (".".join(str(part) for part in item["loc"]), str(item["msg"]))))
            for item in details()
        )
    else:
        text = str(error).strip() or type(error).__name__
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"
