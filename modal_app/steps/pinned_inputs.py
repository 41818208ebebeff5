"""A step fails if its local inputs are not the ones that its run was planned with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from modal_app.process.failures import StepFailed
from modal_app.store import pins
from modal_app.store.layout import Store
from modal_app.store.step import Device, FailureReason, Step


def check_inputs(step: Step, store: Store) -> None:
    """Check a step's inputs before and after they are loaded. Raises StepFailed."""
    with _as_failure():
        pins.check_step(step, store)


def check_mapped(step: Step, store: Store) -> None:
    """Check them while the step works with what it has loaded: on a CPU, that is still mapped to the files. Raises
    StepFailed."""
    if step.device is Device.CPU and not store.is_mounted:
        with _as_failure():
            pins.check_unedited(step, store)


@contextlib.contextmanager
def pinned_inputs(step: Step, store: Store) -> Iterator[None]:
    """Check them around a block that loads them. If the block fails and they have changed, the change is the reason.
    Raises StepFailed."""
    check_inputs(step, store)
    try:
        yield
    finally:
        check_inputs(step, store)


@contextlib.contextmanager
def _as_failure() -> Iterator[None]:
    try:
        yield
    except pins.InputChanged as error:
        raise StepFailed(FailureReason.DATA, str(error)) from error
