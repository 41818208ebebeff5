"""Decides which files of a run go to the hub: only those on a list, so that nothing is pushed by accident."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatch
from pathlib import Path

from runner.push.private import without_places


class Kind(StrEnum):
    """What is pushed."""

    ADAPTER = "adapter"
    MERGED = "merged"
    """The base model with the adapter in it."""
    FULL = "model"
    """The model of a full fine-tune."""


@dataclass(frozen=True, slots=True)
class FileToPush:
    """A file that goes to the hub."""

    name: str
    why: str
    size: int
    """Bytes."""
    source: Path | None = None
    """Sent unchanged."""
    text: str | None = None
    """Written for the hub."""


@dataclass(frozen=True, slots=True)
class FileLeftOut:
    """A file or folder that is not pushed."""

    name: str
    why: str


_TOKENIZER = (
    *((name, "the tokenizer") for name in ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json")),
    *((name, "the tokenizer") for name in ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt")),
    *((name, "the chat template") for name in ("chat_template.jinja", "chat_template.json")),
    *((name, "the image processor") for name in ("*preprocessor_config.json", "processor_config.json")),
)
_MODEL = (
    *((name, "the weights") for name in ("model*.safetensors", "pytorch_model*.bin")),
    *((name, "the index of the weights") for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json")),
    ("config.json", "the model's shape"),
    ("generation_config.json", "the settings for generation"),
    *_TOKENIZER,
)
_GOES: Mapping[Kind, tuple[tuple[str, str], ...]] = {
    Kind.ADAPTER: (
        *((name, "the adapter's weights") for name in ("adapter_model.safetensors", "adapter_model.bin")),
        ("adapter_config.json", "the adapter's config"),
        *_TOKENIZER,
    ),
    Kind.MERGED: _MODEL,
    Kind.FULL: _MODEL,
}
_STAYS = (
    ("checkpoint-*", "a checkpoint, with optimizer states"),
    ("broken-*", "an unusable checkpoint"),
    ("debug.log", "a log"),
    ("*.log", "a log"),
    ("training_args.bin", "pickled settings, with paths of the machine"),
    ("README.md", "the trainer's own card, replaced by ours"),
    ("config.json", "part of the base model"),
)
_REWRITTEN = (".json",)
"""Small text files: paths of the machine are removed."""
_OF_THIS_MACHINE = ("is_local", "local_files_only")
"""Keys in which transformers records how a tokenizer was found."""
_AS_IS = ("tokenizer.json", "vocab.json", "*.index.json")
"""Tables, some with entries that look like paths."""


def sort_out(
    folder: Path, kind: Kind, changes: Mapping[str, Mapping[str, object]]
) -> tuple[list[FileToPush], list[FileLeftOut]]:
    """The files of a folder with weights that are pushed, and those that are not. `changes`: file name -> keys of that
    JSON file and their new values."""
    sent: list[FileToPush] = []
    left: list[FileLeftOut] = []
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        why = next((why for pattern, why in _GOES[kind] if path.is_file() and fnmatch(path.name, pattern)), None)
        if why is None:
            stays = next((why for pattern, why in _STAYS if fnmatch(path.name, pattern)), "not known to be needed")
            left.append(FileLeftOut(path.name + ("/" if path.is_dir() else ""), stays))
        else:
            sent.append(_sent(path, why, changes.get(path.name, {})))
    return sent, left


def file_of_text(name: str, why: str, text: str) -> FileToPush:
    return FileToPush(name, why, len(text.encode()), text=text)


def _sent(path: Path, why: str, changes: Mapping[str, object]) -> FileToPush:
    if path.suffix not in _REWRITTEN or any(fnmatch(path.name, pattern) for pattern in _AS_IS):
        return FileToPush(path.name, why, path.stat().st_size, source=path)
    content = without_places(json.loads(path.read_text(encoding="utf-8")))
    if isinstance(content, dict):
        content = {**{key: value for key, value in content.items() if key not in _OF_THIS_MACHINE}, **changes}
    return file_of_text(path.name, why, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
