"""What is asked of a model: prompts from the command line, a file or a pipe -> conversations, with the right answers
where there are some.

A text file has a prompt a line. A JSON Lines file has {"prompt"} or {"messages"} a line; its right answer is "answer",
or the assistant's message at the end of "messages".
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
"""What a command line has for bytes that are no UTF-8, and JSON for halves of a pair."""
SHOWN = 60
"""Characters of what was seen, in an error."""
CHARACTERS_A_TOKEN = 100
"""More than any text's tokens have on average: a prompt with more of them for each token of the context is too long."""


@dataclass(frozen=True, slots=True)
class Prompt:
    messages: tuple[Mapping[str, str], ...]
    """{"role", "content"}; the last is the user's."""
    answer: str | None = None
    """The one right answer, where there is one."""

    @property
    def text(self) -> str:
        """What the user says last."""
        return self.messages[-1]["content"]

    @property
    def characters(self) -> int:
        return sum(len(message["content"]) for message in self.messages)

    def row(self) -> dict[str, Any]:
        """As a line of the file that a step reads."""
        return {"messages": [dict(one) for one in self.messages]} | (
            {} if self.answer is None else {"answer": self.answer}
        )


def prompts_of(texts: Sequence[str], file: str | None, piped: bytes, system: str | None) -> list[Prompt]:
    """The prompts of a command line: `texts`, then those of `file` (for `-` those of `piped`, from standard input).

    `system` goes ahead of those without a system message of their own. Raises SweepError for what cannot be read, with
    the line's number, for an empty prompt, and when there is none at all.
    """
    found = [Prompt(({"role": "user", "content": text},)) for text in texts]
    if file is not None:
        name = "standard input" if file == STDIN else file
        text = _decoded(piped if file == STDIN else _read(file), name)
        as_json = _is_json(file, text)
        if not as_json and _is_row(text):
            raise SweepError(
                f"{name} looks like JSON Lines, and its name says text, of which each line would be asked as it is. "
                "Rename it to .jsonl, or pipe it: --prompts - < FILE."
            )
        found += _in_text(text, name, as_json=as_json)
        if not found:
            raise SweepError(f"There is no prompt in {name}: it has no line that is not empty.")
    if not found:
        raise SweepError('Nothing to ask: --prompt "...", or --prompts FILE with a prompt a line; - is standard input.')
    found = [_with_system(prompt, system) for prompt in found]
    for number, prompt in enumerate(found, 1):
        if not prompt.text.strip():
            raise SweepError(f"Prompt {number} is empty.")
        if any(SURROGATE.search(message["content"]) for message in prompt.messages):
            raise SweepError(f"Prompt {number} is no text: it holds half a character. It has to be UTF-8.")
    return found


def refuse_too_long(prompts: Sequence[Prompt], context: int | None, where: str) -> None:
    """SweepError for a prompt that certainly does not fit a model of `context` tokens; None where nobody knows."""
    for number, prompt in enumerate(prompts, 1):
        if context is not None and prompt.characters > CHARACTERS_A_TOKEN * context:
            raise SweepError(
                f"Prompt {number} has {prompt.characters:,} characters, and {where} reads {context:,} tokens at most, "
                "prompt and answer together. Shorten it."
            )


def keep_prompts(store: Store, prompts: Sequence[Prompt]) -> str:
    """Put them into the store by their content; returns the path below its root."""
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
        raise SweepError(f"{name} is no UTF-8 text: {error.reason} at byte {error.start:,}.") from error


def _is_json(file: str, text: str) -> bool:
    return text.lstrip().startswith("{") if file == STDIN else file.endswith((".jsonl", ".json", ".ndjson"))


def _is_row(text: str) -> bool:
    """Whether the first line is a JSON object: nobody asks a model that."""
    try:
        return isinstance(json.loads(text.lstrip().partition("\n")[0]), dict)
    except ValueError:
        return False


def _in_text(text: str, name: str, *, as_json: bool) -> Iterator[Prompt]:
    for number, line in enumerate(text.split("\n"), 1):  # no other line end: JSON text may hold those
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
        raise SweepError(f"{where} is no JSON: {error}. Seen: {_short(line)}") from error
    match row:
        case {"messages": [*messages]} if messages and all(map(_is_message, messages)):
            asked, answer = _split([{name: one[name] for name in ("role", "content")} for one in messages])
        case {"prompt": str(text)}:
            asked, answer = [{"role": "user", "content": text}], None
        case _:
            raise SweepError(f"{where}: {EXPECTED}. Seen: {_short(line)}")
    answer = row.get("answer", answer)
    if not asked or asked[-1]["role"] != "user" or not (answer is None or isinstance(answer, str)):
        raise SweepError(f"{where}: {EXPECTED}. Seen: {_short(line)}")
    return Prompt(tuple(asked), answer)


def _split(messages: list[dict[str, str]]) -> tuple[list[dict[str, str]], str | None]:
    """The conversation up to the last question, and its right answer if it has one."""
    *asked, last = messages
    return (asked, last["content"]) if last["role"] == "assistant" else (messages, None)


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and value.get("role") in ROLES and isinstance(value.get("content"), str)


def _with_system(prompt: Prompt, system: str | None) -> Prompt:
    if system is None or prompt.messages[0]["role"] == "system":
        return prompt
    return Prompt(({"role": "system", "content": system}, *prompt.messages), prompt.answer)


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
