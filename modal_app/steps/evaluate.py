"""An evaluate step: how good a run is, or its base model alone, on the held-out rows of its dataset or on tasks of the
lm-evaluation-harness.

`options`: nothing for the held-out rows. Otherwise tasks, their names; include, the folder below the store's `inputs/`
with more of them, if any; limit, documents of each at most; num_fewshot; chat_template, whether the run's own is
applied; batch_size.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from modal_app.inference.config import config_to_load
from modal_app.oneshot.tasks import catalogue, index_in, said_of, unknown_of
from modal_app.patches.apply import be_offline_as, hub_cache_in
from modal_app.process.attempt import BUILD, DATASETS_CACHE, stamp, write_yaml
from modal_app.process.failures import StepFailed
from modal_app.process.rank import Rank
from modal_app.steps.hub_reached import offline_if_unreachable
from modal_app.steps.infer import weights_of
from modal_app.steps.prepared import PREPARED, link_prepared
from modal_app.store.facts import TrainFacts
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.read_json import read_json
from modal_app.store.step import FailureReason, Step, StepKind

EVAL_LOSS = "eval_loss"
HELD_OUT = (EVAL_LOSS, "eval_ppl")
"""The metrics that Axolotl reports after an evaluation, without its durations."""
ROWS = ("sample_packing", "eval_sample_packing", "pad_to_sequence_len")
"""Keys for the layout of rows: Axolotl's name for the prepared rows and the loss depend on them."""
OF_THE_TOKENIZER = ("tokenizer_config", "revision_of_model")
TASKS = "tasks"
FILES = ("json", "csv", "text", "parquet", "arrow", "xml", "webdataset")
"""The loaders that a task names in place of a dataset on the hub if it reads files."""


def evaluate(step: Step, store: Store, folder: StepFolder, attempt: Attempt, rank: Rank) -> dict[str, Any]:
    """Measure; returns `metrics` by name (`eval_loss`, `tasks/<task>/<metric>`), and facts about them.

    Raises StepFailed.
    """
    if step.options.get(TASKS):
        with offline_if_unreachable():
            return _on_tasks(step, store, attempt, rank)
    return _on_held_out_rows(step, store, attempt, rank)


def _on_held_out_rows(step: Step, store: Store, attempt: Attempt, rank: Rank) -> dict[str, Any]:
    """Axolotl's own evaluation, without the training rows, which it would also evaluate, on a rented GPU."""
    from axolotl.cli.args import TrainerCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets, load_preference_datasets
    from axolotl.evaluate import enable_callbacks_for_evaluation, evaluate_dataset
    from axolotl.train import setup_model_and_tokenizer
    from axolotl.utils.trainer import setup_trainer

    link_prepared(step, store, attempt)
    rated = rated_by(step.config, **weights_of(step, store, attempt))
    addresses = {"output_dir": BUILD, "dataset_prepared_path": PREPARED}
    write_yaml(attempt.config, stamp(replace(step, config=rated), **addresses))
    sys.argv = ["axolotl"]  # Axolotl parses it
    cfg = load_cfg(attempt.config.name)
    load = load_preference_datasets if cfg.rl else load_datasets
    rows = load(cfg=cfg, cli_args=TrainerCliArgs())
    if not rows.eval_dataset:
        raise StepFailed(FailureReason.DATA, f"the prepared dataset {step.data_key} has no held-out rows")
    rank.weights_step = step_of_weights(step, store)
    model, tokenizer, _, processor = setup_model_and_tokenizer(cfg)
    rank.clock.book("load")
    trainer = setup_trainer(
        cfg=cfg,
        train_dataset=rows.train_dataset,
        eval_dataset=rows.eval_dataset,
        model=model,
        tokenizer=tokenizer,
        processor=processor,
        total_num_steps=rows.total_num_steps,
    )
    enable_callbacks_for_evaluation(trainer)
    said = evaluate_dataset(trainer, rows.eval_dataset, "eval", cfg.flash_optimum) or {}
    rank.clock.book("eval")
    metrics = {name: float(said[name]) for name in HELD_OUT if name in said}
    if not math.isfinite(metrics.get(EVAL_LOSS, math.nan)):
        raise StepFailed(FailureReason.NAN, f"the loss on the held-out rows is {said.get(EVAL_LOSS)}")
    known = {"metrics": metrics, "rows": len(rows.eval_dataset), "higher_is_better": dict.fromkeys(metrics, False)}
    return known | ({"no_row_losses": rank.no_row_losses} if rank.no_row_losses else {})


def step_of_weights(step: Step, store: Store) -> int:
    """The optimizer step of the weights that the run stores; 0 for a base model."""
    if not step.run:
        return 0
    from modal_app.held_out.row_losses import RowLosses

    folder = store.folder(StepKind.TRAIN, step.run)
    losses = RowLosses.read(folder.losses)
    if losses is not None:
        return losses.about.step
    return TrainFacts.of(read_json(folder.done, lenient=True).get("facts") or {}).step or 0


def rated_by(config: Mapping[str, Any], *, adapter: Path | None = None, weights: Path | None = None) -> dict[str, Any]:
    """The config with which Axolotl evaluates: the model is loaded as for answers, and the rows are the prepared ones.

    Without the adapter's folder, Axolotl would evaluate a new adapter, which equals the base model, without a message.
    """
    loaded_config = config_to_load(config, adapter=adapter, weights=weights)
    own = {name: config[name] for name in ROWS if name in config}
    if weights is not None:  # Axolotl's name for the prepared rows contains the tokenizer's
        own |= {"tokenizer_config": config["base_model"]}
        own |= {name: config[name] for name in OF_THE_TOKENIZER if config.get(name)}
    return {name: value for name, value in loaded_config.items() if name not in ROWS} | own


def _on_tasks(step: Step, store: Store, attempt: Attempt, rank: Rank) -> dict[str, Any]:
    options = step.options
    include = options.get("include")
    # A container on Modal would write the index into the Volume.
    known = catalogue(include, None if store.is_mounted else index_in(store))
    if unknown := unknown_of(options[TASKS], known):  # before a large model is loaded
        raise StepFailed(FailureReason.CONFIG, said_of(unknown))
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from modal_app.inference import generation

    with _offline_where_nothing_can_be_kept():
        loaded = generation.load(step.config, **weights_of(step, store, attempt))
    rank.clock.book("load")
    templated = bool(options.get("chat_template", True)) and loaded.template is not None
    if loaded.template is not None:
        loaded.tokenizer.chat_template = loaded.template.text
    model = HFLM(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        max_length=loaded.context,
        batch_size=options["batch_size"],
        chat_template_args=dict(loaded.template.values) if loaded.template else None,
    )
    with _rows_kept_in(attempt), contextlib.chdir(include or "."):  # a task's own files are named from its folder
        said = simple_evaluate(
            model=model,
            tasks=list(options[TASKS]),
            num_fewshot=options.get("num_fewshot"),
            limit=options.get("limit"),
            apply_chat_template=templated,
            task_manager=known,
            log_samples=False,
        )
    rank.clock.book("eval")
    return of_tasks(said, options) | {"templated": templated, "judged_by": judged_by(include)}


def of_tasks(said: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The results of the harness, as facts: for the requested tasks and groups; the members of a group are under
    `parts`. Raises StepFailed when there is nothing."""
    how = settings_text(options)
    parts = {name for below in said["group_subtasks"].values() for name in below}
    metrics: dict[str, float] = {}
    of_parts: dict[str, float] = {}
    errors: dict[str, float] = {}
    higher: dict[str, bool] = {}
    for task, results in said["results"].items():
        better = said["higher_is_better"].get(task, {})
        for key, value in results.items():
            metric, _, kind = key.partition(",")
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                continue
            name = named(task + how, metric.removesuffix("_stderr"), kind)
            if metric.endswith("_stderr"):
                errors[name] = float(value)
            elif kind:
                (of_parts if task in parts else metrics)[name] = float(value)
                if better.get(metric) is not None:
                    higher[name] = bool(better[metric])
    if not metrics:
        raise StepFailed(FailureReason.ERROR, "the lm-evaluation-harness ended without an error, and measured nothing")
    counted = {name: counts["effective"] for name, counts in said.get("n-samples", {}).items()}
    facts = {"metrics": metrics, "parts": of_parts, "stderr": errors, "higher_is_better": higher, "documents": counted}
    return facts | {"datasets": {} if options.get("include") else _datasets(said.get("configs", {}))}


def _datasets(configs: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Task -> where its documents are on the hub. Only for the harness's own tasks: another task's file may name
    private files."""
    return {
        task: _dataset(config) for task, config in configs.items() if config.get("dataset_path", FILES[0]) not in FILES
    }


def _dataset(config: Mapping[str, Any]) -> dict[str, str]:
    split = config.get("test_split") or config.get("validation_split")
    known = {"path": config["dataset_path"], "config": config.get("dataset_name"), "split": split}
    return {name: str(value) for name, value in known.items() if value}


def judged_by(include: str | None) -> str:
    """Names the harness and the user's task files: evaluations with equal values have the same questions."""
    versions = [importlib.metadata.version("lm_eval"), include]
    return hashlib.sha256(json.dumps(versions).encode()).hexdigest()


def settings_text(options: Mapping[str, Any]) -> str:
    """The options that distinguish a task from the same task without options: their metrics must not share a name."""
    words = [f"limit={options['limit']}"] if options.get("limit") is not None else []
    words += [f"fewshot={options['num_fewshot']}"] if options.get("num_fewshot") is not None else []
    words += [] if options.get("chat_template", True) else ["plain"]
    return f"@{','.join(words)}" if words else ""


def named(task: str, metric: str, kind: str) -> str:
    """The name of a metric: `none` is the harness's word for answers that are taken as they are."""
    return f"{TASKS}/{task}/{metric}" + ("" if kind == "none" else f",{kind}")


@contextlib.contextmanager
def _offline_where_nothing_can_be_kept() -> Iterator[None]:
    """On Modal, the models are in a cache that is mounted read-only, each at its commit: they are not requested from
    the hub, though the process may request a task's dataset."""
    if not _can_keep():
        be_offline_as({**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        yield
    finally:
        be_offline_as(os.environ)


@contextlib.contextmanager
def _rows_kept_in(attempt: Attempt) -> Iterator[None]:
    """The files of a task's dataset are removed at the end of the attempt, unless there is a place to store them."""
    with contextlib.nullcontext() if _can_keep() else hub_cache_in(attempt.path / DATASETS_CACHE / "hub"):
        yield


def _can_keep() -> bool:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    while not cache.exists():
        cache = cache.parent
    return os.access(cache, os.W_OK)
