"""The records of a finished run -> the facts of its model card, and the files written for the hub. Only reads."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import yaml

from modal_app.store.facts import DataManifest
from modal_app.store.read_json import read_json
from modal_app.store.redact import redacted
from modal_app.store.start_checkpoint import CONFIG_KEY as START_CHECKPOINT
from modal_app.store.step import StepKind
from runner.compare.best import where_it_ran
from runner.compare.metrics import Curves
from runner.compare.ranking import OBJECTIVE, rows_from
from runner.compare.source import facts_of_sweep
from runner.follow_up.subjects import Subject
from runner.keys.inputs import is_dataset
from runner.push.card import CONFIG, CardFacts, Source, card
from runner.push.files import FileToPush, Kind, file_of_text
from runner.push.hub import CARD, RECORD
from runner.push.private import last_part, without_places, words_without_places
from runner.push.tasks import scores_of
from runner.store.ledger import Ledger

SHOWN = (OBJECTIVE, "loss")
VERSIONS = ("axolotl", "transformers", "torch")
"""Of those in the dataset's manifest: the run was trained with the same lock."""
SHA256_DIGITS = 64
"""Of the identity of a local input; that of one on the hub is a commit, or unknown."""


def card_facts(subject: Subject, kind: Kind, repo: str, license_: str | None) -> CardFacts:
    """`repo`: owner/name."""
    (facts,) = facts_of_sweep(subject.store, subject.sweep, [subject.key])
    (row,) = rows_from([facts])
    manifest = DataManifest.read(subject.store.manifest(subject.data_key))
    plan = read_json(subject.store.sweeps / subject.sweep / "plan.json")
    metrics = {name: last for name in SHOWN if (last := _last(facts.curves, name)) is not None}
    stored, start = _best_stored(subject, facts.curves), subject.identity.get("from")
    if stored is not None:
        metrics[OBJECTIVE] = stored
    return CardFacts(
        repo=repo,
        run=subject.key,
        sweep=subject.sweep,
        kind=kind,
        adapter=subject.adapter,
        base=base_of(subject),
        data=tuple(_source(one, subject) for one in _inputs(subject) if is_dataset(one["at"])),
        rows=manifest.rows,
        eval_rows=manifest.eval_rows,
        tokens=manifest.tokens,
        metrics={name.replace("_", " "): last for name, last in metrics.items()},
        stored_step=None if stored is None else stored[1],
        first=_finite(facts.curves, OBJECTIVE, start["step"] if start else 0),
        best=_smallest(facts.curves),
        hardware=row.gpu or _requested_gpu(subject),
        seconds=row.seconds if row.paid_seconds is None else row.paid_seconds,
        train_seconds=row.train_seconds,
        healed=row.healed,
        dollars=row.dollars,
        versions=versions(manifest.versions),
        config=yaml.safe_dump(config_of(subject), sort_keys=True, allow_unicode=True),
        command=" ".join(["axosweep", f"base={CONFIG}", *where_it_ran(subject.store, subject.key)]),
        sweep_command=words_without_places(str(plan.get("command", "")), _local(subject)),
        license=license_,
        start=start,
        scores=scores_of(facts.measured),
    )


def made_files(facts: CardFacts, subject: Subject, names: Iterable[str]) -> list[FileToPush]:
    """The card, the config and the record. `names`: the other files; the record lists all files of axosweep."""
    record = json.dumps(_record(facts, subject, sorted({*names, CARD, CONFIG, RECORD})), indent=2, ensure_ascii=False)
    return [
        file_of_text(CARD, "the model card", card(facts)),
        file_of_text(CONFIG, "the Axolotl config: hub inputs by commit, local ones by name", facts.config),
        file_of_text(RECORD, "the run: its key, inputs by content, figures, versions", record + "\n"),
    ]


def base_of(subject: Subject) -> Source:
    """The base model; the name of a local one is the last part of its path."""
    for one in _inputs(subject):
        if one["at"] == "base_model":
            return _source(one, subject)
    return Source(last_part(str(subject.identity.get("axolotl", {}).get("base_model", ""))), False, "")


def config_of(subject: Subject) -> dict[str, Any]:
    """The keyed config without paths and secrets; a local input is the last part of its path."""
    config: dict[str, Any] = json.loads(json.dumps({**subject.config, START_CHECKPOINT: None}))
    del config[START_CHECKPOINT]
    for one in _inputs(subject):
        if _on_hub(one, subject):
            continue
        node, place = _place(config, one["at"])
        node[place] = last_part(str(one["text"]))
    cleaned: dict[str, Any] = redacted(without_places(config))
    return cleaned


def versions(trainer: Mapping[str, Any]) -> dict[str, str]:
    """The versions of axosweep here, and of the trainer's packages."""
    known = {name: str(trainer[name]) for name in VERSIONS if name in trainer}
    return {"axosweep": importlib.metadata.version("axosweep"), **known}


def _record(facts: CardFacts, subject: Subject, names: list[str]) -> dict[str, Any]:
    identity = subject.identity
    return {
        "version": 1,
        "run": facts.run,
        "kind": facts.kind,
        "sweep": facts.sweep,
        "overrides": [words_without_places(str(one), _local(subject)) for one in identity.get("overrides", ())],
        "inputs": [_input(one, subject) for one in _inputs(subject)],
        "gpu": identity.get("gpu"),
        "data": identity.get("data"),
        "data_key": subject.data_key,
        "from": facts.start,
        "trainer_lock": identity.get("trainer_lock"),
        "metrics": {name: {"value": value, "step": step} for name, (value, step) in facts.metrics.items()},
        "tasks": [asdict(one) for one in facts.scores],
        "seconds": facts.seconds,
        "dollars": facts.dollars,
        "versions": dict(facts.versions),
        "files": names,
    }


def _input(one: Mapping[str, Any], subject: Subject) -> dict[str, Any]:
    source = _source(one, subject)
    return {"at": one["at"], "name": source.name, "on_hub": source.on_hub, "identity": source.identity}


def _inputs(subject: Subject) -> list[Mapping[str, Any]]:
    """Without the start checkpoint, since `from` names its run instead."""
    return [one for one in subject.identity.get("inputs", ()) if one["at"] != START_CHECKPOINT]


def _local(subject: Subject) -> list[str]:
    """The paths of local inputs, as requested, of every run of the sweep: its command names them all."""
    runs = Ledger(subject.store, subject.sweep).plan().runs
    identities = (read_json(subject.store.folder(StepKind.TRAIN, run.key).identity, lenient=True) for run in runs)
    inputs = [one for identity in identities for one in identity.get("inputs", ())]
    return [str(one["text"]) for one in inputs if len(str(one.get("identity"))) == SHA256_DIGITS]


def _source(one: Mapping[str, Any], subject: Subject) -> Source:
    on_hub = _on_hub(one, subject)
    text = str(one["text"])
    return Source(text.partition("@")[0] if on_hub else last_part(text), on_hub, str(one.get("identity") or ""))


def _on_hub(one: Mapping[str, Any], subject: Subject) -> bool:
    """In the keyed config, a local input is the path of the store's copy."""
    node, place = _place(dict(subject.config), str(one["at"]))
    return not str(node[place]).startswith("inputs/")


def _place(config: Any, at: str) -> tuple[Any, Any]:
    *parents, last = at.split(".")
    for name in parents:
        config = config[int(name)] if isinstance(config, list) else config[name]
    return config, int(last) if isinstance(config, list) else last


def _last(curves: Curves, name: str) -> tuple[float, int] | None:
    step = max(curves.by_name.get(name, {}), default=0)
    value = _finite(curves, name, step)
    return None if value is None else (value, step)


def _finite(curves: Curves, name: str, step: int) -> float | None:
    value = curves.by_name.get(name, {}).get(step)
    return value if value is not None and math.isfinite(value) else None


def _best_stored(subject: Subject, curves: Curves) -> tuple[float, int] | None:
    """The eval loss and step of the weights, if the run has stored its best ones, and these are not its last ones."""
    if not subject.config.get("load_best_model_at_end"):
        return None
    from modal_app.held_out.row_losses import RowLosses  # imported late: it imports numpy

    losses = RowLosses.read(subject.store.folder(StepKind.TRAIN, subject.key).losses)
    if losses is None or losses.about.step >= max(curves.by_name.get(OBJECTIVE, {}), default=0):
        return None
    return losses.about.eval_loss, losses.about.step


def _smallest(curves: Curves) -> tuple[float, int] | None:
    points = {step: value for step, value in curves.by_name.get(OBJECTIVE, {}).items() if math.isfinite(value)}
    return min((value, step) for step, value in points.items()) if points else None


def _requested_gpu(subject: Subject) -> str:
    gpu = subject.identity.get("gpu", {})
    kind, count = gpu.get("type", "cpu"), gpu.get("count", 1)
    return kind if count == 1 and kind == "cpu" else f"{count} x {kind}"
