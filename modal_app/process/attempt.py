"""One attempt at a step: its folder, its environment, its log. Standard library, except for writing YAML.

The attempt's folder is the worker's working directory, so a config that names `inputs/...` is the same on every
machine, and no stray `.env` or config from the folder where the sweep was started has an effect.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modal_app.process import threads, tracking
from modal_app.process.attention import kernel_of
from modal_app.process.native_code import without_fetched_code
from modal_app.store import start_checkpoint, user_code
from modal_app.store.claim import this_process
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.own_data import entries, is_stored, without_revisions
from modal_app.store.step import Device, Step, StepKind, write_atomically

PLUGIN = "modal_app.steps.plugin.AxosweepPlugin"
NO_TELEMETRY = {
    "AXOLOTL_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "WANDB_ERROR_REPORTING": "false",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
"""Telemetry and update checks are off, unless the user's own environment says otherwise: they tell others what is
trained, and without a network they delay the end of a process."""
DATASETS_CACHE = "datasets-cache"
BUILD = "build"
MODELS_BESIDE = ("base_model_config", "tokenizer_config", "processor_config", "lora_model_dir")
"""Keys that name another model to read from, on the hub or not."""


def begin(step: Step, store: Store, folder: StepFolder, requested: Mapping[str, Any] | None = None) -> Attempt:
    """Create the next attempt's folder, or take the one whose draft `folder` is, and record which process works there.
    The caller has the step's lock. `requested`: the requested config, if this attempt has a different one."""
    attempt = folder.attempt(folder.drafted_by) if folder.drafted_by else _next_attempt(folder)
    folder.files.mkdir(parents=True, exist_ok=True)
    if not store.is_mounted:  # a cache Volume may hold no inputs
        store.inputs.mkdir(exist_ok=True)
    (attempt.path / "inputs").symlink_to(relative_target(attempt.path, store.inputs))
    if folder.scratch is not None:
        _link_temporary(attempt, folder.scratch)
    write_atomically(attempt.step, step.to_json())
    write_atomically(attempt.started, json.dumps(asdict(this_process(step.sweep))))
    if not folder.drafted_by:
        _point_to(attempt, folder.latest)
    if step.kind is StepKind.TRAIN:
        # The request, next to the resulting model: so a run's folder explains itself.
        write_yaml(folder.config, step.config if requested is None else requested)
    return attempt


def _link_temporary(attempt: Attempt, scratch: Path) -> None:
    """Put temporary rows on the container's own disk, under the names that the attempt uses."""
    for name in (DATASETS_CACHE, BUILD):
        (scratch / name).mkdir()
        (attempt.path / name).symlink_to(scratch / name)


def _next_attempt(folder: StepFolder) -> Attempt:
    earlier = folder.attempts()
    for killed in earlier:
        clean(killed)
    attempt = folder.attempt(earlier[-1].number + 1 if earlier else 1)
    attempt.path.mkdir(parents=True)
    return attempt


def _point_to(attempt: Attempt, link: Path) -> None:
    """There is a link at every moment: the new one takes the place of the old one."""
    aside = link.with_name(f".{link.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(attempt.path.name)
    aside.replace(link)


def relative_target(start: Path, target: Path) -> Path:
    """A relative link's text: it stays correct if the store is moved, and if its parts are mounted separately."""
    return Path(os.path.relpath(target.resolve(), start.resolve()))


def enter(attempt: Attempt) -> None:
    """Work in the attempt's folder and write to its log, from this process on."""
    os.chdir(attempt.path)
    redirect(attempt.log)


def redirect(log: Path) -> None:
    """Send this process's output, and its children's, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # in the C locale, a library that prints a row would fail the run
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def environment(step: Step, folder: StepFolder, attempt: Attempt) -> dict[str, str]:
    """What to add to the trainer's process environment. It contains no secret."""
    variables = base_environment(step.device, step.processes)
    variables |= {"HF_DATASETS_CACHE": str(attempt.path / DATASETS_CACHE)}
    if _reads_only_inputs(step.config) and not step.asks_the_hub:
        variables |= {"HF_HUB_OFFLINE": "1"}
    if step.kind is StepKind.TRAIN:
        variables |= tracking.variables(step, folder)
    return variables | dict(step.environment)


def base_environment(device: Device, ranks: int = 1) -> dict[str, str]:
    """What must be set before the heavy imports, the same for every step on a device with so many ranks."""
    variables = {name: os.environ.get(name, value) for name, value in NO_TELEMETRY.items()}
    variables |= {"TOKENIZERS_PARALLELISM": "false", **without_fetched_code(os.environ)}
    if device is Device.CPU:
        variables |= {"CUDA_VISIBLE_DEVICES": "", **threads.for_ranks(device, ranks, 1)}
    else:
        # As the axolotl command does.
        variables |= {"PYTORCH_ALLOC_CONF": os.environ.get("PYTORCH_ALLOC_CONF", "expandable_segments:True")}
        variables |= threads.unless_set(threads.for_ranks(device, ranks, threads.usable_cores()))
    return variables


def write_yaml(path: Path, config: Mapping[str, Any]) -> None:
    """YAML as PyYAML writes it, so that PyYAML reads it back unchanged. It would read JSON's 1e-05 as text."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's takes a tenth of the 3 ms
    write_atomically(path, yaml.dump(dict(config), Dumper=dumper, sort_keys=True, allow_unicode=True))


def stamp(step: Step, **addresses: Any) -> dict[str, Any]:
    """The config as Axolotl reads it: the keyed config, with the paths of this attempt."""
    keyed = {
        key: value
        for key, value in without_revisions(step.config).items()
        if not (key.startswith("wandb_") or key in (start_checkpoint.CONFIG_KEY, user_code.CONFIG_KEY))
    }
    plugins = [*(keyed.get("plugins") or ()), PLUGIN]
    return keyed | tracking.axolotl_keys(step) | {"plugins": plugins} | addresses


def clean(attempt: Attempt) -> None:
    """Remove what only the work itself needed."""
    for path in (attempt.path / DATASETS_CACHE, attempt.path / BUILD):
        if path.is_symlink():
            shutil.rmtree(path.resolve(), ignore_errors=True)
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)


def _reads_only_inputs(config: Mapping[str, Any]) -> bool:
    models = [config[name] for name in (*MODELS_BESIDE, "base_model") if config.get(name)]
    local = all(isinstance(path, str) and path.startswith("inputs/") for path in models)
    return not kernel_of(config) and local and all(map(is_stored, entries(config)))
