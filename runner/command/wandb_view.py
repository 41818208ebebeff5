"""`axosweep wandb-view`: a W&B workspace view of one sweep: its parameters, their results, and the curves.

Needs the extra `wandb-view` (wandb-workspaces). The view is built without a login; saving it needs a key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from modal_app.process.tracking import TrackingRecord
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.compare.ranking import compare_sweep
from runner.console import terminal
from runner.console.parser import VerbParser
from runner.console.print_json import print_json
from runner.errors import SweepError
from runner.store.finding import sweep_in
from runner.store.stores import stores
from runner.wandb.call import call, check_reachable
from runner.wandb.messages import SweepView, ViewRequest, ViewResponse

FAILED = "The view could not be created; the error is printed above."
ADVICE = "--dry-run prints the view."
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class SavedView:
    """What `wandb-view --json` prints."""

    sweep: str
    url: str


@dataclass(frozen=True, slots=True)
class BuiltView:
    """What `wandb-view --dry-run --json` prints."""

    sweep: str
    view: Mapping[str, Any]
    """In W&B's form."""


def parser() -> VerbParser:
    verb = VerbParser("wandb-view", description="Create a W&B workspace view of a sweep: its runs side by side.")
    verb.add_sweep()
    verb.add("--dry-run", action="store_true", help="print the view as JSON, save nothing")
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    found = sweep_in(stores(args.store), args.sweep)
    return show(found.store, found.sweep, dry_run=args.dry_run, as_json=args.json)


def show(store: Store, sweep: str, *, dry_run: bool, as_json: bool) -> int:
    """Save the view and print its address; `dry_run`: print the view, save nothing. Raises SweepError without the
    extra, a key, or a tracked run."""
    view = _view(store, sweep)
    _check_extra()
    if not dry_run:
        check_reachable("Saving a view", ADVICE)
    response = call(ViewRequest(view, dry_run), ViewResponse, failed=FAILED, advice=ADVICE, timeout_s=TIMEOUT_S)
    if response.error:
        raise SweepError(f"W&B did not accept the view: {response.error}")
    if dry_run:
        if as_json:
            print_json(BuiltView(sweep, response.model or {}))
        else:
            print(json.dumps(response.model, indent=1))  # in W&B's form
    elif as_json:
        print_json(SavedView(sweep, response.url))
    else:
        terminal.result(response.url)
        terminal.message(f"It shows what W&B has: axosweep sync {sweep} brings it up to date.")
    return 0


def _view(store: Store, sweep: str) -> SweepView:
    rows = compare_sweep(store, sweep)
    records = (TrackingRecord.read(store.folder(StepKind.TRAIN, row.key).tracking) for row in rows)
    first = next((record for record in records if record is not None), None)
    if first is None:
        raise SweepError(
            f"No run of {sweep} was ever tracked (tracking=disabled, or not started), so there is no view of it."
        )
    names = dict.fromkeys(name for row in rows for name in row.params)
    params = {name: [row.params[name] for row in rows if name in row.params] for name in names}
    return SweepView(sweep, first.project or "axosweep", first.entity, params)


def _check_extra() -> None:
    if find_spec("wandb_workspaces") is None:
        raise SweepError(
            "The view needs wandb-workspaces, which is not installed here: install axosweep's wheel with [wandb-view] "
            "after its file name (dist/axosweep-VERSION-py3-none-any.whl[wandb-view]); in a checkout, `make env` "
            "installs it."
        )
