"""Whether a run reads its own data while it trains. Then no dataset is prepared beforehand, and its runs share none.

This is the only place that decides it; both sides use Step.own_data. Standard library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SKIPS = "skip_prepare_dataset"
STREAMS = ("pretraining_dataset", "streaming")
PRETRAINING = "pretraining_dataset"
DATASET_LISTS = ("datasets", "test_datasets", PRETRAINING)


@dataclass(frozen=True, slots=True)
class OwnData:
    """Why a run reads its own data."""

    key: str
    """The config key that says so."""
    streams: bool
    """Whether rows are read while it trains, so that their number is never known. Otherwise it reads all of them
    first."""

    @property
    def why(self) -> str:
        """For people: `streaming: its rows are read while it trains`."""
        how = "its rows are read while it trains" if self.streams else "its rows are not prepared beforehand"
        return f"{self.key}: {how}"


def own_data_of(config: Mapping[str, Any]) -> OwnData | None:
    """None for a run that reads a prepared dataset."""
    key = next((key for key in (*STREAMS, SKIPS) if config.get(key)), None)
    return None if key is None else OwnData(key, streams=key != SKIPS)


def entries(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Each dataset that a config names, to train on or to evaluate on."""
    for key in DATASET_LISTS:
        listed = config.get(key)
        yield from (one for one in (listed if isinstance(listed, list) else ()) if isinstance(one, Mapping))


def is_stored(entry: Mapping[str, Any]) -> bool:
    """Whether a dataset of a keyed config is read from the store's inputs alone."""
    path, files = entry.get("path"), entry.get("data_files")
    named = [files] if isinstance(files, str) else list(files or ())
    return all(isinstance(one, str) and one.startswith("inputs/") for one in named or [path])


def pinned_streams(config: Mapping[str, Any]) -> dict[str, str]:
    """Hub name -> commit, of the datasets of a keyed config. Axolotl drops the commit of one that it streams."""
    return {str(one.get("path")): str(one["revision"]) for one in entries(config) if one.get("revision")}


def without_revisions(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same, for Axolotl: its schema reads an entry of pretraining_dataset that has a revision as one of another
    kind, which has no `skip`, and drops that without a message."""
    listed = config.get(PRETRAINING)
    if not isinstance(listed, list):
        return dict(config)
    plain = [{name: value for name, value in one.items() if name != "revision"} for one in listed]
    return {**config, PRETRAINING: plain}
