"""What a step reads from the Hugging Face hub in addition to its datasets: models, tokenizers, adapters. Standard
library.

The keyed config pins all of it: `revision_of_model` is the one commit at which Axolotl reads every model it names, and
an adapter is `owner/name@commit`, since Axolotl itself would read the newest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

FETCH = "fetch"
ADAPTER = "lora_model_dir"
BESIDE = ("base_model_config", "tokenizer_config", "processor_config")
"""Keys that name a repository from which no weights are read."""

SECOND_COPIES = ("original/*", "*.gguf", "*.pth", "consolidated*", "*.onnx", "*.msgpack", "*.h5")
"""Weights in formats that nothing here reads."""
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", *SECOND_COPIES)


@dataclass(frozen=True, slots=True)
class HubItem:
    """A repository at a commit, complete or without its weights."""

    name: str
    commit: str
    weights: bool = True

    @property
    def skipped(self) -> list[str]:
        """Patterns of the files that are not fetched."""
        return list(SECOND_COPIES if self.weights else WEIGHTS)

    @property
    def snapshot(self) -> str:
        """Its folder in the hub's cache.

        >>> HubItem("owner/model", "c0ffee").snapshot
        'models--owner--model/snapshots/c0ffee'
        """
        return f"models--{self.name.replace('/', '--')}/snapshots/{self.commit}"

    def __str__(self) -> str:
        return f"{self.name}@{self.commit}" + ("" if self.weights else "/files")


def hub_items(config: Mapping[str, Any]) -> tuple[HubItem, ...]:
    """What a keyed config reads from the hub, each once."""
    items: dict[str, HubItem] = {}
    commit = config.get("revision_of_model")
    for key in ("base_model", *BESIDE):
        if commit is not None and is_hub_name(name := config.get(key)):
            items.setdefault(name, HubItem(name, str(commit), weights=key == "base_model"))
    if (adapter := hub_adapter(config)) is not None:
        items[str(adapter)] = adapter
    return tuple(items.values())


def hub_adapter(config: Mapping[str, Any]) -> HubItem | None:
    """The adapter that a keyed config continues, if it is on the hub."""
    if not is_hub_name(text := config.get(ADAPTER)) or "@" not in text:
        return None
    name, _, commit = text.partition("@")
    return HubItem(name, commit)


def is_hub_name(text: object) -> TypeGuard[str]:
    """Whether a model that a keyed config names is on the hub: anything local is an input of the store."""
    return isinstance(text, str) and bool(text) and not text.startswith("inputs/")


def fetch_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The jobs that fetch what a config reads, one after the other: each fetches one item, when all items before it
    exist.

    >>> fetch_names({"base_model": "owner/model", "revision_of_model": "c0ffee"})
    ('fetch/owner/model@c0ffee',)
    """
    names: list[str] = []
    for item in hub_items(config):
        # A job starts when the one before it has ended, so an item that comes after other items is another job.
        behind = f"/behind/{hashlib.sha256(names[-1].encode()).hexdigest()[:12]}" if names else ""
        names.append(f"{FETCH}/{item}{behind}")
    return tuple(names)


def item_of(name: str, config: Mapping[str, Any]) -> HubItem:
    """The item that the job of that name fetches."""
    return hub_items(config)[fetch_names(config).index(name)]


def adapter_folder(config: Mapping[str, Any]) -> str | None:
    """The folder of a config's hub adapter at its commit, fetched unless it is there; None when it has none.

    PEFT would fetch the newest one from the hub, and Axolotl has no key for its revision.
    """
    adapter = hub_adapter(config)
    if adapter is None:
        return None
    from huggingface_hub import snapshot_download

    return str(snapshot_download(adapter.name, revision=adapter.commit, ignore_patterns=adapter.skipped))
