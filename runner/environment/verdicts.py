"""Remembers Axolotl's verdicts on configs in a JSON file in the store's cache, which may be deleted at any time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modal_app.store.read_json import read_json
from modal_app.store.sources import source_digest
from modal_app.store.step import write_atomically

MOST = 5000
"""The most verdicts that are stored; the oldest are removed first."""
JUDGES = (
    "oneshot/validate.py",
    "oneshot/refusals.py",
    "oneshot/named_imports.py",
    "oneshot/processors.py",
    "oneshot/user_modules.py",
    "patches/validating.py",
)
"""The files of this program that a verdict depends on, in addition to the trainer's lock."""


@dataclass(frozen=True, slots=True)
class SchemaQuestion:
    """A config as Axolotl would get it, and the capabilities of the GPU that it would find."""

    config: Mapping[str, Any]
    capabilities: Mapping[str, Any]
    code: Mapping[str, str] = field(default_factory=dict)
    """The user's own Python that it names: each file by its name, and where it is."""
    code_identity: str = ""
    """Hex sha256 of the content of these files."""
    text: str = field(init=False, compare=False, repr=False)
    """The same as canonical JSON: equal questions have equal texts."""

    def __post_init__(self) -> None:
        text = json.dumps([self.as_dict(), self.code_identity], sort_keys=True)
        object.__setattr__(self, "text", text)

    def as_dict(self) -> dict[str, Any]:
        """What the validator gets."""
        code = {"code": dict(self.code)} if self.code else {}
        return {"config": dict(self.config), "capabilities": dict(self.capabilities), **code}


SchemaVerdict = Mapping[str, Any]
"""`problems` and `warnings`, as modal_app.oneshot.validate writes them."""


@dataclass(slots=True)
class Verdicts:
    """`lock` represents the versions of all packages that verdicts depend on. Without the file `memory`, verdicts last
    only as long as this process."""

    memory: Path | None
    lock: str
    _known: dict[str, SchemaVerdict] = field(default_factory=dict)
    _judges: str = field(default_factory=lambda: source_digest(*JUDGES), init=False)

    def __post_init__(self) -> None:
        self._known = {} if self.memory is None else _load(self.memory)

    def get(self, question: SchemaQuestion) -> SchemaVerdict | None:
        return self._known.get(self._key(question))

    def put(self, question: SchemaQuestion, answer: SchemaVerdict) -> None:
        self._known[self._key(question)] = answer

    def save(self) -> None:
        """Save all, together with what other processes have saved meanwhile, if `memory` can be written to."""
        if self.memory is None:
            return
        newest = list({**_load(self.memory), **self._known}.items())[-MOST:]
        with contextlib.suppress(OSError):
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.memory, json.dumps(dict(newest)))

    def _key(self, question: SchemaQuestion) -> str:
        text = json.dumps([question.text, self.lock, self._judges, *_files_of(question.config)])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _files_of(config: Mapping[str, Any]) -> list[str]:
    """The hashes of the files that the answer depends on: of DeepSpeed, of chat templates, and the config.json of a
    model, which says what its processor is."""
    lists = [one for one in map(config.get, ("datasets", "test_datasets")) if isinstance(one, list)]
    holders = [config, *(one for listed in lists for one in listed if isinstance(one, Mapping))]
    values = [config.get("deepspeed"), *(one.get("chat_template_jinja") for one in holders)]
    values += [f"{config.get('base_model')}/config.json"] if config.get("processor_type") else []
    paths = [os.path.expanduser(one) for one in values if isinstance(one, str)]
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths if os.path.isfile(path)]


def _load(memory: Path) -> dict[str, SchemaVerdict]:
    return read_json(memory, lenient=True)
