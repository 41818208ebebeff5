"""Rules about a prepared dataset: rows that were dropped, and rows without a token that the loss sees.

They are checked when the dataset has just been prepared, and in each plan from then on.
"""

from __future__ import annotations

from collections.abc import Iterator

from runner.cost.length import batch_of
from runner.preflight.findings import Finding, error, warning
from runner.preflight.rules.run_facts import RunFacts

CONFIG = "https://docs.axolotl.ai/docs/config-reference.html"
FILTER = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/utils/data/utils.py"
PACKING = "https://docs.axolotl.ai/docs/multipack.html"
CONVERSATIONS = "https://docs.axolotl.ai/docs/dataset-formats/conversation.html"
MANY_DROPPED = 0.3
LONG_ROWS = 50


def no_row_or_token_to_train(run: RunFacts) -> Iterator[Finding]:
    """A dataset that an earlier version of axosweep prepared has no row, or no token that is trained."""
    known, length = run.prepared, run.axolotl.get("sequence_len")
    if known.rows == 0:
        yield error("sequence_len", length, "no row of the prepared dataset is left", "Make it larger.", CONFIG)
    elif known.trained_tokens == 0:
        yield error(
            "datasets",
            "(prepared)",
            f"none of the {known.tokens} tokens is trained, so the loss of every step is NaN",
            "Check roles_to_train, the columns with answers, and whether the answers are empty.",
            CONFIG,
        )


def only_ends_of_turns_are_trained(run: RunFacts) -> Iterator[Finding]:
    """Only one or two different tokens are trained, such as the end of every turn: no answer is learned."""
    known = run.prepared
    if not known.rows or not known.tokens or not known.trained_tokens:
        return
    if known.distinct_trained_tokens is None:  # an older axosweep prepared it
        few = known.trained_tokens <= 2 * known.rows and known.tokens >= LONG_ROWS * known.rows
        which = f"{known.trained_tokens / known.rows:.1f} of {known.tokens / known.rows:.0f} tokens a row are trained"
    else:
        few = known.distinct_trained_tokens <= 2
        which = f"{known.trained_tokens} of {known.tokens} tokens are trained, and they are always the same"
    if few:
        yield warning(
            "datasets",
            "(prepared)",
            f"{which}, which may be only the ends of turns, so the run learns nothing else",
            "Look at them with `axosweep data`, and check roles_to_train and train_on_eos.",
            CONVERSATIONS,
        )


def rows_dropped_by_the_length(run: RunFacts) -> Iterator[Finding]:
    """A large part of the rows is longer than `sequence_len`, and was dropped when the dataset was prepared."""
    known = run.prepared
    if not known.rows or not known.dropped_rows:
        return
    given = known.rows + known.dropped_rows + (0 if run.testing else known.eval_rows or 0)
    if known.dropped_rows >= MANY_DROPPED * given:
        yield warning(
            "sequence_len",
            run.axolotl.get("sequence_len"),
            f"{known.dropped_rows} of {given} rows were dropped, since they are longer or have no trained token, so "
            "the run never sees them",
            "Write a larger sequence_len, or excess_length_strategy=truncate.",
            FILTER,
        )


def packed_batch_of_more_tokens_than_there_are(run: RunFacts) -> Iterator[Finding]:
    """A step of packed rows takes more tokens than the dataset has, so an epoch is one step with a batch half empty."""
    batch, tokens = batch_of(run.axolotl), run.prepared.tokens
    if not batch.packed or not tokens:
        return
    step = batch.micro * batch.accumulation * run.ranks * batch.sequence_len
    if tokens < step:
        yield warning(
            "micro_batch_size",
            run.axolotl.get("micro_batch_size", 1),
            f"with sample_packing a step takes {step} tokens (micro_batch_size x gradient_accumulation_steps x "
            f"{run.ranks} {'process' if run.ranks == 1 else 'processes'} x sequence_len) and the dataset has {tokens}, "
            "so an epoch is a single step",
            "Make the batch or sequence_len smaller, or rent fewer GPUs.",
            PACKING,
        )


RULES = (
    no_row_or_token_to_train,
    only_ends_of_turns_are_trained,
    rows_dropped_by_the_length,
    packed_batch_of_more_tokens_than_there_are,
)
