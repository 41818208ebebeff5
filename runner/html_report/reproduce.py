"""What reproduces the runs: the command, the versions, the datasets, the best run's config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modal_app.store.facts import DataManifest
from modal_app.store.layout import Store
from modal_app.store.own_data import own_data_of
from modal_app.store.read_json import read_json
from modal_app.store.step import StepKind
from runner.compare.ranking import Row
from runner.console.redact import redact
from runner.store.ledger import SweepPlan
from runner.store.run_config import read_identity


def block(store: Store, sweep: str, plan: SweepPlan, best: Row | None) -> dict[str, Any]:
    """`commits` and `locks` are all those that the runs were trained with. If no commit is recorded, it is
    that of the first launch.
    """
    steps = [_newest_step(store, run.key) for run in plan.runs]  # a mirror has none
    trained_at = _distinct(step.get("tracking", {}).get("commit") for step in steps)
    identities = [read_identity(store.folder(StepKind.TRAIN, run.key).identity) for run in plan.runs]
    return {
        "command": redact(plan.command),
        "commits": trained_at or _distinct([read_json(store.sweeps / sweep / "plan.json").get("commit")]),
        "locks": _distinct(identity.get("trainer_lock") for identity in identities),
        "datasets": _datasets(store, plan, identities),
        "store": str(store.root),
        "inputs": _inputs(identities),
        "best": _best(store, best, plan) if best else None,
    }


def _best(store: Store, best: Row, plan: SweepPlan) -> dict[str, Any]:
    config = store.folder(StepKind.TRAIN, best.key).config
    (overrides,) = (run.overrides for run in plan.runs if run.key == best.key)
    changed = f"# {best.healed}\n" if best.healed else ""
    return {
        "key": best.key,
        "overrides": redact(" ".join(overrides)),
        "config": f"{changed}{redact(config.read_text(encoding='utf-8', errors='replace'))}" if config.exists() else "",
    }


def _datasets(store: Store, plan: SweepPlan, identities: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each once; of runs that read their own data, the key alone, and why there is no dataset."""
    own = {
        run.data_key: found.why
        for run, identity in zip(plan.runs, identities, strict=True)
        if (found := own_data_of(identity.get("axolotl", {})))
    }
    keys = dict.fromkeys(run.data_key for run in plan.runs)
    return [{"key": key, "own": own[key]} if key in own else _dataset(store, key) for key in keys]


def _dataset(store: Store, key: str) -> dict[str, Any]:
    manifest = DataManifest.read(store.manifest(key))
    known = {
        "rows": manifest.rows,
        "eval_rows": manifest.eval_rows,
        "eval_fingerprint": manifest.eval_fingerprint,
    }
    return {"key": key} | {name: value for name, value in known.items() if value is not None}


def _inputs(identities: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Local files with their content hashes and hub names with their commits, each once."""
    found: dict[tuple[str, str], None] = {}
    for identity in identities:
        for one in identity.get("inputs", ()):
            found[redact(str(one.get("text"))), str(one.get("identity") or "not resolved")] = None
    return [{"text": text, "identity": identity} for text, identity in found]


def _newest_step(store: Store, key: str) -> Mapping[str, Any]:
    attempts = store.folder(StepKind.TRAIN, key).attempts()
    return read_json(attempts[-1].step) if attempts else {}


def _distinct(values: Any) -> list[str]:
    return [str(value) for value in dict.fromkeys(values) if value]
