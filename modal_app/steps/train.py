"""A train step: what Axolotl gets, one rank of the training, and the check of its result.

The exit code does not show success: after an interrupt, Axolotl ends with 0, half trained. Success is the last step
reached (or early stopping), finite losses, and weights on disk. The weights of an earlier attempt are removed before it
begins: their time stamps could mislead if the clock is set back.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

from modal_app.patches.apply import apply_run_patches, apply_tracking_patches
from modal_app.process import attention, imports, tracking
from modal_app.process.attempt import DATASETS_CACHE, relative_target, stamp, write_yaml
from modal_app.process.bars import noted_bars
from modal_app.process.failures import StepFailed
from modal_app.process.rank import Rank
from modal_app.process.stop import AtRung, Stopped
from modal_app.steps.hub_reached import offline_if_unreachable
from modal_app.steps.prepared import PREPARED, link_prepared
from modal_app.store import checkpoints, hub, start_checkpoint
from modal_app.store.facts import DataManifest
from modal_app.store.layout import DEBUG_LOG, Attempt, StepFolder, Store
from modal_app.store.lines import read_lines
from modal_app.store.manifest import listed_files
from modal_app.store.read_json import read_json
from modal_app.store.step import FailureReason, Step, write_atomically
from modal_app.store.trained_weights import TrainedWeights, weights_left_by

COPY_AGAIN = "Run the command again: it is then copied again from the run that it is of"
OWN_ROWS = f"{DATASETS_CACHE}/rows"
"""Where Axolotl writes rows that it tokenizes for this attempt alone, such as those of test_datasets."""
FACTS = ("max_steps", "world_size", "threads", "phases", "cpu", "early_stopped", "resumed_from")


def prepare(step: Step, store: Store, folder: StepFolder, attempt: Attempt) -> dict[str, Any]:
    """Do everything before the training itself; returns the facts that are known then. The caller holds the claim."""
    rows = _own_rows(step) if step.own_data else _prepared_rows(step, store, attempt)
    folder.model.mkdir(exist_ok=True)
    for kind in TrainedWeights:
        for path in _weights(folder.model, kind):
            path.unlink()
    damaged: list[str] = []
    taken = checkpoints.set_aside_unusable(folder.model, damaged.append)
    if taken is None:
        taken = _place_start_checkpoint(step, store, folder.model)
    for line in damaged:
        print(f"{line}. Resuming from {taken.name if taken else 'the beginning'}.")
    addresses: dict[str, Any] = {
        "output_dir": str(relative_target(attempt.path, folder.model)),
        "dataset_prepared_path": OWN_ROWS if step.own_data else PREPARED,
        "auto_resume_from_checkpoints": checkpoints.can_resume(step.config),
    }
    if (adapter := hub.adapter_folder(step.config)) is not None:
        addresses[hub.ADAPTER] = adapter
    write_yaml(attempt.config, stamp(step, **addresses))
    return {**rows, **({"damaged": "; ".join(damaged)} if damaged else {}), **_kernel(step)}


def _prepared_rows(step: Step, store: Store, attempt: Attempt) -> dict[str, Any]:
    """Link the prepared dataset; returns what the outcome says of it."""
    content = link_prepared(step, store, attempt).read_bytes()
    return {
        "manifest": hashlib.sha256(content).hexdigest(),
        "eval_fingerprint": DataManifest.of(json.loads(content)).eval_fingerprint,
    }


def _own_rows(step: Step) -> dict[str, Any]:
    """What the outcome says of the rows of a run that reads its own data; its held-out rows are named by `verdict`."""
    assert step.own_data is not None
    return {"own_data": step.own_data.key}


def _place_start_checkpoint(step: Step, store: Store, model: Path) -> Path | None:
    """Copy the start checkpoint (from=) for a run that has none of its own yet. Raises StepFailed if it is damaged."""
    origin = start_checkpoint.start_checkpoint_of(step.config, store.root)
    if origin is None:
        return None
    if not checkpoints.is_complete(origin):
        raise StepFailed(FailureReason.DATA, f"the start checkpoint is incomplete or missing: {origin}")
    placed = start_checkpoint.place(origin, model)
    if damage := checkpoints.damage_of(placed):
        shutil.rmtree(placed)
        raise StepFailed(FailureReason.DATA, f"the start checkpoint {origin} is damaged: {damage}. {COPY_AGAIN}")
    return placed


def run_rank(rank: Rank) -> None:
    """Train in this process; returns when Axolotl does."""
    imports.load(imports.TRAIN, rank.step.device)
    apply_run_patches(rank.step)
    if rank.step.tracking.mode == "online":
        apply_tracking_patches(functools.partial(tracking.go_offline, rank))
    rank.clock.book("import")
    from axolotl.cli.train import do_cli

    sys.argv = ["axolotl"]  # Axolotl parses it
    attempt = rank.attempt
    bars = noted_bars(attempt.progress, until=attempt.train_state) if rank.number == 0 else contextlib.nullcontext()
    try:
        with offline_if_unreachable() if rank.step.asks_the_hub else contextlib.nullcontext(), bars:
            do_cli(config=attempt.config.name)
    except AtRung:
        pass  # before its first step, as train.json shows
    except SystemExit as error:
        # Its own handler of SIGINT, which is set for a moment before training begins.
        raise Stopped(f"Axolotl exited with {error.code} before training began") from error
    finally:
        tracking.finish(rank, _state(rank.attempt), failed=sys.exc_info()[0] is not None)
    if rank.number == 0:
        _add_final_phase(rank)


def has_begun(attempt: Attempt) -> bool:
    """Whether training had reached its first step."""
    return bool(_state(attempt))


def verdict(step: Step, folder: StepFolder, attempt: Attempt) -> dict[str, Any]:
    """The facts of a success. Raises Stopped or AtRung for a clean stop, StepFailed for anything else."""
    state = _state(attempt)
    at = f"step {state.get('global_step', 0)} of {state.get('max_steps', '?')}"
    if state.get("stopped"):
        saved = checkpoints.newest_step(folder.model) == state["global_step"]
        raise Stopped(f"stopped at {at}; {'a checkpoint is saved' if saved else 'no run can resume from there'}")
    if at_rung := state.get("at_rung"):
        raise AtRung(at_rung)
    strange = _not_finite(step, folder.metrics, attempt.number)
    if state.get("diverged") or strange:
        raise StepFailed(FailureReason.NAN, f"{' and '.join(strange) or 'the loss'} became NaN or infinite by {at}")
    if not state.get("ended"):
        raise StepFailed(FailureReason.ERROR, f"training ended at {at} without saying why")
    if state["global_step"] < state["max_steps"] and not state["early_stopped"]:
        raise StepFailed(FailureReason.ERROR, f"training ended at {at}")
    if not _weights(folder.model, weights_left_by(step.config)):
        raise StepFailed(FailureReason.ERROR, f"training reached {at}, but left no weights in {folder.model.name}/")
    held_out = {"eval_fingerprint": state.get("eval_fingerprint")} if step.own_data else {}
    without = {"no_row_losses": state["no_row_losses"]} if state.get("no_row_losses") else {}
    return {"step": state["global_step"]} | {name: state[name] for name in FACTS} | held_out | without


def _kernel(step: Step) -> dict[str, Any]:
    """The attention kernel of a run, and its commit in the image, which is in no key."""
    name = attention.kernel_of(step.config)
    commit = attention.commit_of(name) if name else None
    return {"kernel": {"name": name, "commit": commit}} if commit else {}


def finish(step: Step, folder: StepFolder) -> None:
    """Let PEFT find the base model from anywhere, not just from an attempt's folder, and list the model's files."""
    adapter = folder.model / TrainedWeights.ADAPTER.config_file
    if weights_left_by(step.config) is TrainedWeights.MODEL:
        adapter.unlink(missing_ok=True)  # transformers would load an adapter instead of the complete model
    elif step.base_model and adapter.exists():
        config = json.loads(adapter.read_text(encoding="utf-8"))
        write_atomically(adapter, json.dumps(config | {"base_model_name_or_path": step.base_model}, indent=2))
    listed = listed_files(folder.model, without=(checkpoints.PREFIX, checkpoints.ASIDE, DEBUG_LOG))
    write_atomically(folder.manifest, json.dumps({"files": listed, "of": step.key}, indent=1))


def known_facts(attempt: Attempt) -> dict[str, Any]:
    """How far an unsuccessful attempt got, as facts."""
    state = _state(attempt)
    names = {"step": "global_step"} | {name: name for name in ("max_steps", "world_size", "threads", "phases")}
    return {ours: state[theirs] for ours, theirs in names.items() if theirs in state}


def _add_final_phase(rank: Rank) -> None:
    state = _state(rank.attempt)
    if state:
        rank.clock.book("save")  # since training ended: the model itself, its card, the last output of W&B
        write_atomically(
            rank.attempt.train_state, json.dumps(state | {"phases": rank.clock.seconds, "cpu": rank.clock.cpu})
        )


def _state(attempt: Attempt) -> dict[str, Any]:
    return read_json(attempt.train_state)


def _not_finite(step: Step, metrics: Path, attempt: int) -> list[str]:
    """Which of the last loss, eval loss and gradient norm of an attempt are not finite. With fp16, a gradient may be
    infinite: the loss is scaled up until one is, and that step is skipped."""
    names = ("loss", "eval_loss") if step.config.get("fp16") else ("loss", "eval_loss", "grad_norm")
    last: dict[str, Any] = {}
    for line in read_lines(metrics):
        if line["attempt"] == attempt:
            last |= {name: line[name] for name in names if name in line}
    return sorted(name for name, value in last.items() if value is None or not math.isfinite(value))


def _weights(model: Path, kind: TrainedWeights) -> list[Path]:
    return [path for pattern in kind.patterns for path in model.glob(pattern)]
