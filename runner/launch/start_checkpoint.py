"""from=RUN[@STEP]: finds another run's checkpoint, checks that a run can continue from it, and stores it as an input.

A run that continues takes over the checkpoint's weights, optimizer state, random state and position in the data. Its
learning rate, schedule and length are its own (modal_app.patches.training).
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
from modal_app.store.trained_weights import TrainedWeights, weights_left_by
from runner.environment import trainer_environment
from runner.errors import SweepError
from runner.files.places import chosen_run, files_of, state_of
from runner.files.run_files import Files, Part, PartKind, parts_of
from runner.keys.content import put_folder
from runner.keys.identity import data_key_with
from runner.store.ledger import SweepRun
from runner.store.run_state import RunStatus, status_text
from runner.store.stores import is_mirror
from runner.types import Experiment, Input, InputKind, Run, StartCheckpoint

NOT_CONTENT = ("README.md", "training_args.bin", "tokens_state.json", STATE, checkpoints.MARKER)
"""Files of a checkpoint that a run does not depend on if it continues: notes, and figures of the run that saved it."""
NOT_STORED = ("README.md", "training_args.bin", "tokens_state.json")

Sums = Mapping[str, str]
"""Name of a file -> hex sha256."""

SAME = (
    *("adapter", "lora_r", "lora_alpha", "lora_target_linear", "lora_target_modules", "lora_target_parameters"),
    *("lora_modules_to_save", "lora_fan_in_fan_out", "peft_use_dora", "peft_use_rslora", "peft_layers_to_transform"),
    *("relora", "load_in_4bit", "load_in_8bit", "optimizer", "loraplus_lr_ratio", "loraplus_lr_embedding"),
    *("micro_batch_size", "gradient_accumulation_steps", "batch_size", "seed"),
)
"""Keys that decide the shapes of the checkpoint's tensors, or which position in the data its step is."""
NOT_YET = ("deepspeed", "fsdp", "fsdp_config")
"""Their checkpoints are shards, which restore their own settings."""


def with_start_checkpoints(experiments: Sequence[Experiment], known: Sequence[Store]) -> list[Experiment]:
    """The experiments, each with its start checkpoint, if it has one. Raises SweepError for one that does not exist. A
    checkpoint on Modal is fetched, since the key covers its content.
    """
    found: dict[str, StartCheckpoint] = {}
    for one in experiments:
        if one.from_text is not None and one.from_text not in found:
            found[one.from_text] = find_start_checkpoint(one.from_text, known)
    return [
        one if one.from_text is None else replace(one, start_checkpoint=found[one.from_text]) for one in experiments
    ]


def find_start_checkpoint(text: str, known: Sequence[Store]) -> StartCheckpoint:
    """The checkpoint that RUN[@STEP] means: the newest complete one of a finished run, or that of the step."""
    name, at, step = text.partition("@")
    if not name or (at and not step.isdecimal()):
        raise SweepError(f"from={text}: RUN or RUN@STEP is expected, as in from=0123456789ab@50.")
    try:
        store, run = chosen_run(known, name)
    except SweepError as error:
        raise SweepError(f"from={text}: {error}") from error
    try:
        folder, sums = _found(text, run, store)  # first: a run that was trained again may have another than is stored
    except SweepError:
        stored = _stored(known, run.key, int(step)) if step else None
        if stored is None:
            raise
        folder, sums = stored
    if not (folder / "optimizer.pt").exists() and not (folder / "optimizer.bin").exists():
        key = "lora_model_dir" if (folder / "adapter_config.json").exists() else "base_model"
        raise SweepError(
            f"from={text}: {folder.name} of {run.key} has no optimizer state (save_only_model), so no run can "
            f"continue from it. To use only its weights: {key}={folder}"
        )
    return StartCheckpoint(run.key, step_of(folder), str(folder), identity_of(folder, sums), str(store.root))


def _stored(known: Sequence[Store], run: str, step: int) -> tuple[Path, Sums] | None:
    """The checkpoint as an input of an earlier run that continued from it: the run that saved it may have removed it
    since."""
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


def _found(text: str, run: SweepRun, store: Store) -> tuple[Path, Sums]:
    """The checkpoint among those of its run, and its files' hashes; from Modal it is fetched."""
    files = files_of(store, run.key)
    parts = parts_of(files, run.key, run.data_key)
    chosen = _chosen(text, run, [part for part in parts if part.kind is PartKind.CHECKPOINT], store)
    folder = store.root / chosen.folder
    if is_mirror(store):
        folder = store.cache / "from" / run.key / chosen.name
        _fetch(files, chosen, folder)
    sums = checkpoints.sha256s(folder)
    if damage := checkpoints.damage_of(folder, sums):
        raise SweepError(f"from={text}: {chosen.name} of {run.key} is damaged: {damage}. Name another: from=RUN@STEP.")
    return folder, sums


def _chosen(text: str, run: SweepRun, there: Sequence[Part], store: Store) -> Part:
    step = text.partition("@")[2]
    complete = sorted((part for part in there if part.is_complete), key=_step)
    steps = ", ".join(str(_step(part)) for part in complete)
    state = state_of(store, run)
    status = status_text(state.status, state.reason, state.rung)
    if not complete:
        raise SweepError(
            f"from={text}: {run.key} has no complete checkpoint (it is {status}). A run saves some "
            "with save_steps=N or saves_per_epoch=N."
        )
    if not step:
        if state.status is not RunStatus.SUCCEEDED:
            raise SweepError(
                f"from={text}: {run.key} has not finished (it is {status}), so its newest "
                "checkpoint may still change. "
                f"Name one: from={run.key}@{_step(complete[-1])}; there are: {steps}."
            )
        return complete[-1]
    for part in complete:
        if _step(part) == int(step):
            return part
    raise SweepError(f"from={text}: {run.key} has no complete checkpoint of step {int(step)}. There are: {steps}.")


def _step(part: Part) -> int:
    return int(part.own)


def _fetch(files: Files, part: Part, folder: Path) -> None:
    from runner.console.transfer import progress
    from runner.files.pull import FileToPull, pull  # imported late: only for runs on Modal

    wanted = [FileToPull(entry, part.named(entry)) for entry in part.files]
    with progress(part.bytes, "checkpoint") as watch:
        pull(files, wanted, folder, watch=watch)


def identity_of(checkpoint: Path, sums: Sums | None = None) -> str:
    """Hex sha256 of what a run depends on that continues: tensors, random state, the step, the loss not yet logged.

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
    """Raises SweepError for a run that differs from its start checkpoint in shape, data or trainer, and for one that
    would end before it begins."""
    experiment, start = run.experiment, run.experiment.start_checkpoint
    if start is None:
        return
    before = read_json(Store(Path(start.store)).folder(StepKind.TRAIN, start.run).identity)
    if not before:
        raise SweepError(
            f"from={experiment.from_text}: the config of {start.run} is unknown (it has no run.json any more), so "
            "it cannot be checked whether this run can continue from it. To use only its weights: "
            f"lora_model_dir={start.folder}"
        )
    wrong = [*_unlike(experiment, before), *_other_data(run, before), *_no_steps_left(experiment.axolotl, start)]
    if wrong:
        lines = "".join(f"\n- {one}" for one in wrong)
        raise SweepError(
            f"from={experiment.from_text}: this run cannot continue from step {start.step} of {start.run}.{lines}\n"
            f"To begin from scratch with its weights: {_with_weights(start, before.get('axolotl', {}))}"
        )


def _with_weights(start: StartCheckpoint, axolotl: Mapping[str, Any]) -> str:
    """The override that names a checkpoint's weights; with ReLoRA, no single folder of it has them all."""
    if axolotl.get("relora"):
        return f"base_model={Store(Path(start.store)).folder(StepKind.TRAIN, start.run).model}"
    left = weights_left_by(axolotl)
    return f"{'lora_model_dir' if left is TrainedWeights.ADAPTER else 'base_model'}={start.folder}"


def _unlike(experiment: Experiment, before: Mapping[str, Any]) -> Iterator[str]:
    here, there = experiment.axolotl, before.get("axolotl", {})
    for key in SAME:
        if _given(here, key) != _given(there, key):
            yield f"{key} is {here.get(key)}, and was {there.get(key)} there."
    count = before.get("gpu", {}).get("count", 1)
    if experiment.gpu.count != count:
        yield f"gpu.count is {experiment.gpu.count}, and was {count} there."
    for key in NOT_YET:
        if here.get(key):
            yield f"{key} is set, and a run cannot continue from a sharded checkpoint yet."
    if here.get("save_only_model"):
        yield "save_only_model is set, but a run that continues has to save its optimizer state."
    elif not checkpoints.can_resume(here):
        yield "relora is set, and its checkpoints lack what it has merged into the quantized base model."


def _given(axolotl: Mapping[str, Any], key: str) -> Any:
    """Without a value, a flag is off."""
    return None if (value := axolotl.get(key)) is False else value


def _other_data(run: Run, before: Mapping[str, Any]) -> Iterator[str]:
    models = {one["at"]: one["identity"] for one in before.get("inputs", ())}
    for one in run.inputs:
        if one.at == "base_model" and one.identity != models.get(one.at):
            yield f"base_model is {one.text}, and was another model there."
    there, trainer = before.get("data_key"), before.get("trainer_lock")
    if run.data_key == there:
        return
    if trainer and data_key_with(run, trainer) == there:
        now = trainer_environment.identity(run.experiment.executor.modal)
        seen = f"{trainer_environment.describe(now)}, and {trainer_environment.describe(trainer)} there"
        yield f"its trainer is different ({seen}), so it has to continue where that run was trained."
    else:
        yield f"its data is different (data key {run.data_key}, and {there} there), so its steps do not match."


def _no_steps_left(axolotl: Mapping[str, Any], start: StartCheckpoint) -> Iterator[str]:
    most = axolotl.get("max_steps")
    if isinstance(most, int) and 0 < most <= start.step:
        yield (
            f"max_steps is {most}, and steps count from the beginning of {start.run}: "
            f"max_steps={start.step + most} trains {most} more."
        )


def keep_checkpoint(source: Path, identity: str, target: Path) -> None:
    """Copy a checkpoint into the store, where it stays when its run removes or rotates it away.

    The copy leaves out the end and the best step of the run that saved it. Raises SweepError when the checkpoint has
    changed since it was found.
    """
    if not checkpoints.damage_of(target):
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name in _files(source):
            if Path(name).name not in (*NOT_STORED, checkpoints.MARKER):
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, partial / name)
        write_atomically(
            partial / STATE, json.dumps(_start_state(json.loads((source / STATE).read_text(encoding="utf-8"))))
        )
        sums = checkpoints.mark_complete(partial, checkpoints.unlogged(source))
        changed = identity_of(partial, sums) != identity
    except FileNotFoundError:
        changed = True
    if changed:
        shutil.rmtree(partial, ignore_errors=True)
        raise SweepError(f"{source} was changed or removed after it was found. Run the command again.")
    put_folder(partial, target, lambda: not checkpoints.damage_of(target))


def _start_state(state: dict[str, Any]) -> dict[str, Any]:
    """A trainer's state without what belongs to the run that has saved it: its log, its best step, its end, and what
    its callbacks had counted."""
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {"args": {}, "attributes": {}})
    cleared = {**control, "args": dict.fromkeys(control["args"], False)}
    none = dict.fromkeys(("best_metric", "best_global_step", "best_model_checkpoint"))
    return {**state, **none, "log_history": [], "max_steps": 0, "stateful_callbacks": {"TrainerControl": cleared}}


def _files(checkpoint: Path) -> list[str]:
    """The files that its marker lists. Others did not exist when the checkpoint was complete."""
    marker = read_json(checkpoint / checkpoints.MARKER)
    return sorted(marker.get("files", {}))
