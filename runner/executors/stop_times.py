"""How long workers take to stop once they are asked to: measured on the runs' own steps and saves so far."""

from __future__ import annotations

from collections.abc import Iterable

from modal_app.store.facts import TrainState
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.step import StepKind
from runner.estimate.words import span
from runner.types import StepId


def stop_message(store: Store, steps: Iterable[StepId], again: str) -> str:
    """What happens now, for people; empty if no run is among the steps, since everything else stops at once.

    `again`: what kills the runs, such as `Ctrl-C again`.
    """
    runs = [store.folder(kind, key) for kind, key in steps if kind is StepKind.TRAIN]
    runs = [run for run in runs if _trains(run)]
    if not runs:
        return ""
    times = [time for run in runs if (time := usual_stop_s(run)) is not None]
    usual = f"which usually takes {span(max(times))}" if times else "but how long that takes is not known yet"
    what = "The run finishes its step and saves" if len(runs) == 1 else f"{len(runs)} runs finish their step and save"
    return f"{what} a checkpoint, {usual}. {again} kills at once, and the steps after the last checkpoint are lost."


def _trains(run: StepFolder) -> bool:
    attempts = run.attempts()
    return bool(attempts) and attempts[-1].train_state.exists()


def usual_stop_s(run: StepFolder) -> float | None:
    """A step and a save of this run, in seconds; None before its first save."""
    attempts = run.attempts()[::-1]
    steps = [seconds for one in attempts if (seconds := _step_s(one)) is not None]
    saves = [seconds for one in attempts if (seconds := _save_s(one)) is not None]
    return steps[0] + saves[0] if steps and saves else None


def _step_s(attempt: Attempt) -> float | None:
    """The mean, without the first step, which compiles."""
    state = TrainState.read(attempt.train_state)
    steps = state.step - state.resumed_from - 1
    return state.phases.get("train", 0.0) / steps if steps > 0 else None


def _save_s(attempt: Attempt) -> float | None:
    state = TrainState.read(attempt.train_state)
    return state.phases.get("save", 0.0) / state.saves if state.saves else None
