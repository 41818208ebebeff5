"""Reads prompts from the command line, a file or a pipe: conversations, some with their right answers.

A text file has one prompt per line. A JSON Lines file has {"prompt"} or {"messages"} in each line; the right answer is
"answer", or the assistant's message at the end of "messages".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.step import write_atomically
from runner.errors import SweepError

STDIN = "-"
ROLES = ("system", "user", "assistant")
EXPECTED = (
    'expected {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}, with the right answer, if there '
    'is one, as "answer" or as the last message'
)
SURROGATE = re.compile("[\ud800-\udfff]")
"""In a command line, bytes that are not UTF-8; in JSON, halves of a surrogate pair."""
SHOWN = 60
"""The most characters of a line that an error message quotes."""
CHARACTERS_A_TOKEN = 100
"""More than the average token of any text has. A prompt with more characters per token of the context is too long."""


@dataclass(frozen=True, slots=True)
class Prompt:
    messages: tuple[Mapping[str, str], ...]
    """{"role", "content"}; the last is the user's."""
    answer: str | None = None
    """The only right answer, where there is one."""

    @property
    def text(self) -> str:
        """The last message."""
        return self.messages[-1]["content"]

    @property
    def characters(self) -> int:
        return sum(len(message["content"]) for message in self.messages)

    def row(self) -> dict[str, Any]:
        """Its line in the file that a step reads."""
        return {"messages": [dict(one) for one in self.messages]} | (
            {} if self.answer is None else {"answer": self.answer}
        )


def prompts_of(texts: Sequence[str], file: str | None, piped: bytes, system: str | None) -> list[Prompt]:
    """The prompts of a command line: `texts`, then those of `file` (for `-`, those of `piped`, from standard input).

    Prompts without a system message get `system`. Raises SweepError for a line that cannot be read (with its number),
    for an empty prompt, and when there is no prompt.
    """
    found = [Prompt(({"role": "user", "content": text},)) for text in texts]
    if file is not None:
        name = "standard input" if file == STDIN else file
        text = _decoded(piped if file == STDIN else _read(file), name)
        as_json = _is_json(file, text)
        if not as_json and _is_row(text):
            raise SweepError(
                f"{name} looks like JSON Lines, but has the name of a text file, where each line is a prompt. Rename "
                "it to .jsonl, or pipe it: --prompts - < FILE."
            )
        found += _in_text(text, name, as_json=as_json)
        if not found:
            raise SweepError(f"There is no prompt in {name}: all its lines are empty.")
    if not found:
        raise SweepError('There is no prompt. Give --prompt "..." or --prompts FILE, one per line; - means stdin.')
    found = [_with_system(prompt, system) for prompt in found]
    for number, prompt in enumerate(found, 1):
        if not prompt.text.strip():
            raise SweepError(f"Prompt {number} is empty.")
        if any(SURROGATE.search(message["content"]) for message in prompt.messages):
            raise SweepError(f"Prompt {number} is not valid text: it has half a character. It must be UTF-8.")
    return found


def refuse_too_long(prompts: Sequence[Prompt], context: int | None, where: str) -> None:
    """SweepError for a prompt that certainly exceeds `context` tokens; None if the model's context is unknown."""
    for number, prompt in enumerate(prompts, 1):
        if context is not None and prompt.characters > CHARACTERS_A_TOKEN * context:
            raise SweepError(
                f"Prompt {number} has {prompt.characters:,} characters, but {where} reads at most {context:,} tokens, "
                "prompt and answer together. Shorten it."
            )


def keep_prompts(store: Store, prompts: Sequence[Prompt]) -> str:
    """Store them, named by their content; returns the path below the store's root."""
    text = "".join(json.dumps(prompt.row(), sort_keys=True) + "\n" for prompt in prompts)
    name = f"{store.inputs.name}/{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
    path = store.root / name
    if not path.exists() or path.read_bytes() != text.encode():  # damaged
        store.inputs.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    return name


def _read(file: str) -> bytes:
    try:
        return Path(file).expanduser().read_bytes()
    except OSError as error:
        raise SweepError(f"--prompts {file} cannot be read: {error.strerror}.") from error


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SweepError(f"{name} is not UTF-8 text: {error.reason} at byte {error.start:,}.") from error


def _is_json(file: str, text: str) -> bool:
    return text.lstrip().startswith("{") if file == STDIN else file.endswith((".jsonl", ".json", ".ndjson"))


def _is_row(text: str) -> bool:
    """Whether the first line is a JSON object, which is not a likely prompt."""
    try:
        return isinstance(json.loads(text.lstrip().partition("\n")[0]), dict)
    except ValueError:
        return False


def _in_text(text: str, name: str, *, as_json: bool) -> Iterator[Prompt]:
    for number, line in enumerate(text.split("\n"), 1):  # only "\n": JSON text may contain other line ends
        if line.strip():
            yield (
                _in_row(line, f"{name}, line {number}")
                if as_json
                else Prompt(({"role": "user", "content": line.strip()},))
            )


def _in_row(line: str, where: str) -> Prompt:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise SweepError(f"{where} is not JSON: {error}. Seen: {_short(line)}") from error
    match row:
        case {"messages": [*messages]} if messages and all(map(_is_message, messages)):
            prompt, answer = _split([{name: one[name] for name in ("role", "content")} for one in messages])
        case {"prompt": str(text)}:
            prompt, answer = [{"role": "user", "content": text}], None
        case _:
            raise SweepError(f"{where}: {EXPECTED}. Seen: {_short(line)}")
    answer = row.get("answer", answer)
    if not prompt or prompt[-1]["role"] != "user" or not (answer is None or isinstance(answer, str)):
        raise SweepError(f"{where}: {EXPECTED}. Seen: {_short(line)}")
    return Prompt(tuple(prompt), answer)


def _split(messages: list[dict[str, str]]) -> tuple[list[dict[str, str]], str | None]:
    """The conversation up to the user's last message, and the right answer if there is one."""
    *prompt, last = messages
    return (prompt, last["content"]) if last["role"] == "assistant" else (messages, None)


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and value.get("role") in ROLES and isinstance(value.get("content"), str)


def _with_system(prompt: Prompt, system: str | None) -> Prompt:
    if system is None or prompt.messages[0]["role"] == "system":
        return prompt
    return Prompt(({"role": "system", "content": system}, *prompt.messages), prompt.answer)


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
