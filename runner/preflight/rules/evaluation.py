"""Rules about the rows of an evaluation: too few to rank runs, too many to train on the rest, or rows of training."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from modal_app.store.own_data import own_data_of
from runner.console.numbers import counted
from runner.preflight.data import held_out_of, split_of, takes_a_part
from runner.preflight.findings import Finding, error, warning
from runner.preflight.rules.run_facts import ListedDataset, RunFacts, is_off
from runner.preflight.splits import rows_of_split
from runner.types import DatasetSize

SPLIT = "https://huggingface.co/docs/datasets/package_reference/main_classes#datasets.Dataset.train_test_split"
CONFIG = "https://docs.axolotl.ai/docs/config-reference.html"
NOISE = "https://arxiv.org/abs/2411.00640"
STEPS = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/utils/trainer.py"
"""calculate_total_num_steps reads cfg.total_num_tokens, which the evaluation's rows come before."""
LEAKS = "https://arxiv.org/abs/2311.04850"
A_HANDFUL = 10


def evaluations_without_rows(run: RunFacts) -> Iterator[Finding]:
    """Evaluations are requested, but no rows are held out for them, so runs cannot be ranked by eval loss."""
    triggers = [key for key in ("evals_per_epoch", "eval_steps") if run.axolotl.get(key)]
    has_rows = bool(run.axolotl.get("val_set_size")) or bool(run.axolotl.get("test_datasets"))
    # Rows without such a key are used: every run evaluates its first and its last state.
    if triggers and not has_rows and run.axolotl.get("eval_strategy") != "no":
        yield warning(
            triggers[0],
            run.axolotl[triggers[0]],
            "no rows are held out for evaluation, so the runs cannot be ranked by eval loss",
            "Set val_set_size=0.05.",
            CONFIG,
        )


def held_out_rows_that_cannot_be(run: RunFacts) -> Iterator[Finding]:
    """`val_set_size` leaves no row to train on, or is a number of rows where Axolotl accepts only a share below 1."""
    size = run.number("val_set_size") or 0
    if size <= 0 or run.testing or own_data_of(run.axolotl):
        return
    value = run.axolotl["val_set_size"]
    if size > 1 and run.axolotl.get("rl"):
        yield error("val_set_size", value, "with rl Axolotl reads it as a part, below 1", "Write 0.05.", SPLIT)
        return
    rows = _rows(run)
    if rows is not None and held_out_of(size, rows) >= rows:
        few = f"it holds out all {rows} rows, so none is left to train on"
        yield error("val_set_size", value, few, "Write val_set_size=0.05.", SPLIT)


def evaluation_of_a_handful_of_rows(run: RunFacts) -> Iterator[Finding]:
    """Fewer than 10 rows are held out: chance affects their loss more than the differences between the runs do."""
    size = run.number("val_set_size") or 0
    if run.testing:
        counts = [one.taken for one in run.testing]
        at, value, rows = "test_datasets", f"({len(counts)} listed)", _sum(counts)
    elif size > 0:
        all_rows = int(size * 2) if size > 1 else _rows(run, declared=True)
        at, value, rows = "val_set_size", run.axolotl["val_set_size"], all_rows and held_out_of(size, all_rows)
    else:
        return
    rows = run.prepared.eval_rows if rows is None else rows
    if rows is not None and rows < A_HANDFUL:
        yield warning(
            at,
            value,
            f"that is {counted(rows, 'row')} for evaluation; with so few, chance affects the loss "
            "more than the differences between the runs do, so it cannot rank them",
            "Hold out 50 rows or more.",
            NOISE,
        )


def most_rows_held_out(run: RunFacts) -> Iterator[Finding]:
    """More rows are held out for evaluation than are left to train on."""
    size, rows = run.number("val_set_size") or 0, _rows(run, declared=True)
    if run.testing or size <= 0:
        return
    if size < 1:
        most, left = size > 0.5, f"{1 - size:.0%} of the rows are left to train on"
    elif rows is not None:
        most, left = size * 2 > rows > size, f"{rows - int(size)} of {rows} rows are left to train on"
    else:
        return
    if most:
        yield warning(
            "val_set_size",
            run.axolotl["val_set_size"],
            f"{left}; every evaluation reads more rows than an epoch trains on",
            "Write val_set_size=0.05.",
            CONFIG,
        )


def evaluation_rows_that_are_trained_on(run: RunFacts) -> Iterator[Finding]:
    """Held-out rows are also trained on: their loss says how well the run remembers them."""
    trained = [one.rows.digests for one in run.training if one.rows and one.taken == one.rows.count]
    found: list[tuple[str, Any, int, int]] = []
    for one in run.testing:
        if one.rows is not None and one.taken == one.rows.count:
            both = max((_in_both(one.rows.digests, digests) for digests in trained), default=0)
            found.append((f"{one.at}.path", one.path, both, len(one.rows.digests)))
    known = run.prepared
    if not found and known.eval_rows and known.eval_rows_in_training:
        key = "test_datasets" if run.testing else "val_set_size"
        value = "(prepared)" if run.testing else run.axolotl.get("val_set_size")
        found.append((key, value, known.eval_rows_in_training, known.eval_rows))
    for at, value, both, rows in found:
        if both * 10 >= rows:
            yield warning(
                at,
                value,
                f"{both} of the {rows} rows for evaluation are trained on, too, so their loss falls as the run "
                "memorizes them",
                "Take copies of rows out of the dataset, or write dataset_exact_deduplication=true."
                if at == "val_set_size"
                else "Take them out of datasets, or hold out other rows with val_set_size.",
                LEAKS,
            )


def packed_evaluation_that_axolotl_cannot_count(run: RunFacts) -> Iterator[Finding]:
    """With sample_packing_eff_est, Axolotl counts packed held-out rows by a total of tokens that it does not know yet,
    and ends with a TypeError when the run begins."""
    config = run.axolotl
    held_out = config.get("val_set_size") or config.get("test_datasets")
    packed = config.get("sample_packing") and not is_off(config.get("eval_sample_packing"))
    estimated = config.get("sample_packing_eff_est") and not config.get("total_num_tokens")
    if estimated and packed and held_out and own_data_of(config) is None:
        yield error(
            "sample_packing_eff_est",
            config["sample_packing_eff_est"],
            "with it, Axolotl counts the batches of a packed evaluation by a number of tokens that it does not know "
            "yet, and ends with a TypeError when the run begins",
            "Remove it (~sample_packing_eff_est): Axolotl measures it. Or write eval_sample_packing=false.",
            STEPS,
        )


@functools.lru_cache(maxsize=64)  # the runs of a sweep share their files
def _in_both(some: frozenset[int], others: frozenset[int]) -> int:
    return len(some & others)


def _rows(run: RunFacts, *, declared: bool = False) -> int | None:
    """The rows of all datasets together, before some are held out; None while some are unknown. `declared`: some may be
    only declared, which is approximate."""
    counted = _sum([one.taken for one in run.training])
    if counted is not None or not declared:
        return counted
    return _sum([_declared(one, run.experiment.sizes) if one.taken is None else one.taken for one in run.training])


def _declared(one: ListedDataset, sizes: Mapping[str, DatasetSize]) -> int | None:
    size = sizes.get(one.path)
    return None if size is None or takes_a_part(one.entry) else rows_of_split(split_of(one.entry), size.rows)


def _sum(counts: list[int | None]) -> int | None:
    known = [one for one in counts if one is not None]
    return sum(known) if known and len(known) == len(counts) else None


RULES = (
    evaluations_without_rows,
    held_out_rows_that_cannot_be,
    evaluation_of_a_handful_of_rows,
    most_rows_held_out,
    evaluation_rows_that_are_trained_on,
    packed_evaluation_that_axolotl_cannot_count,
)
