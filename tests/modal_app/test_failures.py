from __future__ import annotations

import pytest

from modal_app.process.failures import LONGEST_MESSAGE, Failure, StepFailed, classify
from modal_app.store.step import FailureReason


class OutOfMemoryError(RuntimeError):
    """An error with torch's name, by which it is recognized, since torch is not installed here."""


class ValidationError(ValueError):
    """An error with pydantic's name."""

    def errors(self) -> list[dict[str, object]]:
        return [{"loc": ("datasets", 0, "type"), "msg": "Field required"}, {"loc": (), "msg": "Value error, no"}]


@pytest.mark.parametrize(
    ("error", "during", "reason"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "train", FailureReason.OOM),
        (RuntimeError("CUDA error: out of memory"), "load", FailureReason.OOM),
        (MemoryError(), "prepare", FailureReason.OOM),
        (FloatingPointError("loss"), "train", FailureReason.NAN),
        (ValidationError("page"), "config", FailureReason.CONFIG),
        (FileNotFoundError("rows.jsonl"), "prepare", FailureReason.DATA),
        (ValueError("Target modules {'nonsense'} not found in the base model."), "load", FailureReason.CONFIG),
        (RuntimeError("no idea"), "load", FailureReason.ERROR),
        (ValueError("no idea"), "train", FailureReason.ERROR),
        (StepFailed(FailureReason.DATA, "ours"), "train", FailureReason.DATA),
    ],
)
def test_a_failure_is_named(error: Exception, during: str, reason: FailureReason) -> None:
    assert classify(error, during).reason is reason


def test_its_message_is_one_line_that_fits() -> None:
    assert classify(RuntimeError("first\n  second\n"), "train").message == "first second"
    assert classify(KeyError(), "train").message == "KeyError"
    assert len(classify(RuntimeError("x" * 9999), "train").message) == LONGEST_MESSAGE


def test_a_validation_error_names_the_fields() -> None:
    assert classify(ValidationError("page"), "config").message == "datasets.0.type: Field required; Value error, no"


def test_a_failure_survives_the_way_to_another_process() -> None:
    failure = Failure(FailureReason.OOM, "full")
    assert Failure.from_json(failure.to_json()) == failure
