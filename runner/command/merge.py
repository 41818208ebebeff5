"""`axosweep merge`: merge the adapter of a finished run into its base model, as a new model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.step import FailureReason, StepKind
from runner.console import terminal
from runner.console.parser import Names, VerbParser
from runner.console.print_json import print_json
from runner.console.transfer import size_text
from runner.errors import SweepError
from runner.follow_up.carry_out import FollowUpResult, carry_out, exit_code, show_failures
from runner.follow_up.steps import merge_step
from runner.follow_up.subjects import Subject, subjects
from runner.keys.content import keep_in
from runner.store.run_state import RunStatus, reason_of, status_of
from runner.store.stores import is_mirror, stores


@dataclass(frozen=True, slots=True)
class MergedModel:
    """What `merge --json` prints."""

    run: str
    sweep: str
    status: RunStatus
    """Of the merge."""
    reason: FailureReason | None
    message: str
    model: str | None
    """Its folder; null unless the merge has succeeded."""
    seconds: float | None
    files: int | None
    bytes: int | None


def parser() -> VerbParser:
    verb = VerbParser("merge", description="Merge the adapter of a finished run into its base model, as a new model.")
    which = "a run's key, or a sweep: its best run; the newest sweep by default"
    verb.add("run", nargs="?", names=[Names.RUN], help=which)
    verb.add("--lora-model-dir", metavar="DIR", names=[Names.FOLDER], help="another adapter of the same base model")
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    """Exit code 0 when the merged model exists, otherwise 1. Raises SweepError before anything starts."""
    args = parser().read(words)
    (subject,) = subjects(stores(args.store), args.run)
    adapter = None if args.lora_model_dir is None else _stored_adapter(subject.store, Path(args.lora_model_dir))
    step = merge_step(subject, adapter)
    command = shlex.join(["axosweep", "merge", *words])
    (carried,) = carry_out([subject], [step], command=command, inputs=() if adapter is None else (adapter,))
    _show(subject, carried, as_json=args.json)
    return exit_code([carried])


def _stored_adapter(store: Store, adapter: Path) -> str:
    """Store another adapter by its content; returns its path below the store's root."""
    if not (adapter / "adapter_config.json").is_file():
        raise SweepError(f"--lora-model-dir {adapter} is not an adapter: it has no adapter_config.json.")
    return keep_in(store, adapter)


def _show(subject: Subject, carried: FollowUpResult, *, as_json: bool) -> None:
    folder = subject.store.folder(StepKind.MERGE, carried.step.step.key)
    facts = carried.state.outcome.facts if carried.state.outcome else {}
    if as_json:
        print_json(_merged(subject, carried, str(folder.model), facts))
    elif carried.succeeded:
        alone = len(list(folder.path.parent.glob(f"*/{folder.done.name}"))) < 2
        part = "merged" if alone else f"merged-{folder.path.name}"
        terminal.result(f"Merged: {subject.key}  {subject.name}")
        if is_mirror(subject.store):
            terminal.result(f"on the runs Volume, {folder.model.relative_to(subject.store.root).as_posix()}")
        else:
            terminal.result(f"{folder.model} ({size_text(facts.get('bytes', 0))})")
        terminal.result(f"Copy it to a folder: axosweep pull {subject.key} {part} DIR")
    show_failures([carried], subject.store)


def _merged(subject: Subject, carried: FollowUpResult, model: str, facts: Mapping[str, Any]) -> MergedModel:
    outcome = carried.state.outcome
    return MergedModel(
        run=subject.key,
        sweep=subject.sweep,
        status=status_of(carried.state),
        reason=reason_of(carried.state),
        message=carried.message if not carried.succeeded else "",
        model=model if carried.succeeded else None,
        seconds=round(outcome.seconds, 3) if outcome else None,
        files=facts.get("files"),
        bytes=facts.get("bytes"),
    )
