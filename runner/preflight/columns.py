"""The columns that a dataset's `type` reads from every row, by the code of Axolotl 0.21. Only those that it looks up
without an alternative: a row without one ends Axolotl with a KeyError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.preflight.jsonl import messages_column

INSTRUCTIONS: Mapping[str, tuple[str, ...]] = {
    "alpaca": ("instruction", "output"),
    "alpaca_chat.load_qa": ("question", "answer"),
    "alpaca_chat.load_camel_ai": ("message_1", "message_2"),
    "alpaca_w_system.load": ("instruction", "output", "system"),
    "alpaca_w_system.load_open_orca": ("question", "response", "system_prompt"),
    "gpteacher": ("instruction", "response"),
    "input_output": ("segments",),
    "jeopardy": ("question", "category", "answer"),
    "metharme": ("prompt", "generation"),
    "oasst": ("INSTRUCTION", "RESPONSE"),
    "pygmalion": ("conversations",),
    "reflection": ("instruction", "output", "reflection", "corrected"),
    "stepwise_supervised": ("prompt", "completions", "labels"),
    "summarizetldr": ("article", "summary"),
}
"""prompt_tokenizers.py and prompt_strategies/*.py"""
_CHOICES = ("chosen", "rejected")
PAIRS: Mapping[str, tuple[str, ...]] = {
    **{f"{style}.{name}": (*more, *_CHOICES) for style in ("chatml", "llama3") for name, more in {
        "argilla_chat": (), "icr": ("input",), "intel": ("question",), "prompt_pairs": ("prompt",),
        "ultra": ("prompt",),
    }.items()},
    "zephyr.nectar": ("prompt", "answers"),
}  # fmt: skip
"""prompt_strategies/dpo/*.py"""
JUDGED: Mapping[str, tuple[str, ...]] = {
    f"{style}.{name}": (*more, "completion", "label")
    for style in ("chatml", "llama3")
    for name, more in {
        "argilla": ("instruction",),
        "argilla_chat": (),
        "intel": ("question",),
        "prompt_pairs": ("prompt",),
        "ultra": ("prompt",),
    }.items()
}
"""prompt_strategies/kto/*.py; TRL reads the label."""


Column = tuple[str, str]
"""The key of a dataset that names it, and its name."""


def columns_read(axolotl: Mapping[str, Any], dataset: Mapping[str, Any]) -> tuple[Column, ...]:
    """Nothing for a type that is not known here, or that can do without any one column."""
    match axolotl.get("rl"), dataset.get("type"):
        case ("dpo" | "ipo" | "simpo", kind):
            return _of_pairs(dataset, kind)
        case ("kto", kind):
            return _of_judged(kind)
        case (None | "", Mapping() as kind):
            return (_named(kind, "type.field_instruction", "instruction"),)
        case (None | "", str() as kind):
            return _of_rows(dataset, kind)
    return ()


def _of_rows(dataset: Mapping[str, Any], kind: str) -> tuple[Column, ...]:
    if kind == "chat_template":
        return (("field_messages", messages_column(dataset)),)
    if kind == "completion":
        return (_named(dataset, "field", "text"),)
    if kind.startswith("bradley_terry.chat_template"):
        return _fixed("system", "input", *_CHOICES)
    return _fixed(*INSTRUCTIONS.get(kind.split(":")[0], ()))


def _of_pairs(dataset: Mapping[str, Any], kind: object) -> tuple[Column, ...]:
    chosen, rejected = (_named(dataset, f"field_{name}", name) for name in _CHOICES)
    match kind:
        case Mapping():
            return tuple(_named(kind, f"type.field_{name}", name) for name in ("prompt", *_CHOICES))
        case "chat_template" | "chat_template.default":
            return ("field_messages", messages_column(dataset)), chosen, rejected
        case "chat_template.argilla_chat":
            return chosen, rejected
        case None | "":
            return _fixed("prompt", *_CHOICES)
    return _fixed(*PAIRS.get(str(kind), ()))


def _of_judged(kind: object) -> tuple[Column, ...]:
    match kind:
        case Mapping():
            return tuple(_named(kind, f"type.field_{name}", name) for name in ("prompt", "completion", "label"))
        case None | "":
            return _fixed("prompt", "completion", "label")
    return _fixed(*JUDGED.get(str(kind), ()))


def _fixed(*columns: str) -> tuple[Column, ...]:
    return tuple(("type", name) for name in columns)


def _named(where: Mapping[str, Any], key: str, otherwise: str) -> Column:
    return key, str(where.get(key.rpartition(".")[2]) or otherwise)
