"""Axolotl's keys, at every depth, from the generated list: which exist, and what was probably meant."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from runner.errors import did_you_mean


@dataclass(frozen=True, slots=True)
class Field:
    """One key of an Axolotl config."""

    type: str
    """For people: `int`, `str | float`, `list[SFTDataset]`."""
    models: tuple[str, ...] = ()
    """The models that its value may have; more than one for a union."""
    choices: tuple[str, ...] = ()
    deprecated: str = ""
    """Axolotl's message; empty when it is not deprecated."""
    numbered: bool = False
    """Its entries are a list: `datasets.0`."""
    open: bool = False
    """It may have keys of any name."""


Fields = Mapping[str, Field]

WITHOUT_LISTED_KEYS = ("axolotl.integrations.llm_compressor.",)
"""Plugins that Axolotl ships, and that the trainer cannot import without a package that it does not have."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What Axolotl says to a key that it has renamed or removed."""

    text: str
    refused: bool
    """Whether Axolotl refuses the key, or only warns."""


@dataclass(frozen=True, slots=True)
class AxolotlFields:
    """All keys of one version of Axolotl, under every name that a config may use."""

    version: str
    top: Fields
    models: Mapping[str, Fields]
    plugins: Mapping[str, Fields]
    """The keys that each plugin shipped with Axolotl adds at the top."""
    advice: Mapping[str, Advice] = field(default_factory=dict)
    """For keys of earlier versions, at the top."""
    everywhere: Fields = field(init=False, repr=False)
    """The keys at the top, with those of every plugin."""
    _unions: dict[tuple[str, ...], Fields] = field(init=False, repr=False, default_factory=dict)
    """The results of `below` by models, since every run of a sweep needs them again."""

    def __post_init__(self) -> None:
        merged = dict(self.top)
        for fields in self.plugins.values():
            merged.update(fields)
        object.__setattr__(self, "everywhere", merged)

    def below(self, field: Field) -> Fields:
        """The keys that a field may have. For a union: the keys of all members, and all that any member allows."""
        if field.models not in self._unions:
            self._unions[field.models] = self._union(field.models)
        return self._unions[field.models]

    def _union(self, models: Sequence[str]) -> Fields:
        merged: dict[str, Field] = {}
        for model in models:
            for name, found in self.models[model].items():
                merged[name] = _either(merged[name], found) if name in merged else found
        return merged


@functools.cache
def axolotl_fields() -> AxolotlFields:
    text = resources.files("runner.config").joinpath("axolotl_fields.json").read_text(encoding="utf-8")
    listed = json.loads(text)
    return AxolotlFields(
        version=listed["axolotl"],
        top=_read(listed["fields"]),
        models={name: _read(fields) for name, fields in listed["models"].items()},
        plugins={name: _read(fields) for name, fields in listed["plugins"].items()},
        advice={name: Advice(raw["says"], raw["refused"]) for name, raw in listed["advice"].items()},
    )


def _read(listed: Mapping[str, Mapping[str, Any]]) -> Fields:
    fields = {}
    for name, raw in listed.items():
        field = Field(
            type=raw["type"],
            models=tuple(raw.get("models", ())),
            choices=tuple(raw.get("choices", ())),
            deprecated=raw.get("deprecated", ""),
            numbered=raw.get("list", False),
            open=raw.get("open", False),
        )
        fields[name] = field
        if "alias" in raw:
            fields[raw["alias"]] = field
    return fields


def _either(one: Field, other: Field) -> Field:
    """A key of two members of a union: `type` of a dataset is text, or a mapping of one kind or another."""
    return Field(
        type=" | ".join(dict.fromkeys((*one.type.split(" | "), *other.type.split(" | ")))),
        models=tuple(dict.fromkeys((*one.models, *other.models))),
        choices=tuple(dict.fromkeys((*one.choices, *other.choices))),
        deprecated=one.deprecated or other.deprecated,
        numbered=one.numbered or other.numbered,
        open=one.open or other.open,
    )


OPTIONS: Mapping[str, str] = {"fsdp": " Remove it and choose fsdp=fsdp2, which sets fsdp_config."}
"""A key that Axolotl no longer has -> the option of axosweep in its place."""


def unknown_key(path: Sequence[str], axolotl: AxolotlFields, top: Fields | None = None) -> str | None:
    """What is wrong with this dotted key as a sentence, or None when Axolotl knows it.

    >>> unknown_key(["datasets", "0", "pathh"], axolotl_fields())
    'Axolotl has no key datasets.0.pathh. Did you mean path?'
    >>> unknown_key(["deepspeed", "zero_optimization", "stage"], axolotl_fields())
    """
    known = axolotl.everywhere if top is None else top
    field: Field | None = None
    for depth, name in enumerate(path):
        before = ".".join(path[:depth])
        if field is not None:
            if field.open:
                return None
            if field.numbered and name.isdecimal():
                continue
            if field.numbered and not path[depth - 1].isdecimal():
                return f"{before} is a list: write {before}.0.{name}, or the whole list."
            if not field.models and name.isdecimal():
                return f"{before} is one value ({field.type}), not a list. To sweep it: -m {before}=VALUE,VALUE."
            if not field.models:
                return f"{before} is a value ({field.type}); there is no {name} below it."
            known = axolotl.below(field)
        if name not in known:
            here = f"{before}." if before else ""
            if advice := axolotl.advice.get(here + name):
                return f"Axolotl has no key {here}{name} any more. It says: {advice.text}{OPTIONS.get(here + name, '')}"
            return f"Axolotl has no key {here}{name}.{did_you_mean(name, known) or _all_of(known)}"
        field = known[name]
    return None


def _all_of(known: Fields) -> str:
    return f" There are: {', '.join(sorted(known))}." if len(known) <= 12 else ""


def unknown_keys(config: Mapping[str, Any], axolotl: AxolotlFields) -> list[str]:
    """A sentence for each key of a config that Axolotl would silently ignore."""
    return [sentence for _, sentence in unknown_paths(config, axolotl)]


def unknown_paths(config: Mapping[str, Any], axolotl: AxolotlFields) -> list[tuple[str, str]]:
    """The dotted key and the sentence for each of `unknown_keys`.

    A plugin's own keys count if the config names the plugin. If it names one whose keys are not listed, since
    Axolotl does not ship it, keys at the top are not checked.
    """
    plugins = plugins_of(config)
    top = dict(axolotl.top)
    for plugin in plugins:
        top.update(axolotl.plugins.get(plugin, {}))
    foreign = any(not plugin.startswith("axolotl.") or plugin.startswith(WITHOUT_LISTED_KEYS) for plugin in plugins)
    found: dict[str, str] = {}
    for path in _paths(config):
        if foreign and path[0] not in top:
            continue
        if (sentence := unknown_key(path, axolotl, top)) is not None:
            found.setdefault(sentence + _plugin_hint(path[0], top, axolotl), ".".join(path))
    return [(key, sentence) for sentence, key in found.items()]


def plugins_of(config: Mapping[str, Any]) -> list[str]:
    """The plugins that a config names; none if the value is not a list, which is a finding of its own."""
    named = config.get("plugins")
    return [str(plugin) for plugin in named] if isinstance(named, list | tuple) else []


def _plugin_hint(name: str, top: Fields, axolotl: AxolotlFields) -> str:
    owner = next((plugin for plugin, fields in axolotl.plugins.items() if name in fields), None)
    if name in top or owner is None:
        return ""
    return f" It belongs to a plugin: add {owner} to `plugins`."


def _paths(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    match node:
        case Mapping():
            children: Any = node.items()
        case list() | tuple():
            children = enumerate(node)
        case _:
            children = ()
    found = False
    for name, child in children:
        found = True
        yield from _paths(child, (*path, str(name)))
    if not found and path:
        yield path
