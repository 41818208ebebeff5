"""Brings the mirror of a sweep on Modal up to date before its state is used."""

from __future__ import annotations

from collections.abc import Sequence

from modal_app.store.layout import Store
from modal_app.store.state import is_done
from modal_app.store.step import StepKind
from runner.store.ledger import SweepRun
from runner.store.stores import is_mirror


def look_again(store: Store, sweep: str, runs: Sequence[SweepRun]) -> None:
    """A mirror is as old as the last look. Look again, unless all runs are known to have succeeded."""
    if is_mirror(store) and not all(has_succeeded(store, run) for run in runs):
        from runner.executors import modal_verbs

        modal_verbs.look(store, sweep)


def has_succeeded(store: Store, run: SweepRun) -> bool:
    return is_done(store.folder(StepKind.TRAIN, run.key))
