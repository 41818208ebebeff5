"""A store -> the speeds of its finished runs, and the sizes of its prepared datasets. Only reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modal_app.cloud.meter import ContainerRecord
from modal_app.store.facts import DataManifest, TrainFacts
from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.step import OutcomeStatus, StepKind
from runner.cost.length import data_ranks, length_of, shape_of
from runner.cost.model_names import identity_of_model, model_name
from runner.cost.spent import card_of, containers
from runner.cost.types import PastRuns, Rows
from runner.store.stores import is_mirror

NEWEST = 200
"""The most runs of a store that are read: enough for every shape in use, and quickly read."""


@dataclass(frozen=True, slots=True)
class PastDatasets:
    """A prepared dataset that some run has read."""

    paths: tuple[str, ...]
    """The paths of its datasets, as in the run's config."""
    sequence_len: Any
    rows: int
    tokens_per_row: float
    longest_row: int | None
    seconds: float
    """The time of preparing it."""


@dataclass(frozen=True, slots=True)
class KnownRecords:
    """The records of the stores."""

    runs: tuple[PastRuns, ...] = ()
    data: tuple[PastDatasets, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    """What the config of a run calls its base model -> the name of that model in `runs`."""

    def name_of(self, base_model: str, identity: str | None) -> str:
        """The name in `runs` of the base model of a run, whatever its config calls it: a store's copy is the same model
        as the folder that it is a copy of. A folder whose content has changed is as fast as before."""
        by_content = model_name(base_model, identity)
        return by_content if by_content in self.models.values() else self.models.get(base_model, by_content)


def read_past(stores: Sequence[Store]) -> KnownRecords:
    """The records of the newest runs of each store.

    Runs that resumed or stopped early are left out, since their parts do not add up to a complete run.
    """
    runs: list[PastRuns] = []
    models: dict[str, str] = {}
    data: dict[Path, PastDatasets] = {}
    for store in stores:
        manifests: dict[str, DataManifest] = {}
        for folder in _newest(store):
            try:
                identity = read_json(folder / "run.json", lenient=True)
                result = read_json(folder / "result.json", lenient=True)
            except OSError:
                continue  # unreadable: plan without the figures of this run
            if not identity or not isinstance(identity.get("axolotl"), dict):
                continue
            key = str(identity.get("data_key"))
            if key not in manifests:
                manifests[key] = DataManifest.read(store.manifest(key))
                if (one := _data(identity["axolotl"], manifests[key])) is not None:
                    data[store.manifest(key)] = one
            for one_run in _run(store, folder.name, identity, result, manifests[key]):
                text = one_run.shape.base_model
                name = model_name(text, identity_of_model(identity.get("inputs") or ()))
                models.setdefault(text, name)
                runs.append(replace(one_run, shape=replace(one_run.shape, base_model=name)))
    return KnownRecords(tuple(runs), tuple(data.values()), models)


def rows_of(manifest: DataManifest) -> Rows | None:
    """The rows of a prepared dataset; None if they are not recorded."""
    rows, tokens = manifest.rows, manifest.tokens
    if rows is None:
        return None
    mean = tokens / rows if tokens and rows else None
    return Rows(rows, manifest.eval_rows or 0, mean, manifest.longest_row, "prepared rows")


def data_paths(axolotl: Mapping[str, Any]) -> tuple[str, ...]:
    listed = axolotl.get("datasets")
    return tuple(str(one.get("path")) for one in listed if isinstance(one, Mapping)) if isinstance(listed, list) else ()


def _newest(store: Store) -> list[Path]:
    found = [(path.stat().st_mtime, path.parent) for path in store.runs.glob("*/result.json")]
    return [folder for _, folder in sorted(found, reverse=True)[:NEWEST]]


def _data(axolotl: Mapping[str, Any], manifest: DataManifest) -> PastDatasets | None:
    rows = rows_of(manifest)
    if rows is None or rows.tokens_per_row is None:
        return None
    seconds = manifest.seconds or 0.0
    length = axolotl.get("sequence_len")
    return PastDatasets(data_paths(axolotl), length, rows.rows, rows.tokens_per_row, rows.longest_row, seconds)


def _run(
    store: Store,
    key: str,
    identity: Mapping[str, Any],
    result: Mapping[str, Any],
    manifest: DataManifest,
) -> Iterator[PastRuns]:
    facts = TrainFacts.of(result.get("facts") or {})
    config = {**identity["axolotl"], **facts.smaller_batch}
    phases, steps = facts.phases, facts.step or 0
    succeeded = result.get("status") == OutcomeStatus.SUCCEEDED
    if not succeeded or facts.resumed_from or facts.early_stopped or phases is None or steps < 1:
        return
    count = int(identity.get("gpu", {}).get("count") or 1)
    length = length_of({**config, "max_steps": steps}, data_ranks(config, count), rows_of(manifest))
    if isinstance(length, str):
        return
    place = "modal" if is_mirror(store) else "local"
    rented = containers(store.folder(StepKind.TRAIN, key))
    gpu = card_of(rented) or str(identity.get("gpu", {}).get("type"))
    seconds = float(result["finished_at"]) - float(result["started_at"])
    only = rented[0] if len(rented) == 1 and len(rented[0].attempts) == 1 else None
    boot, around = (None, None) if only is None else _outside_worker(only, seconds)
    yield PastRuns(
        shape=shape_of(config, gpu, count, place),
        length=length,
        seconds=seconds,
        phases=phases,
        cpu=facts.cpu,
        boot=boot,
        around=around,
        cores=None if only is None else max(only.cores_reserved, only.cores_used or 0.0),
        memory_gib=None if only is None else max(only.memory_gib_reserved, only.memory_gib_used or 0.0),
    )


def _outside_worker(one: ContainerRecord, worker_s: float) -> tuple[float | None, float | None]:
    """The seconds of a container's boot and the others in which its worker did not run. A run that was not the first of
    its container tells nothing about boots."""
    outside = max(0.0, one.seconds - worker_s)
    if one.boot is None:
        return outside, None
    return one.boot or None, max(0.0, outside - one.boot)
