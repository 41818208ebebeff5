"""What two runs answer to the questions of held-out rows, where `axosweep infer` has asked both. Only reads.

A prompt is a list of messages, and a row is the text that the chat template makes of one. A prompt is a row's question
if its messages are found in the row's text in this order, the last of them directly before the last answer, with
nothing around them but what a template writes. Where this is not certain, no answer is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from modal_app.held_out.held_out import SHOWN_CHARACTERS
from modal_app.store.layout import Store
from runner.console.redact import redact
from runner.files.answers import answer_sets
from runner.verdict.where import MovedRow, Where

LONGEST = SHOWN_CHARACTERS
_TOKENS = re.compile(r"<[^<>]*>|\[[^\[\]]*\]")
_ROLES = frozenset(("system", "user", "human", "instruction", "assistant", "model", "gpt", "response", "answer"))
"""What a template writes besides tokens of its own."""
_BEFORE = re.compile(r"(?:^|[\n>\])}|])[ \t]*$")
"""A template ends a line or a token of its own before a message."""
_AFTER = re.compile(r"^[ \t]*(?:$|[\n<\[({|])")


def with_answers(found: Where, store: Store, first: str, second: str) -> Where:
    """The same with the answers of the two runs (keys) to the rows that moved most. Of several sets of answers, the
    largest and newest counts."""
    both_answered = list(_answers_of_both(store, first, second))
    if not both_answered:
        return found

    def answered(row: MovedRow) -> MovedRow:
        fits = (one for one in both_answered if is_question_of(row, one[0]))
        both = max(fits, key=lambda one: sum(len(message["content"]) for message in one[0]["messages"]), default=None)
        if both is None:
            return row
        return replace(row, answers=(redact(both[1])[:LONGEST], redact(both[2])[:LONGEST]))

    better, worse = (tuple(map(answered, rows)) for rows in (found.better, found.worse))
    return replace(found, better=better, worse=worse)


def is_question_of(row: MovedRow, prompt: Mapping[str, Any]) -> bool:
    """`prompt`: messages, and the right answer if there is one."""
    trained = [at for at, one in enumerate(row.text) if one.trained]
    if not trained or trained[-1] == 0:
        return False
    before, answer = row.text[: trained[-1]], row.text[trained[-1]]
    if before[-1].trained or len(before[-1].text) >= SHOWN_CHARACTERS:
        return False
    right, messages = prompt.get("answer"), [str(one["content"]).strip() for one in prompt["messages"]]
    if right is not None and not _begins_with(answer.text, redact(str(right)).strip()):
        return False
    *earlier, last = map(redact, messages)
    head, _, tail = before[-1].text.rpartition(last) if last else ("", "", "")
    if not (head and _BEFORE.search(head) and _AFTER.match(tail) and _is_template(tail)):
        return False
    rest = _without("".join(one.text for one in before[:-1]) + head, earlier)
    return rest is not None and (right is not None or _is_template(rest))


def _is_template(text: str) -> bool:
    """Whether nothing is there but what chat templates write: a preamble of theirs does not count."""
    return set(re.findall(r"\w+", _TOKENS.sub(" ", text).lower())) <= _ROLES


def _begins_with(text: str, right: str) -> bool:
    text = text.lstrip()
    return text.startswith(right) and _AFTER.match(text[len(right) :]) is not None


def _without(text: str, messages: Sequence[str]) -> str | None:
    """What is left of the text without these messages, each behind the one before it; None if one is missing."""
    left, at = "", 0
    for one in messages:
        found = text.find(one, at)
        if found < 0:
            return None
        left, at = left + text[at:found], found + len(one)
    return left + text[at:]


def _answers_of_both(store: Store, first: str, second: str) -> Iterable[tuple[Mapping[str, Any], str, str]]:
    """Each prompt with the two answers."""
    for one in answer_sets(store, {first: first, second: second}):
        columns = {column.run: column for column in one.columns if not column.merged}
        if first in columns and second in columns:
            rows = zip(one.prompts, columns[first].rows, columns[second].rows, strict=False)
            yield from ((prompt, str(ours["output"]), str(theirs["output"])) for prompt, ours, theirs in rows)
