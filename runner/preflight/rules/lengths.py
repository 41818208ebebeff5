"""Rules about rows that are longer than `sequence_len`, or shorter than `min_sample_len`, by any tokenizer."""

from __future__ import annotations

from collections.abc import Iterator

from modal_app.store.own_data import own_data_of
from runner.preflight.findings import Finding, error, warning
from runner.preflight.row_words import words_in_rows
from runner.preflight.rules.run_facts import ListedDataset, RunFacts

CONFIG = "https://docs.axolotl.ai/docs/config-reference.html"
FILTER = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/utils/data/utils.py"
MANY_DROPPED = 0.3
LONGEST_TOKENS = 4
"""Tokens of a character, at most: its bytes."""
AROUND_A_MESSAGE = 64
AROUND_ALL = 600
"""Tokens that a template adds, at most."""


def length_that_drops_rows(run: RunFacts) -> Iterator[Finding]:
    """Rows of a local file have more words than `sequence_len` has tokens: Axolotl drops them, all or many."""
    length, strategy = run.number("sequence_len"), str(run.axolotl.get("excess_length_strategy") or "drop").lower()
    if run.axolotl.get("rl") or own_data_of(run.axolotl) or not length or strategy not in ("drop", "raise"):
        return
    if run.axolotl.get("chat_template_jinja") or run.axolotl.get("chat_template") == "jinja":
        return  # it may leave out anything
    dropped = sum(_rows_of_more_words(one, length) for one in run.training)
    counts = [one.rows.count if one.rows else None for one in run.training]
    rows = sum(one for one in counts if one is not None)
    value = run.axolotl["sequence_len"]
    if strategy == "raise" and dropped:
        raised = f"{dropped} rows have more words than that, and excess_length_strategy=raise ends the run at the first"
        yield error("sequence_len", value, raised, "Make it larger, or write excess_length_strategy=drop.", FILTER)
    elif dropped and dropped == rows and None not in counts:
        none = f"each of the {rows} rows has more words than that, so all are dropped and no row is left"
        yield error("sequence_len", value, none, "Make it larger, or write excess_length_strategy=truncate.", FILTER)
    elif None not in counts and dropped >= MANY_DROPPED * rows > 0:
        yield warning(
            "sequence_len",
            value,
            f"at least {dropped} of the {rows} rows have more words than that and are dropped: the run never sees them",
            "Make it larger, or write excess_length_strategy=truncate.",
            FILTER,
        )


def shortest_row_that_no_row_reaches(run: RunFacts) -> Iterator[Finding]:
    """`min_sample_len` drops every row: it is larger than `sequence_len`, or than the longest row."""
    least, length = run.number("min_sample_len"), run.number("sequence_len")
    if run.axolotl.get("rl") or own_data_of(run.axolotl) or not least or not length:
        return
    if least > length and str(run.axolotl.get("excess_length_strategy") or "drop").lower() != "truncate":
        above = f"rows of more than sequence_len={length:.0f} tokens are dropped, and so are all shorter ones"
        yield error("min_sample_len", run.axolotl["min_sample_len"], above, "Remove it.", CONFIG)
        return
    most = [_most_tokens(one) for one in run.training]
    known = [one for one in most if one is not None]
    if known and len(known) == len(most) and max(known) < least:
        short = f"the longest row has {max(known)} tokens at most, so all rows are dropped"
        yield error("min_sample_len", run.axolotl["min_sample_len"], short, "Remove it.", CONFIG)


def _rows_of_more_words(one: ListedDataset, length: float) -> int:
    """How many rows have more words than that, in a dataset all of whose rows are used."""
    rows = one.rows
    own = one.entry.get("type") not in ("chat_template", "input_output") or one.entry.get("chat_template_jinja")
    if rows is None or own or rows.tokenized or one.taken != rows.count or rows.longest < 2 * length:
        return 0
    return sum(count for words, count in words_in_rows(one.entry).items() if words > length)


def _most_tokens(one: ListedDataset) -> int | None:
    """The most tokens that a row can have; None for a row that is not a conversation of texts."""
    rows = one.rows
    if rows is None or one.entry.get("type") != "chat_template" or rows.tokenized or rows.parts:
        return None
    if "tools" in rows.columns or set(rows.properties) & {"tool_calls", "reasoning_content"}:
        return None
    return rows.longest * LONGEST_TOKENS + rows.most_messages * AROUND_A_MESSAGE + AROUND_ALL


RULES = (length_that_drops_rows, shortest_row_that_no_row_reaches)
