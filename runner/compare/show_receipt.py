"""Print receipts: what the seconds of each run and each container were used for, and a sentence about all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from runner.compare.comparison import Comparison
from runner.compare.params import label
from runner.compare.ranking import Row
from runner.compare.table import Column, fitted, markdown, not_shown, table
from runner.console import terminal
from runner.cost.receipt import PARTS, QUEUE, TRAINING, ContainerReceipt, added, containers_line, training_share
from runner.cost.spent import money

NOTHING_YET = "None of these runs has begun, so no second was used."
NOT_COUNTED = "queue: waiting for a dataset, a free slot or a machine; it is not part of the other seconds."
DROPPED_FIRST = (
    "other", QUEUE, "prepare", "first step", "import", "load", "save", "copy", "evaluate", "idle",
)  # fmt: skip
"""Of the parts, where a terminal is narrow: what is paid, and why, stays."""


def show_receipt(result: Comparison, console: Console) -> None:
    """As tables for people."""
    dropped: dict[str, None] = {}
    for title, columns in _tables(result):
        shown, left_out = fitted(columns, console.width)
        dropped.update(dict.fromkeys(left_out))
        console.print()
        console.print(table(shown, title, [False] * len(columns[0].cells)), crop=False)
    if dropped:
        console.print(f"{not_shown(dropped)} Use a wider terminal or `--receipt --md` to see them.")
    for line in receipt_lines(result):
        terminal.say(console, line)


def receipt_markdown(result: Comparison) -> str:
    """The same as Markdown."""
    parts = [f"**{title}**\n\n{markdown(columns)}" for title, columns in _tables(result)]
    return "\n\n".join([*parts, *receipt_lines(result)])


def receipt_lines(result: Comparison) -> list[str]:
    """Sentences about all runs together."""
    receipts = [row.receipt for row in result.runs if row.receipt]
    paid, training = sum(one.seconds for one in receipts), training_share(receipts)
    if training is None:
        return [NOTHING_YET]
    parts = added(one.parts for one in receipts)
    others = {name: seconds for name, seconds in parts.items() if name not in (QUEUE, *TRAINING)}
    largest = sorted(others.items(), key=lambda pair: -pair[1])
    rest = ", ".join(f"{name} {seconds / paid:.0%}" for name, seconds in largest if seconds / paid >= 0.005)
    word = "paid seconds" if result.containers else "seconds of this machine"
    lines = [f"{training:.0%} of {_seconds(paid)} {word} was training{f'; {rest}' if rest else ''}."]
    lines += [containers_line(receipts, len(result.containers))] if result.containers else []
    return lines + ([NOT_COUNTED] if parts.get(QUEUE) else [])


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}"


def _tables(result: Comparison) -> list[tuple[str, list[Column]]]:
    begun = [row for row in result.runs if row.receipt]
    if not begun:
        return []
    tables = [("Seconds by run", _run_columns(begun))]
    if result.containers:
        tables.append(("Seconds by container", _container_columns(result.containers)))
    return tables


def _run_columns(rows: Sequence[Row]) -> list[Column]:
    receipts = [row.receipt for row in rows if row.receipt]
    return [
        Column("run", tuple(row.key for row in rows), left=True),
        *_if_any(Column("settings", tuple(label(row.params) for row in rows), drop=40, left=True, shrinks=True)),
        *_part_columns(
            "paid s" if any(one.containers for one in receipts) else "seconds",
            [(one.seconds, one.parts) for one in receipts],
        ),
        *_if_any(Column("dollars", tuple(_money(row.dollars) for row in rows))),
    ]


def _container_columns(containers: Sequence[ContainerReceipt]) -> list[Column]:
    return [
        Column("container", tuple(one.container for one in containers), left=True, shrinks=True),
        Column("runs", tuple(str(len(one.runs)) for one in containers)),
        *_part_columns("paid s", [(one.seconds, one.parts) for one in containers]),
        *_if_any(Column("dollars", tuple(_money(one.dollars) for one in containers))),
        *_if_any(Column("gpu", tuple(one.gpu or "" for one in containers), drop=26)),
        *_if_any(Column("ended because", tuple(one.ended_because for one in containers), left=True, shrinks=True)),
    ]


def _part_columns(heading: str, each: Sequence[tuple[float, Mapping[str, float]]]) -> list[Column]:
    present = [name for name in PARTS if any(name in parts for _, parts in each)]
    return [
        Column(heading, tuple(f"{paid:.1f}" for paid, _ in each)),
        *(
            Column(
                name,
                tuple(f"{parts[name]:.1f}" if name in parts else "" for _, parts in each),
                drop=20 + len(DROPPED_FIRST) - DROPPED_FIRST.index(name) if name in DROPPED_FIRST else 0,
            )
            for name in present
        ),
    ]


def _if_any(column: Column) -> list[Column]:
    return [column] if any(column.cells) else []


def _money(dollars: float | None) -> str:
    return "" if dollars is None else money(dollars)
