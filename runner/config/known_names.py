"""What the files of conf/model and conf/dataset say of a model or a dataset, found by its name, whichever option is
chosen: a user's own files first, then the shipped ones."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from runner.config.project import current_project
from runner.types import DatasetSize, ModelFacts

MODEL, DATASET = "model", "dataset"
MOST = 10**15
"""No figure of a model is larger."""

PARTIAL = ("shards", "weight", "data_files", "data_dir")
"""Keys with which an entry of `datasets` takes a part of a dataset."""
_FIRST_ROWS = re.compile(r"\[:\d+\]$")

_EXPECTED = {"int": "a whole number", "str": "text", "bool": "true or false", "tuple[str, ...]": "a list of names"}
_TYPES = {field.name: str(field.type).removesuffix(" | None") for field in fields(ModelFacts)}
_OPTIONAL = frozenset(field.name for field in fields(ModelFacts) if str(field.type).endswith(" | None"))


def facts_named(base_model: str) -> ModelFacts | None:
    """The facts of a model by its name on the hub. The hub ignores case, and so does this."""
    return _facts_named(base_model.lower(), _folders(MODEL)) if "/" in base_model else None


def size_named(dataset: Mapping[str, Any]) -> DatasetSize | None:
    """The size of the dataset on the hub that an entry of `datasets` names; None if it takes only a part of it, other
    than the first rows (`train[:100]`, which the size is for all rows of)."""
    path, split, name = dataset.get("path"), str(dataset.get("split") or "train"), dataset.get("name")
    if not isinstance(path, str) or "/" not in path or any(dataset.get(key) for key in PARTIAL):
        return None
    split = _FIRST_ROWS.sub("", split)
    return _size_named(path.lower(), None if name is None else str(name), split, _folders(DATASET))


def describes(facts: ModelFacts, base_model: str) -> bool:
    """Whether these facts are of the model of this name."""
    return base_model.lower() in (one.lower() for one in (facts.base_model, *facts.same_shape))


def facts_in(node: Mapping[str, Any]) -> ModelFacts:
    """The facts in a `model` node with the right keys. Raises ValueError for a value of a wrong type."""
    for name, value in node.items():
        expected = _TYPES[name]
        if not (value is None and name in _OPTIONAL) and not _is_a(value, expected):
            raise ValueError(f"model.{name} is {value!r}: {_EXPECTED[expected]} is expected")
    lists = {name: tuple(node.get(name) or ()) for name in ("adapter_modules", "same_shape")}
    return ModelFacts(**{**node, **lists})


def class_named(base_model: str) -> str | None:
    """The class in transformers of a model by its name on the hub (`LlamaForCausalLM`); None if no file says it."""
    return _class_named(base_model.lower(), _folders(MODEL)) if "/" in base_model else None


def forget_files() -> None:
    """Read the files again, for a process that runs another command line: they may have changed."""
    for found in (_class_named, _facts_named, _size_named):
        found.cache_clear()


@functools.cache
def _class_named(name: str, folders: tuple[Path, ...]) -> str | None:
    for content in _naming(name, folders):
        axolotl, node = content.get("axolotl"), content.get(MODEL)
        named = [one.get("base_model") for one in (axolotl, node) if isinstance(one, dict)]
        named += node.get("same_shape") or [] if isinstance(node, dict) else []
        if isinstance(axolotl, dict) and name in (str(one).lower() for one in named):
            found = axolotl.get("model_type") or axolotl.get("type_of_model")
            return str(found) if found else None
    return None


@functools.cache
def _facts_named(name: str, folders: tuple[Path, ...]) -> ModelFacts | None:
    for content in _naming(name, folders):
        node = content.get(MODEL)
        if not isinstance(node, dict) or not set(node) <= set(_TYPES):
            continue
        try:
            facts = facts_in(node)
        except (TypeError, ValueError):  # a key is missing or has a wrong value, which is reported when it is chosen
            continue
        if describes(facts, name):
            return facts
    return None


@functools.cache
def _size_named(path: str, name: str | None, split: str, folders: tuple[Path, ...]) -> DatasetSize | None:
    for content in _naming(path, folders):
        sizes, axolotl = content.get("sizes"), content.get("axolotl")
        entries = axolotl.get("datasets") if isinstance(axolotl, dict) else None
        if not isinstance(entries, list) or not isinstance(sizes, dict):
            continue
        for entry in (one for one in entries if isinstance(one, dict) and str(one.get("path")).lower() == path):
            size = _size(sizes.get(entry["path"]))
            if size is not None and (entry.get("name"), entry.get("split") or "train") == (name, split):
                return size
    return None


def _size(node: Any) -> DatasetSize | None:
    if not isinstance(node, dict) or set(node) != {"rows", "tokens_per_row"}:
        return None
    right = all(isinstance(one, (int, float)) and 0 < one < MOST for one in node.values())
    return DatasetSize(**node) if right else None


def _folders(group: str) -> tuple[Path, ...]:
    return tuple(folder / group for folder in current_project().conf)


def _naming(name: str, folders: tuple[Path, ...]) -> Iterator[Mapping[str, Any]]:
    """The contents of the files that have this name in their text. The others are not parsed, since parsing all takes
    longer than planning a run."""
    seen: set[str] = set()
    for folder in folders:
        files = [file for file in sorted(folder.glob("*.yaml")) if file.name not in seen]
        seen |= {file.name for file in files}
        for file in files:
            try:
                text = file.read_text(encoding="utf-8")
                content = yaml.safe_load(text) if name in text.lower() else None
            except (OSError, UnicodeDecodeError, yaml.YAMLError):
                continue  # reported when it is chosen
            if isinstance(content, dict):
                yield content


def _is_a(value: Any, expected: str) -> bool:
    if expected == "int":
        return isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST
    if expected.startswith("tuple"):
        return isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
    return isinstance(value, {"str": str, "bool": bool}[expected])
