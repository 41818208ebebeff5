"""Which prompts are the questions of held-out rows: only those for which this is certain, whatever the template."""

from __future__ import annotations

from typing import Any

import pytest

from modal_app.held_out.held_out import SHOWN_CHARACTERS, Segment
from runner.files.held_out_answers import is_question_of
from runner.verdict.where import MovedRow


def row(*texts: str) -> MovedRow:
    """Every second text is trained."""
    text = tuple(Segment(one, bool(at % 2)) for at, one in enumerate(texts))
    return MovedRow("0" * 16, None, 10, 2, (1.0, 2.0), 2.0, text)


def prompt(*contents: str, answer: str | None = None) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": one} for one in contents]} | (
        {} if answer is None else {"answer": answer}
    )


CHATML = row("<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n", "Ann.<|im_end|>", "\n")
TURNS = row("<|user|>Who?<|end|><|assistant|>", "Ann.<|end|>", "<|user|>And why?<|end|><|assistant|>", "So.<|end|>")


@pytest.mark.parametrize(
    ("asked", "of"),
    [
        (prompt("Who?"), CHATML),
        (prompt("Who?", answer="Ann."), CHATML),
        (prompt("Who?"), row("<bos><|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|>", "Ann.")),
        (prompt("Who?"), row("<s>[INST] Who? [/INST]", " Ann.</s>")),
        (
            prompt("Who?", answer="Ann."),
            row("Below is a task.\n\n### Instruction:\nWho?\n\n### Response:\n", "Ann.</s>"),
        ),
        (prompt("Be short.", "Who?"), row("<|system|>Be short.<|end|><|user|>Who?<|end|><|assistant|>", "Ann.")),
        (prompt("Who?", "Ann.", "And why?", answer="So."), TURNS),
    ],
)
def test_a_rows_question_is_found_in_the_text_that_a_template_makes_of_it(asked: dict[str, Any], of: MovedRow) -> None:
    assert is_question_of(of, asked)


@pytest.mark.parametrize(
    ("asked", "of"),
    [
        (prompt("Who?"), row("<|user|>Please say: Who?<|end|><|assistant|>", "Ann.")),
        (prompt("Who"), row("<|user|>Who?<|end|><|assistant|>", "Ann.")),
        (prompt("Who?", answer="An"), CHATML),
        (prompt("Who?", answer="Bob."), CHATML),
        (prompt("Who?"), TURNS),
        (prompt("And why?"), TURNS),
        (prompt("Who?"), row("<|system|>Be short.<|end|><|user|>Who?<|end|><|assistant|>", "Ann.")),
        (prompt("Who?", answer="So."), row("<|user|>Who?<|end|><|user|>And why?<|end|>", "So.")),
        (prompt("Be short.", "Who?"), CHATML),
        (prompt("And why?", "Who?"), row("<|user|>Who?<|end|><|user|>And why?<|end|>", "Ann.")),
        (prompt("Who?"), row("<|user|>Who?")),
        (prompt("Who?"), row("", "Who?")),
        (prompt("Who?"), row("<|user|>" + "x" * (SHOWN_CHARACTERS - 13) + "\nWho?", "Ann.")),
        (prompt(""), CHATML),
    ],
    ids=[
        "part", "part of a word", "answer's beginning", "answer", "earlier turn", "later turn", "system",
        "not the last", "missing", "order", "no answer", "text alone", "cut", "empty",
    ],
)  # fmt: skip
def test_where_it_is_not_certain_a_prompt_is_not_the_rows_question(asked: dict[str, Any], of: MovedRow) -> None:
    assert not is_question_of(of, asked)
