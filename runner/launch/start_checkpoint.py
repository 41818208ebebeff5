"""from=RUN[@STEP]: another run's checkpoint is found, compared with the new run, and stored as an input.

From the checkpoint come the weights, the optimizer's moments, the random state and the position in the data. The rate,
the schedule and the length are the new run's own (modal_app.patches.training).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from modal_app.store import checkpoints
from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.start_checkpoint import CONFIG_KEY, STATE, step_of
from modal_app.store.step import StepKind, write_atomically
from runner.errors import SweepError
from runner.files.places import chosen_run, files_of, state_of
from runner.files.run_files import Files, Part, PartKind, parts_of
from runner.store.ledger import SweepRun
from runner.store.run_state import RunStatus, status_text
from runner.store.stores import is_mirror
from runner.types import Experiment, Input, InputKind, Run, StartCheckpoint

NOT_CONTENT = ("README.md", "training_args.bin", "tokens_state.json", STATE, checkpoints.MARKER)
"""Of a checkpoint: texts about it, and figures of the run that saved it. A run that starts from it does not depend on
them."""
NOT_KEPT = ("README.md", "training_args.bin", "tokens_state.json")

Sums = Mapping[str, str]
"""Name of a file -> hex sha256."""

SAME = (
    *("adapter", "lora_r", "lora_alpha", "lora_target_linear", "lora_target_modules", "lora_target_parameters"),
    *("lora_modules_to_save", "lora_fan_in_fan_out", "peft_use_dora", "peft_use_rslora", "peft_layers_to_transform"),
    *("load_in_4bit", "load_in_8bit", "optimizer", "loraplus_lr_ratio", "loraplus_lr_embedding"),
    *("micro_batch_size", "gradient_accumulation_steps", "batch_size", "seed"),
)
"""Keys that determine the shape of the checkpoint's tensors, or the position of its step in the data."""
NOT_YET = ("deepspeed", "fsdp", "fsdp_config")
"""Their checkpoints are shards, which restore their own settings."""


def with_start_checkpoints(experiments: Sequence[Experiment], known: Sequence[Store]) -> list[Experiment]:
    """The experiments, each with its start checkpoint. Raises SweepError for one that does not exist. A checkpoint on
    Modal is fetched, since its content is in the key.
    """
    found: dict[str, StartCheckpoint] = {}
    for one in experiments:
        if one.from_text is not None and one.from_text not in found:
            found[one.from_text] = find_start_checkpoint(one.from_text, known)
    return [
        one if one.from_text is None else replace(one, start_checkpoint=found[one.from_text]) for one in experiments
    ]


def find_start_checkpoint(asked: str, known: Sequence[Store]) -> StartCheckpoint:
    """The checkpoint that RUN[@STEP] means: the newest complete one of a finished run, or that of the step."""
    name, at, step = asked.partition("@")
    if not name or (at and not step.isdecimal()):
        raise SweepError(f"from={asked}: RUN or RUN@STEP is expected, as in from=0123456789ab@50.")
    try:
        store, run = chosen_run(known, name)
    except SweepError as error:
        raise SweepError(f"from={asked}: {error}") from error
    try:
        folder, sums = _found(asked, run, store)  # first: a run that was trained again may have another than was stored
    except SweepError:
        kept = _kept(known, run.key, int(step)) if step else None
        if kept is None:
            raise
        folder, sums = kept
    if not (folder / "optimizer.pt").exists() and not (folder / "optimizer.bin").exists():
        key = "lora_model_dir" if (folder / "adapter_config.json").exists() else "base_model"
        raise SweepError(
            f"from={asked}: {folder.name} of {run.key} has no optimizer's state (save_only_model), so no run can start "
            f"from it. Its weights alone: {key}={folder}"
        )
    return StartCheckpoint(run.key, step_of(folder), str(folder), identity_of(folder, sums), str(store.root))


def _kept(known: Sequence[Store], run: str, step: int) -> tuple[Path, Sums] | None:
    """The copy that an earlier run which started from it has in its store: the run that saved the checkpoint may have
    removed its own since."""
    for store in known:
        for path in store.runs.glob("*/run.json"):
            start = read_json(path).get("from") or {}
            if (start.get("run"), start.get("step")) == (run, step):
                folder = store.inputs / str(start["identity"])[:16]
                if checkpoints.is_complete(folder) and not checkpoints.damage_of(
                    folder, sums := checkpoints.sha256s(folder)
                ):
                    return folder, sums
    return None


def _found(asked: str, run: SweepRun, store: Store) -> tuple[Path, Sums]:
    """The checkpoint among those of its run, and its files' hashes; from Modal it is fetched."""
    files = files_of(store, run.key)
    parts = parts_of(files, run.key, run.data_key)
    chosen = _chosen(asked, run, [part for part in parts if part.kind is PartKind.CHECKPOINT], store)
    folder = store.root / chosen.folder
    if is_mirror(store):
        folder = store.cache / "from" / run.key / chosen.name
        _fetch(files, chosen, folder)
    sums = checkpoints.sha256s(folder)
    if damage := checkpoints.damage_of(folder, sums):
        raise SweepError(f"from={asked}: {chosen.name} of {run.key} is damaged: {damage}. Name another: from=RUN@STEP.")
    return folder, sums


def _chosen(asked: str, run: SweepRun, parts: Sequence[Part], store: Store) -> Part:
    step = asked.partition("@")[2]
    whole = sorted((part for part in parts if part.whole), key=_step)
    steps = ", ".join(str(_step(part)) for part in whole)
    state = state_of(store, run)
    status = status_text(state.status, state.reason)
    if not whole:
        raise SweepError(
            f"from={asked}: {run.key} has no complete checkpoint (it is {status}). A run leaves some "
            "with save_steps=N or saves_per_epoch=N."
        )
    if not step:
        if state.status is not RunStatus.SUCCEEDED:
            raise SweepError(
                f"from={asked}: {run.key} has not finished (it is {status}), so its newest "
                "checkpoint may be another one tomorrow. "
                f"Name one: from={run.key}@{_step(whole[-1])}; there is: {steps}."
            )
        return whole[-1]
    for part in whole:
        if _step(part) == int(step):
            return part
    raise SweepError(f"from={asked}: {run.key} has no complete checkpoint of step {int(step)}. There is: {steps}.")


def _step(part: Part) -> int:
    return int(part.own)


def _fetch(files: Files, part: Part, folder: Path) -> None:
    from runner.console.transfer import progress
    from runner.files.pull import FileToPull, pull  # late: only of runs that are elsewhere

    wanted = [FileToPull(entry, part.named(entry)) for entry in part.files]
    with progress(part.bytes) as watch:
        pull(files, wanted, folder, watch=watch)


def identity_of(checkpoint: Path, sums: Sums | None = None) -> str:
    """Hex sha256 of all that a run which starts from it depends on: tensors, random state, step,
    loss not logged yet.
    `sums`: the sha256 of its files, if they are known."""
    sums = checkpoints.sha256s(checkpoint) if sums is None else sums
    digest = hashlib.sha256(json.dumps(checkpoints.unlogged(checkpoint), sort_keys=True).encode())
    digest.update(f"{step_of(checkpoint)}\n".encode())
    for name in sorted(sums):
        if Path(name).name not in NOT_CONTENT:
            digest.update(f"{name}\0{sums[name]}\n".encode())
    return digest.hexdigest()


def checkpoint_input(start: StartCheckpoint) -> Input:
    return Input(CONFIG_KEY, start.folder, InputKind.CHECKPOINT, start.identity)


def check_checkpoint_fits(run: Run) -> None:
    """Raises SweepError for a run whose start checkpoint has another shape, data or trainer than its own, and for one
    that would end before it begins."""
    experiment, start = run.experiment, run.experiment.start_checkpoint
    if start is None:
        return
    before = read_json(Store(Path(start.store)).folder(StepKind.TRAIN, start.run).identity)
    if not before:
        raise SweepError(
            f"from={experiment.from_text}: the config of {start.run} is not known any more (its run.json is gone), so "
            "whether this run can start from it cannot be checked. Its weights alone: "
            f"lora_model_dir={start.folder}"
        )
    wrong = [*_unlike(experiment, before), *_other_data(run, before), *_no_room(experiment.axolotl, start)]
    if wrong:
        lines = "".join(f"\n- {one}" for one in wrong)
        raise SweepError(
            f"from={experiment.from_text}: this run cannot start from step {start.step} of {start.run}.{lines}\n"
            f"To start with its weights alone: {_weights(before.get('axolotl', {}))}={start.folder}"
        )


def _weights(axolotl: Mapping[str, Any]) -> str:
    """The key that takes a checkpoint's weights."""
    return "lora_model_dir" if axolotl.get("adapter") else "base_model"


def _unlike(experiment: Experiment, before: Mapping[str, Any]) -> Iterator[str]:
    here, there = experiment.axolotl, before.get("axolotl", {})
    for key in SAME:
        if here.get(key) != there.get(key):
            yield f"{key} is {here.get(key)}, and was {there.get(key)} there."
    count = before.get("gpu", {}).get("count", 1)
    if experiment.gpu.count != count:
        yield f"gpu.count is {experiment.gpu.count}, and was {count} there."
    for key in NOT_YET:
        if here.get(key):
            yield f"{key} is set, and no run can start from a sharded checkpoint yet."
    if here.get("save_only_model"):
        yield "save_only_model is set, and a run with a start checkpoint must save its optimizer's state."


def _other_data(run: Run, before: Mapping[str, Any]) -> Iterator[str]:
    models = {one["at"]: one["identity"] for one in before.get("inputs", ())}
    for one in run.inputs:
        if one.at == "base_model" and one.identity != models.get(one.at):
            yield f"base_model is {one.text}, and was another model there."
    if run.data_key != before.get("data_key"):
        there = before.get("data_key")
        yield f"its data is different (data key {run.data_key}, and {there} there), so the step's position is unknown."


def _no_room(axolotl: Mapping[str, Any], start: StartCheckpoint) -> Iterator[str]:
    most = axolotl.get("max_steps")
    if isinstance(most, int) and 0 < most <= start.step:
        yield (
            f"max_steps is {most}, and steps count from the beginning of {start.run}: "
            f"max_steps={start.step + most} trains {most} more."
        )


def keep_checkpoint(source: Path, identity: str, target: Path) -> None:
    """Copy a checkpoint into the store, since its run may remove it.

    The copy has nothing of the end and the best step of the run that saved it. Raises SweepError if the checkpoint has
    changed since it was found.
    """
    if not checkpoints.damage_of(target):
        return
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        for name in _files(source):
            if Path(name).name not in (*NOT_KEPT, checkpoints.MARKER):
                (beside / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, beside / name)
        write_atomically(beside / STATE, json.dumps(_begun(json.loads((source / STATE).read_text(encoding="utf-8")))))
        sums = checkpoints.mark_complete(beside, checkpoints.unlogged(source))
        changed = identity_of(beside, sums) != identity
    except FileNotFoundError:
        changed = True
    if changed:
        shutil.rmtree(beside, ignore_errors=True)
        raise SweepError(f"{source} was changed or removed after it was found. Run the command again.")
    shutil.rmtree(target, ignore_errors=True)
    beside.replace(target)


def _begun(state: dict[str, Any]) -> dict[str, Any]:
    """A trainer's state without what belongs to the run that saved it: its log, its best step, its end, and the counts
    of its callbacks."""
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {"args": {}, "attributes": {}})
    cleared = {**control, "args": dict.fromkeys(control["args"], False)}
    none = dict.fromkeys(("best_metric", "best_global_step", "best_model_checkpoint"))
    return {**state, **none, "log_history": [], "max_steps": 0, "stateful_callbacks": {"TrainerControl": cleared}}


def _files(checkpoint: Path) -> list[str]:
    """Those that its marker lists: a file that came later does not belong to it."""
    marker = read_json(checkpoint / checkpoints.MARKER)
    return sorted(marker.get("files", {}))
