"""The Axolotl plugin: ranks on the CPU, a guard against tokenizing again, and the callback that records training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import datasets.fingerprint
import torch
from axolotl.integrations.base import BasePlugin
from axolotl.loaders import load_tokenizer
from axolotl.utils.data.shared import generate_dataset_hash_from_config, get_prepared_dataset_path
from axolotl.utils.dict import DictDefault
from transformers import TrainerCallback

from modal_app.patches.apply import (
    apply_cpu_rank_patches,
    apply_trainer_patches,
    cache_datasets_in,
    show_evaluated_batches,
)
from modal_app.process import rank, tracking
from modal_app.process.attempt import DATASETS_CACHE
from modal_app.process.failures import StepFailed
from modal_app.steps.fingerprint import multiset_digest, row_digests
from modal_app.steps.recorder import Recorder
from modal_app.steps.row_rater import RowRater, reason_without_losses
from modal_app.store.step import Device, FailureReason, StepKind

COUNT_SEED = 0
"""Axolotl counts the steps of packed rows by packing them in random orders. Without a seed, runs on the same rows would
have different numbers of steps, and a run another one after it has resumed."""


class AxosweepPlugin(BasePlugin):  # type: ignore[misc]
    """The worker registers it in every config that it runs; it works only there."""

    def register(self, cfg: dict[str, Any]) -> None:
        """The only hook before Axolotl asks the (missing) driver whether two GPUs can reach each other."""
        if rank.current().step.device is Device.CPU and _world_size() > 1:
            apply_cpu_rank_patches()
            os.environ.setdefault("NCCL_P2P_DISABLE", "1")
            os.environ["ACCELERATE_USE_CPU"] = "true"  # gloo, and MULTI_CPU

    def load_datasets(self, cfg: DictDefault, preprocess: bool = False) -> None:
        """Loads nothing: this is the last hook before Axolotl loads the datasets and copies the device map."""
        this = rank.current()
        keep_temporary_rows_in(this.attempt.path / DATASETS_CACHE)
        if preprocess:
            return
        this.clock.book("config")
        if this.step.device is Device.CPU and _world_size() > 1:
            cfg.device_map = {"": "cpu"}  # Axolotl puts each rank of several on cuda:N
        if this.step.own_data:
            cache_datasets_in(this.attempt.path / DATASETS_CACHE)
        else:
            require_prepared(cfg)
        if cfg.seed is not None:  # Axolotl seeds with it when it has counted the steps, and loads the model
            torch.manual_seed(COUNT_SEED)
        datasets.disable_caching()  # a map over prepared rows would write its cache next to them

    def pre_model_load(self, cfg: DictDefault) -> None:
        rank.current().clock.book("prepare")

    def post_trainer_create(self, cfg: DictDefault, trainer: Any) -> None:
        apply_trainer_patches(trainer, rank.current().origin_step)

    def add_callbacks_post_trainer(self, cfg: DictDefault, trainer: Any) -> list[TrainerCallback]:
        this = rank.current()
        reason = reason_without_losses(trainer.eval_dataset, cfg)
        rater = RowRater(trainer, this, without=reason)
        if reason is None:
            show_evaluated_batches(trainer, rater.see_batch)
        if this.step.kind is not StepKind.TRAIN:
            return [rater]
        note_held_out_rows(this, trainer.eval_dataset)
        return [Describer(), rater, Recorder(trainer, this, rater, eval_on_start=cfg.eval_on_start is not False)]


class Describer(TrainerCallback):  # type: ignore[misc]
    """A callback that describes the W&B run. It comes after the callback of transformers, which begins that run."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        tracking.describe(rank.current())


def prepared_hashes(cfg: DictDefault) -> dict[str, str]:
    """Axolotl's own hash of the train and (if any) test datasets, by which it looks for prepared rows."""
    return _hashes(cfg, load_tokenizer(cfg).name_or_path)


def require_prepared(cfg: DictDefault) -> None:
    """Stop unless the prepared rows exist: Axolotl would tokenize again, on a rented GPU, with just a warning."""
    # A tokenizer's name is normally the requested one. It is loaded to get its name only if nothing is found under
    # that: loading takes a second for a large vocabulary, and Axolotl will load it twice more.
    if not _missing(cfg, _hashes(cfg, str(cfg.tokenizer_config))):
        return
    for name, digest in _missing(cfg, prepared_hashes(cfg)).items():
        raise StepFailed(
            FailureReason.DATA,
            f"Axolotl looks for its prepared {name} rows under {digest}, which the prepared dataset does not have; "
            "stopped instead of tokenizing again",
        )


def note_held_out_rows(this: rank.Rank, rows: Any) -> None:
    """Name the held-out rows of a run that reads its own data; those of a prepared dataset have a name already."""
    if this.step.own_data and this.number == 0 and isinstance(rows, datasets.Dataset):
        this.eval_fingerprint = multiset_digest(row_digests(rows))


def _hashes(cfg: DictDefault, tokenizer: str) -> dict[str, str]:
    parts = {"train": cfg.datasets, "test": cfg.test_datasets}
    return {name: generate_dataset_hash_from_config(cfg, part, tokenizer) for name, part in parts.items() if part}


def _missing(cfg: DictDefault, hashes: Mapping[str, str]) -> dict[str, str]:
    """The hashes for which there are no prepared rows."""
    return {name: one for name, one in hashes.items() if not any(get_prepared_dataset_path(cfg, one).glob("*"))}


def keep_temporary_rows_in(path: Path) -> None:
    """Put the rows that `datasets` caches only for this process where they are removed at the end of the attempt.

    The library removes its folder itself when a process exits, but not when a rank is forked, stopped or killed.
    """
    path.mkdir(exist_ok=True)
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(path)
    datasets.fingerprint.get_temporary_cache_files_directory()  # created once, at the first call
    if before is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = before


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
