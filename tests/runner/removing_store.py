"""Finished sweeps in a store, and follow-up steps: what `rm` and `gc` decide about."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modal_app.cloud.job import steps_file
from modal_app.store.layout import STEPS, Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import Step, StepKind, write_atomically
from runner.types import Run
from tests.runner.builders import finish_run, open_sweep, run
from tests.runner.run_files_store import content, make_files

Command = Callable[..., Any]


def asked_for(store: Store, runs: list[Run], name: str) -> str:
    """A sweep whose launcher has ended."""
    sweep = open_sweep(store, runs, name).sweep
    (store.sweeps / sweep / "records.jsonl").write_text("")
    return sweep


def trained(store: Store, *rates: float, name: str = "swept") -> tuple[str, list[Run]]:
    """A sweep whose runs have finished, with files."""
    runs = [run({"learning_rate": rate, "base_model": "tiny"}) for rate in rates]
    sweep = asked_for(store, runs, name)
    for number, one in enumerate(runs):
        if not store.folder(StepKind.TRAIN, one.key).done.exists():
            finish_run(store, one, {0: 2.0, 20: 1.0 + number})
            make_files(store, one)
    return sweep, runs


def phase(store: Store, one: Run) -> Phase:
    return observe(store, StepKind.TRAIN, one.key).phase


def keys(printed: Any, of: str = "to_delete") -> set[str]:
    return {one["key"] for one in printed[of]}


def kept_input(store: Store, name: str) -> None:
    store.inputs.mkdir(exist_ok=True)
    (store.inputs / name).write_bytes(content(name, 2000))


def asked_after(store: Store, sweep: str, *steps: Step) -> str:
    """A follow-up step of a sweep's runs, as its launcher records it before it begins."""
    name = f"{sweep}/after-0a1b2c"
    (store.sweeps / name).mkdir(parents=True)
    named = {f"{step.kind}/{step.key}": step for step in steps}
    write_atomically(store.sweeps / name / STEPS, steps_file(named, {}))
    return name


def answering(run: str, own: str, prompts: str) -> Step:
    return Step(StepKind.INFER, f"{run or 'base'}/{own}", {}, "d", run=run, options={"prompts": f"inputs/{prompts}"})


def aged(path: Path, days: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(500))
    past = time.time() - days * 86400
    os.utime(path, (past, past))
