"""A run in W&B: its id and group, which stay the same whichever sweep continues it, its facts, and how it ended.

Group, tags, job type and resuming go through the process environment, since Axolotl drops keys that it does not know.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from modal_app.process.rank import Rank
from modal_app.store.facts import DataManifest
from modal_app.store.layout import StepFolder
from modal_app.store.parts import parts_of
from modal_app.store.read_json import read_json
from modal_app.store.redact import redacted
from modal_app.store.state import read_outcome
from modal_app.store.step import OutcomeStatus, Step, StepKind, write_atomically

LONGEST_TAG = 64
"""W&B's own limit, in characters."""
CONFIG_FILE = "axosweep.yml"
"""The composed config, among the files of the W&B run."""
ANSWER_WITHIN_S = "20"
"""How long a run waits for W&B before it starts offline. The SDK's own limit is 90 s, and then the run would fail."""
WENT_OFFLINE = "W&B does not answer, so this run is tracked offline; `axosweep sync` uploads it later"
DESCRIPTION = ("WANDB_NAME", "WANDB_TAGS", "WANDB_NOTES")
"""The variables by which the SDK replaces the name, tags and notes of a run, also of one that it resumes."""
ROWS_TABLE = "held_out/rows"
INTERRUPTED = 1
"""The exit code of a run that did not reach its end: after `mark_preempting` W&B shows it as preempted, else as
failed."""
RECEIPT = "receipt/"
"""The prefix of the seconds by part in the summary of a run."""
STOPPED_AT_RUNG = "stopped_at_rung"
"""In the summary of a run of a search: the rung at which it has stopped; 0 if it goes on."""


@dataclass(frozen=True, slots=True)
class TrackingRecord:
    """wandb.json: the run in W&B. Written at its first tracked attempt, and valid for all later ones."""

    id: str
    group: str
    """The first sweep that ran it."""
    project: str = ""
    entity: str = ""
    sweeps: tuple[str, ...] = ()
    """Those that continued it later: they are its tags."""
    name: str = ""
    """This and its own tags: as they were at that attempt."""
    tags: tuple[str, ...] = ()
    note: str = ""
    """Of that sweep."""
    sweep_object: str = ""
    """W&B's id of the sweep object of that attempt's sweep; empty if it created none."""
    offline: str = ""
    """Why the newest attempt was tracked offline, though it was to be tracked online; empty if it was not."""
    mode: str = ""
    """`online` or `offline`, as requested for the newest attempt; empty in a record of an earlier version."""

    @classmethod
    def read(cls, path: Path) -> TrackingRecord | None:
        """None when the run has never been tracked."""
        raw = read_json(path)
        if not raw:
            return None
        names = ("id", "group", "project", "entity", "name", "note", "sweep_object", "offline", "mode")
        text = {name: raw[name] for name in names if name in raw}
        return cls(**text, sweeps=tuple(raw.get("sweeps", ())), tags=tuple(raw.get("tags", ())))


def sweep_tag(sweep: str) -> str:
    """The tag by which a later sweep's run is found; the hash at the end of the id survives W&B's limit.

    >>> sweep_tag("rank_rate-1a2b3c"), len(sweep_tag("x" * 60 + "-1a2b3c"))
    ('sweep:rank_rate-1a2b3c', 64)
    """
    tag = f"sweep:{sweep}"
    return tag if len(tag) <= LONGEST_TAG else f"{tag[: LONGEST_TAG - 7]}{tag[-7:]}"


def axolotl_keys(step: Step) -> dict[str, Any]:
    """Axolotl overwrites the environment with non-empty wandb_* strings, and a project name alone switches W&B on."""
    if step.kind is StepKind.PREPROCESS or step.tracking.mode == "disabled":
        return {"use_wandb": False}
    # Without the name, too: transformers passes it on itself.
    return {"use_wandb": True} | ({"wandb_name": step.tracking.name} if step.tracking.name else {})


def variables(step: Step, folder: StepFolder) -> dict[str, str]:
    """The part of a train step's process environment that W&B reads. Writes wandb.json at the first attempt."""
    tracking = step.tracking
    if tracking.mode == "disabled":
        return {"WANDB_MODE": "disabled"}
    record = _record_of(step, folder)
    found = {
        "WANDB_MODE": tracking.mode,
        "WANDB_PROJECT": record.project or tracking.project,
        "WANDB_ENTITY": record.entity,
        "WANDB_RUN_ID": record.id,
        "WANDB_RUN_GROUP": record.group,
        "WANDB_JOB_TYPE": step.kind.value,
        "WANDB_NAME": tracking.name,
        "WANDB_NOTES": "" if _has_begun(folder, record) else redacted(record.note),
        "WANDB_TAGS": ",".join([*tracking.tags, *map(sweep_tag, record.sweeps)]),
        # The SDK attaches the run by this variable alone, and then takes its project, entity and id from here, not from
        # init().
        "WANDB_SWEEP_ID": record.sweep_object if tracking.mode == "online" else "",
        "WANDB_RESUME": "allow",
        "WANDB_DIR": str(folder.path),
        "WANDB_DATA_DIR": str(folder.path / "wandb"),  # other files that an offline run uploads are next to it
        "WANDB_SILENT": "true",
        "WANDB_DISABLE_GIT": "true",  # it would record whatever repository contains the store
        "WANDB_INIT_TIMEOUT": os.environ.get("WANDB_INIT_TIMEOUT", ANSWER_WITHIN_S),
    }
    return {name: value for name, value in found.items() if value}


def axolotl_config(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Axolotl's keys of a run, as its run.json has them: under their own names, models by the names that the user gave.
    Without secrets."""
    found: dict[str, Any] = redacted(identity.get("axolotl") or {})
    return found


def forget_description(step: Step, folder: StepFolder) -> None:
    """Remove the user's own variables for the name, tags and notes of a run from this process's environment, if the run
    has begun in W&B: the SDK would replace what the run has there."""
    record = TrackingRecord.read(folder.tracking)
    if step.kind is StepKind.TRAIN and record is not None and _has_begun(folder, record):
        for name in DESCRIPTION:
            os.environ.pop(name, None)


def describe(rank: Rank) -> None:
    """Add the facts of the run to the W&B run: all of Axolotl's keys and the swept parameters under their own names,
    its run key and other facts, and its composed config as a file."""
    run = _run()
    if run is None:
        return
    tracking, identity = rank.step.tracking, _identity(rank)
    facts = {
        "run_key": rank.step.key,
        "data_key": rank.step.data_key,
        "eval_fingerprint": _eval_fingerprint(rank),
        "git_commit": tracking.commit or None,
    }
    known = {name: value for name, value in facts.items() if value}
    config = {name: run.config[name] for name in run.config}  # dict() would leave out _name_or_path
    named = _with_name(config, str(rank.step.config.get("base_model", "")), rank.step.base_model)
    ours = {**axolotl_config(identity), **redacted({**tracking.params, **known})}
    run.config.update({**named, **ours}, allow_val_change=True)
    import yaml

    # In the run's own folder, so that it is there when an offline run is synced from elsewhere.
    path = Path(run.dir) / CONFIG_FILE
    path.write_text(yaml.safe_dump(redacted(identity), sort_keys=True, allow_unicode=True), encoding="utf-8")
    run.save(str(path), base_path=run.dir, policy="now")


def finish(rank: Rank, state: Mapping[str, Any], *, failed: bool) -> None:
    """Close the W&B run before the step's end is recorded, not when the process ends. `state`: train.json."""
    run = _run()
    if run is None:
        return
    phases = state.get("phases", {})
    if phases:
        run.summary["train_seconds"] = round(phases.get("first", 0.0) + phases.get("train", 0.0), 3)
    for name, seconds in parts_of(phases).items():
        run.summary[f"{RECEIPT}{name}"] = round(seconds, 3)  # of this attempt; a sync knows of the others
    for name, value in _rung_summary(rank, state).items():
        run.summary[name] = value
    at_rung = bool(state.get("at_rung"))
    is_complete = bool(state.get("ended")) and not (failed or state.get("stopped") or state.get("diverged") or at_rung)
    if is_complete:
        _log_rows(run, rank)
    if state.get("stopped") and not failed:
        run.mark_preempting()
    run.finish(exit_code=0 if is_complete or (at_rung and not failed) else INTERRUPTED)


def _rung_summary(rank: Rank, state: Mapping[str, Any]) -> dict[str, int]:
    """The last rung that a run of a search has come to, and that at which it has stopped, 0 if it goes on. W&B has no
    state for it: such a run is finished there. Empty for a run without rungs."""
    stopped = (state.get("at_rung") or {}).get("rung", 0)
    if answers := state.get("rungs"):
        return {"rung": int(answers[-1]["rung"]), STOPPED_AT_RUNG: int(stopped)}
    earlier = [read_outcome(attempt.result) for attempt in rank.folder.attempts()]
    before = any(one is not None and one.status is OutcomeStatus.AT_RUNG for one in earlier)
    return {STOPPED_AT_RUNG: 0} if rank.step.rungs or before else {}


def _log_rows(run: Any, rank: Rank) -> None:
    """The loss of each held-out row as a table, if there are not too many."""
    if not rank.folder.losses.is_file():
        return
    from modal_app.held_out.row_losses import RowLosses
    from modal_app.held_out.rows_table import rows_table

    losses = RowLosses.read(rank.folder.losses)
    table = rows_table(losses) if losses else None
    if table is None:
        return
    try:
        run.log({ROWS_TABLE: sys.modules["wandb"].Table(columns=list(table.columns), data=table.data)})
    except OSError as error:
        print(f"axosweep: W&B has no table of held-out rows: {error}.", file=sys.stderr, flush=True)


def go_offline(rank: Rank, why: str) -> None:
    """Record that W&B does not answer, and be offline from now on in this process."""
    print(f"axosweep: {WENT_OFFLINE} ({why}).", file=sys.stderr, flush=True)
    os.environ["WANDB_MODE"] = "offline"
    os.environ.pop("WANDB_SWEEP_ID", None)
    record = TrackingRecord.read(rank.folder.tracking)
    if record is not None:
        _write(replace(record, offline=why), rank.folder)


def _run() -> Any:
    """The W&B run of this process; None without one. Not imported by us: if W&B tracks the run, it is imported
    already."""
    return getattr(sys.modules.get("wandb"), "run", None)


def _record_of(step: Step, folder: StepFolder) -> TrackingRecord:
    """The new content of wandb.json: it is written if there is none, and if this sweep is new to the run."""
    tracking, record = step.tracking, TrackingRecord.read(folder.tracking)
    sweep = step.sweep or tracking.group
    if record is None:
        record = TrackingRecord(
            secrets.token_hex(4),
            tracking.group,
            tracking.project,
            tracking.entity or "",
            name=tracking.name,
            tags=tracking.tags,
            note=tracking.note,
            sweep_object=tracking.sweep_object,
            mode=tracking.mode,
        )
    elif sweep and sweep not in (record.group, *record.sweeps):
        record = replace(record, sweeps=(*record.sweeps, sweep), offline="", mode=tracking.mode)
    elif record.offline or record.mode != tracking.mode:
        record = replace(record, offline="", mode=tracking.mode)
    else:
        return record
    _write(record, folder)
    return record


def _has_begun(folder: StepFolder, record: TrackingRecord) -> bool:
    """Whether an attempt has begun the run in W&B, where a user may have changed its notes since."""
    return any((folder.path / "wandb").glob(f"*run-*-{record.id}"))


def _write(record: TrackingRecord, folder: StepFolder) -> None:
    write_atomically(folder.tracking, json.dumps(asdict(record) | {"at": f"{time.time():.0f}"}))


def _eval_fingerprint(rank: Rank) -> str | None:
    if rank.step.own_data:
        return rank.eval_fingerprint
    manifest = rank.store.manifest(rank.step.data_key)
    return DataManifest.read(manifest).eval_fingerprint


def _identity(rank: Rank) -> dict[str, Any]:
    """The request, as run.json has it: the composed config and its inputs, whatever the order of the words."""
    request = read_json(rank.folder.identity)
    if not request:
        axolotl = {**rank.step.config, "base_model": rank.step.base_model or rank.step.config.get("base_model")}
        return {"key": rank.step.key, "data_key": rank.step.data_key, "axolotl": axolotl}
    return {name: value for name, value in request.items() if name != "overrides"}


def _with_name(config: Mapping[str, Any], stored: str, name: str) -> dict[str, Any]:
    """The entries of a config that name a model by its path in the store, with its real name instead: transformers and
    PEFT record from where they have loaded it."""
    if not stored or stored == name:
        return {}
    renamed = {key: _replaced(value, stored, name) for key, value in config.items()}
    return {key: value for key, value in renamed.items() if value != config[key]}


def _replaced(value: Any, stored: str, name: str) -> Any:
    match value:
        case Mapping():
            return {key: _replaced(item, stored, name) for key, item in value.items()}
        case list() | tuple():
            return [_replaced(item, stored, name) for item in value]
    return name if value == stored else value
