"""Problems of runs that read their own data: settings that need a prepared dataset, streams that never begin, and rows
that name files which do not exist."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modal_app.store.own_data import PRETRAINING, OwnData, own_data_of
from runner.keys.inputs import is_dataset, look_for_inputs
from runner.keys.row_files import MULTIMODAL, NamedFiles, named_files
from runner.preflight.findings import Finding, error, warning
from runner.types import Experiment, InputKind

NO_SLICES = (
    "a stream has no slices, and data.limit is one",
    "Set max_steps=N; pretraining_dataset also has skip: N.",
)


def row_file_findings(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    """Files that rows name and that do not exist, or that cannot be identified."""
    if not axolotl.get(MULTIMODAL):
        return
    for one in look_for_inputs(axolotl)[0]:
        named = named_files(one.text) if one.kind is InputKind.FILE and is_dataset(one.at) else NamedFiles({})
        if named.missing:
            more = f" and {len(named.missing) - 1} more" if len(named.missing) > 1 else ""
            yield error(
                one.at, one.text, f"its rows name {named.missing[0]}{more}, and there is no such file in {os.getcwd()}"
            )
        if named.addresses:
            yield warning(
                one.at,
                one.text,
                f"its rows name files by their address ({named.addresses} times), so no key covers their content",
                "Download them and name the files.",
            )


def own_data_findings(experiment: Experiment) -> Iterator[Finding]:
    axolotl, own = experiment.axolotl, own_data_of(experiment.axolotl)
    if own is None:
        return
    if own.streams:
        yield from _stream(axolotl, own)
    if experiment.data.seed is not None:
        yield error(
            "data.seed",
            experiment.data.seed,
            f"it is the seed of preparing a dataset, and this run reads its own data ({own.key})",
            "Remove it: Axolotl shuffles the rows with seed.",
        )
    if "train" not in experiment.stages:
        yield error(
            "stages",
            list(experiment.stages),
            f"without train there is nothing to do: this run reads its own data ({own.key}), so none is prepared",
        )


def _stream(axolotl: Mapping[str, Any], own: OwnData) -> Iterator[Finding]:
    if not axolotl.get("max_steps"):
        yield error(
            "max_steps",
            axolotl.get("max_steps"),
            f"a stream has no length ({own.key}), so the number of steps is needed",
            "Write max_steps=1000.",
        )
    key = PRETRAINING if axolotl.get(PRETRAINING) else "datasets"
    listed = axolotl.get(key)
    entries = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    for index, entry in enumerate(entries):
        if "[" in str(entry.get("split")):
            yield error(f"{key}.{index}.split", entry["split"], *NO_SLICES)
    if key == PRETRAINING or axolotl.get("sample_packing"):
        yield from _only_by_loader(key, entries)
    elif axolotl.get("test_datasets"):
        yield warning(
            "test_datasets",
            "(set)",
            "Axolotl reads them for a stream only with sample_packing or pretraining_dataset, so nothing is evaluated",
        )


def _only_by_loader(key: str, entries: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """What Axolotl passes to load_dataset as it is, without a look at what the path is."""
    if len(entries) > 1:
        yield error(key, f"({len(entries)} datasets)", "Axolotl streams only the first one", "Leave one.")
    path = entries[0].get("path") if entries else None
    if isinstance(path, str) and Path(path).expanduser().is_file():
        yield error(
            f"{key}.0.path",
            path,
            "Axolotl streams a folder, or a dataset of the hub, by its path, but a file only by a loader",
            f"Write {key}=[{{path: json, data_files: {path}, ...}}].",
        )
