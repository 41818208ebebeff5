"""A preprocess step: Axolotl tokenizes; the result is read as a trainer will read it, counted and published."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from axolotl.cli.args import PreprocessCliArgs
from axolotl.cli.config import load_cfg
from axolotl.cli.preprocess import do_preprocess
from axolotl.common.datasets import load_datasets, load_preference_datasets
from axolotl.loaders import load_tokenizer
from axolotl.utils.data.shared import datasets_with_name_generator, load_dataset_with_config
from axolotl.utils.dict import DictDefault

from modal_app.patches.apply import cache_datasets_in, note_where_rows_are_from
from modal_app.process.attempt import BUILD, DATASETS_CACHE, stamp, write_yaml
from modal_app.process.bars import noted_bars
from modal_app.process.rank import Rank
from modal_app.steps.fingerprint import multiset_digest, row_digests
from modal_app.steps.pinned_inputs import pinned_inputs
from modal_app.steps.plugin import prepared_hashes, require_prepared
from modal_app.steps.row_origins import RowOrigins
from modal_app.steps.samples import samples
from modal_app.steps.trainable import missing_column, require_trainable, require_written_rows
from modal_app.store.layout import HELD_OUT, SAMPLES, Attempt, StepFolder, Store
from modal_app.store.manifest import listed_files
from modal_app.store.step import Step, write_atomically
from modal_app.store.verified import note_verified

A_HUNDRED = 100
PACKAGES = ("axolotl", "transformers", "datasets", "torch")


def preprocess(step: Step, store: Store, folder: StepFolder, attempt: Attempt, rank: Rank) -> dict[str, Any]:
    """Build the dataset of `step.data_key`, publish it, and return its manifest."""
    with pinned_inputs(step, store):
        manifest = _build(step, attempt, rank)
    _publish((attempt.path / BUILD).resolve(), folder.done, manifest)
    if not store.is_mounted:
        note_verified(store, step.data_key, manifest["files"])
    return manifest


def _build(step: Step, attempt: Attempt, rank: Rank) -> dict[str, Any]:
    """Write the rows and samples to `build/`; returns what is known of them."""
    began, started_at = time.monotonic(), time.time()
    write_yaml(attempt.config, stamp(step, dataset_prepared_path=BUILD, output_dir="model"))
    cache_datasets_in(attempt.path / DATASETS_CACHE)
    sys.argv = ["axolotl"]  # Axolotl parses it
    os.environ["AXOLOTL_IS_PREPROCESS"] = "1"
    cfg = load_cfg(attempt.config.name, is_preprocess=True)
    rank.clock.book("config")
    cfg.is_preprocess = True
    origins = RowOrigins.noted_in(attempt.path / DATASETS_CACHE / "cut-texts", cfg)
    try:
        # Axolotl processes the rows, and does not load the base model's weights. It prints no row with its labels: a
        # reward model's rows have none.
        with noted_bars(attempt.progress), note_where_rows_are_from(origins.note_dataset, origins.note_text):
            do_preprocess(cfg, PreprocessCliArgs(download=False, debug_num_examples=0))
    except KeyError as error:
        raise missing_column(error, [_columns(part, cfg) for part in cfg.datasets]) from error
    hashes = prepared_hashes(cfg)
    require_written_rows(attempt.path / BUILD, hashes, cfg)
    rank.clock.book("prepare")
    train, evaluation = _read_back(cfg)
    held_out = None if evaluation is None else row_digests(evaluation)
    counts = {"hashes": hashes} | _counts(cfg, train, evaluation) | _evaluation_facts(train, held_out)
    require_trainable(counts, cfg)
    tokenizer = load_tokenizer(cfg)
    shown = samples((("train", train), ("eval", evaluation)), tokenizer)
    write_atomically(attempt.path / BUILD / SAMPLES, json.dumps(shown, indent=1))
    if evaluation is not None and held_out is not None and {"input_ids", "labels"} <= set(evaluation.column_names):
        origins.held_out(evaluation, held_out, tokenizer).write(attempt.path / BUILD / HELD_OUT)
    seconds = time.monotonic() - began
    return counts | {
        "key": step.data_key,
        "attempt": attempt.number,
        "started_at": started_at,
        "finished_at": started_at + seconds,
        "seconds": round(seconds, 3),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _read_back(cfg: DictDefault) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Load what was written, exactly as a trainer will."""
    del os.environ["AXOLOTL_IS_PREPROCESS"]
    cfg.is_preprocess = False
    require_prepared(cfg)
    # Without this, Axolotl also computes the steps of the training, which needs settings of the trainer's machine.
    os.environ["AXOLOTL_IS_PREPROCESS"] = "1"
    load = load_preference_datasets if cfg.rl else load_datasets
    meta = load(cfg=cfg)
    return meta.train_dataset, meta.eval_dataset


def _counts(cfg: DictDefault, train: datasets.Dataset, evaluation: datasets.Dataset | None) -> dict[str, Any]:
    tokens, trained, distinct = _count_tokens(train)
    rows, eval_rows = len(train), len(evaluation) if evaluation is not None else 0
    given = _given_rows(cfg)
    remaining = rows + (0 if cfg.test_datasets else eval_rows)
    return {
        "rows": rows,
        "eval_rows": eval_rows,
        "tokens": tokens,
        "trained_tokens": trained,
        "distinct_trained_tokens": distinct,
        "longest_row": _longest([split for split in (train, evaluation) if split is not None]),
        "given_rows": given,
        "dropped_rows": None if given is None else given - remaining,
    }


def _count_tokens(rows: datasets.Dataset) -> tuple[int | None, int | None, int | None]:
    """All tokens, those that the loss sees, and how many different ones these are, counted up to a hundred or so; None
    for data without them (preference pairs)."""
    if not {"input_ids", "labels"} <= set(rows.column_names):
        return None, None, None
    tokens = trained = 0
    distinct: set[int] = set()
    for table in rows.select_columns(["input_ids", "labels"]).with_format("arrow").iter(batch_size=10_000):
        labels = pc.list_flatten(table["labels"])
        tokens += _sum(pc.list_value_length(table["input_ids"]))
        trained += _sum(pc.not_equal(labels, -100))
        if len(distinct) <= A_HUNDRED:
            distinct.update(pc.unique(labels)[: A_HUNDRED + 1].to_pylist())
    return tokens, trained, len(distinct - {-100})


def _longest(splits: list[datasets.Dataset]) -> int | None:
    """Tokens of the longest row; None for data without them."""
    lengths = [
        pc.max(pc.list_value_length(table["input_ids"])).as_py()
        for rows in splits
        if "input_ids" in rows.column_names
        for table in rows.select_columns(["input_ids"]).with_format("arrow").iter(batch_size=10_000)
    ]
    return max(lengths, default=None)


def _sum(values: pa.ChunkedArray) -> int:
    return pc.sum(values).as_py() or 0


def _evaluation_facts(train: datasets.Dataset, held_out: Sequence[str] | None) -> dict[str, Any]:
    """Which rows are held out, by name, and how many of them are also trained on."""
    if held_out is None:
        return {"eval_fingerprint": None, "eval_rows_in_training": None}
    trained_on = set(row_digests(train))
    return {
        "eval_fingerprint": multiset_digest(held_out),
        "eval_rows_in_training": sum(digest in trained_on for digest in held_out),
    }


def _given_rows(cfg: DictDefault) -> int | None:
    """Rows read before anything was dropped; None where rows are dropped on purpose (weight, shards, deduplication)."""
    parts = list(datasets_with_name_generator(cfg.datasets))
    if cfg.dataset_exact_deduplication or any(
        part.shards or part.type == "_synthetic" or (part.weight is not None and part.weight < 1) for part in parts
    ):
        return None
    return sum(_raw_rows(part, cfg) for part in parts)


def _raw_rows(part: DictDefault, cfg: DictDefault) -> int:
    return len(_raw(part, cfg))


def _columns(part: DictDefault, cfg: DictDefault) -> list[str]:
    return [] if part.type == "_synthetic" else list(_raw(part, cfg).column_names)


def _raw(part: DictDefault, cfg: DictDefault) -> datasets.Dataset:
    raw = load_dataset_with_config(part, cfg.hf_use_auth_token)  # from the cache that preprocessing has just filled
    if isinstance(raw, datasets.DatasetDict):
        raw = raw[part.split] if part.split in raw else raw["train"]
    return raw


def _publish(build: Path, done: Path, manifest: dict[str, Any]) -> None:
    """Move the rows to their place, next to `done`, then write that: it lists their files."""
    for path in build.iterdir():
        if not path.is_dir() and path.name not in (SAMPLES, HELD_OUT):
            path.unlink()  # Axolotl's lock and counter
    manifest["files"] = listed_files(build)
    if done.parent.exists():
        shutil.rmtree(done.parent)  # without a manifest: its worker died before it wrote one, or the rows are damaged
    build.rename(done.parent)
    write_atomically(done, json.dumps(manifest, sort_keys=True, indent=1))
