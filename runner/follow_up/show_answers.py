"""Prints answers for people, side by side where there is room, and for --json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.console import terminal
from runner.console.print_json import print_json
from runner.files.answers import AnswerSet, Column, answer_set, question

MOST_SHOWN = 20
"""The most prompts on a terminal; a pipe gets all."""
LONGEST_QUESTION = 60
MARGIN = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered to a prompt."""

    run: str
    """`base` for a base model."""
    name: str
    merged: bool
    """Whether the merged model was asked."""
    prompt: str
    output: str
    cut: bool
    """Whether --max-tokens ended it."""
    messages: tuple[Mapping[str, Any], ...] | None
    """The conversation, if the prompt has several messages."""
    answer: str | None
    """The right answer, if the prompt has one."""
    exact: bool | None
    """Whether the output is the right answer."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What `infer --json` prints."""

    answers: tuple[Answer, ...]


def show_answers(columns: Sequence[Column], *, as_json: bool) -> None:
    """Print results to stdout. A single answer is printed without a table."""
    if as_json:
        print_json(Answers(tuple(row for column in columns for row in _answers(column))))
        return
    if not columns:
        return
    found, console = answer_set(columns), terminal.results()
    if len(columns) == 1 and len(found.prompts) == 1:
        terminal.write(f"{columns[0].rows[0]['output']}\n")
    else:
        _show(found, console)
    if cut := sum(column.cut for column in columns):
        answers = f"{cut} answers were" if cut > 1 else "1 answer was"
        terminal.message(f"{answers} cut short: --max-tokens N allows more.")


def scores(columns: Sequence[Column]) -> Table:
    """How many answers are exactly right, of those that have a right answer."""
    table = Table(box=None, pad_edge=False)
    for heading, justify in (("run", "left"), ("", "left"), ("exact", "right"), ("of", "right"), ("", "right")):
        table.add_column(heading, justify="right" if justify == "right" else "left", no_wrap=heading == "run")
    for one in columns:
        share = f"{100 * one.exact / one.judged:.1f} %" if one.judged else ""
        table.add_row(one.heading, Text(one.name), str(one.exact), str(one.judged), share)
    return table


def _show(found: AnswerSet, console: Console) -> None:
    shown = found.prompts[:MOST_SHOWN] if console.is_terminal else found.prompts
    table = _table(found, len(shown))
    if table is not None and _width(table) <= console.width:
        console.print(table, crop=False)
    else:
        _show_blocks(found, len(shown), console)
    if len(found.prompts) > len(shown):
        left_out = len(found.prompts) - len(shown)
        terminal.say(console, f"... and {left_out} more prompts: --json and `axosweep report` have all.")
    if found.judged:
        console.print()
        console.print(scores(found.columns), crop=False)


def _table(found: AnswerSet, shown: int) -> Table | None:
    """A row per prompt, a column per model; None where an answer has several lines."""
    if any("\n" in row["output"] for column in found.columns for row in column.rows[:shown]):
        return None
    table = Table(box=None, pad_edge=False)
    for heading in ("prompt", *(["right"] if found.judged else []), *map(_heading, found.columns)):
        table.add_column(Text(heading), no_wrap=True)
    for index, row in enumerate(found.prompts[:shown]):
        right = [Text(str(row.get("answer", "")))] if found.judged else []
        cells = [_cell(column.rows[index]) for column in found.columns]
        table.add_row(Text(_short(question(row))), *right, *cells)
    return table


def _show_blocks(found: AnswerSet, shown: int, console: Console) -> None:
    widest = max(len(column.heading) for column in found.columns)
    alone = len(found.columns) == 1
    for index, row in enumerate(found.prompts[:shown]):
        terminal.say(console, f"{'' if index == 0 else chr(10)}> {question(row)}", style="bold")
        if "answer" in row:
            terminal.say(console, f"{'right':<{widest}}  {row['answer']}" if not alone else f"right: {row['answer']}")
        for column in found.columns:
            answer = _cell(column.rows[index])
            text = answer if alone else Text(f"{column.heading:<{widest}}  ") + answer
            console.print(text, soft_wrap=True)


def _cell(row: Mapping[str, Any]) -> Text:
    style = ("green" if row["exact"] else "red") if "exact" in row else ""
    return Text(str(row["output"]), style=style)


def _heading(column: Column) -> str:
    return "\n".join(filter(None, (column.heading, column.name)))


def _width(table: Table) -> int:
    """The columns of the terminal that it needs."""
    return sum(
        max(
            max(cell_len(line) for line in str(column.header).split("\n")),
            *(cell_len(str(cell)) for cell in column.cells),
        )
        + MARGIN
        for column in table.columns
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_QUESTION else f"{line[: LONGEST_QUESTION - 1]}…"


def _answers(column: Column) -> Iterator[Answer]:
    for row in column.rows:
        yield Answer(
            run=column.run,
            name=column.name,
            merged=column.merged,
            prompt=question(row),
            output=row["output"],
            cut=row["cut"],
            messages=tuple(row["messages"]) if len(row["messages"]) > 1 else None,
            answer=row.get("answer"),
            exact=row.get("exact"),
        )
