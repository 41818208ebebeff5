"""The good configs, and the files that they read, written to a folder that represents a user's own.

Each is a complete Axolotl 0.21 config that its schema accepts for eight H100s (test_good_configs.py checks this). What
they read from the hub is only named; what they read from disk is created here.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from runner.config.fields import axolotl_fields
from runner.config.shipped import shipped_root
from runner.keys.identity import is_address

HERE = Path(__file__).resolve().parent
FILES = tuple(sorted(HERE.glob("*.yml")))
NAMES = tuple(file.stem for file in FILES)
ROWS = 600


def lay_out(folder: Path, configs: Sequence[Path] = FILES) -> Path:
    """The configs, and what they read, in `folder`; their relative paths are valid if it is the working directory."""
    for file in configs:
        shutil.copy(file, folder)
    (folder / "tiny").symlink_to(shipped_root() / "tiny")
    for name in ("data", "templates", "deepspeed_configs"):
        (folder / name).mkdir()
    for name, row in _JSON_ROWS.items():
        lines = [json.dumps({key: _numbered(value, number) for key, value in row.items()}) for number in range(ROWS)]
        (folder / "data" / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (folder / "data" / "tickets.csv").open("w", encoding="utf-8", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["system", "ticket", "context", "answer"])
        rows.writerows([["Be brief.", f"Ticket {number}", "", f"Answer {number}"] for number in range(ROWS)])
    (folder / "data" / "notes.txt").write_text("".join(f"Note {number}.\n" for number in range(ROWS)))
    (folder / "data" / "picture.ppm").write_bytes(b"P6 1 1 255\n\xff\0\0")
    (folder / "templates" / "support.jinja").write_text(
        "{% for message in messages %}{{ message.content }}{% endfor %}"
    )
    zero2 = {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}, "train_batch_size": "auto"}
    (folder / "deepspeed_configs" / "zero2.json").write_text(json.dumps(zero2))
    (folder / "rewards.py").write_text(_REWARDS)
    return folder


def as_axolotl_reads(file: Path) -> dict[str, Any]:
    """The config as `axolotl train` loads it, before its schema."""
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


def as_a_run_has_it(config: Mapping[str, Any]) -> dict[str, Any]:
    """The expected result for a config as `axolotl train` loads it: without addresses and without empty keys that
    Axolotl does not have, with a seed and with numbers."""
    known = axolotl_fields().everywhere
    kept = {
        key: _with_numbers(value)
        for key, value in config.items()
        if not is_address(key) and (key in known or value not in (None, "", [], {}))
    }
    return kept | {"seed": 42 if kept.get("seed") is None else kept["seed"]}


def _with_numbers(value: Any) -> Any:
    """Converts 2e-5, which is text in YAML 1.1, to a number wherever these configs have it."""
    match value:
        case str() if re.fullmatch(r"\d+(\.\d+)?[eE]-\d+", value):
            return float(value)
        case dict():
            return {key: _with_numbers(one) for key, one in value.items()}
        case list():
            return [_with_numbers(one) for one in value]
        case _:
            return value


def _numbered(value: Any, number: int) -> Any:
    """Rows that differ, so that none is a duplicate."""
    match value:
        case str():
            return value.replace("#", str(number))
        case list():
            return [_numbered(item, number) for item in value]
        case dict():
            return {key: _numbered(item, number) for key, item in value.items()}
        case _:
            return value


_REWARDS = """\
def is_short(prompts, completions, **_):
    return [float(len(str(one)) < 200) for one in completions]


def is_correct(prompts, completions, answer, **_):
    return [float(one in str(each)) for one, each in zip(answer, completions)]


def to_prompt(cfg, **_):
    return lambda row: {"prompt": row["question"], "answer": row["answer"]}
"""
_CHAT = [{"role": "user", "content": "Question #?"}, {"role": "assistant", "content": "Answer #."}]
_SEGMENTS = [{"label": False, "text": "Question #? "}, {"label": True, "text": "Answer #."}]
_PICTURE = [
    {"role": "user", "content": [{"type": "image", "path": "data/picture.ppm"}, {"type": "text", "text": "Which?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "Picture #."}]},
]
_JSON_ROWS: dict[str, dict[str, Any]] = {
    "support": {"messages": _CHAT},
    "more-support": {"messages": _CHAT},
    "preferences": {"question": "Question #?", "system": "Be brief.", "good": "Answer #.", "bad": "No."},
    "preferences-held-out": {"question": "Held out #?", "system": "Be brief.", "good": "Answer #.", "bad": "No."},
    "kto": {"prompt": "Question #?", "completion": "Answer #.", "label": True},
    "articles": {"body": "Article # is about the number #."},
    "more-articles": {"body": "Another article, #, is about something else."},
    "segments": {"segments": _SEGMENTS},
    "segments-held-out": {"segments": [{"label": False, "text": "Held out #? "}, {"label": True, "text": "Answer #."}]},
    "reasoning": {"messages": [_CHAT[0], {**_CHAT[1], "thoughts": "It is #."}]},
    "tools": {"messages": _CHAT, "tools": [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]},
    "pictures": {"messages": _PICTURE},
}
