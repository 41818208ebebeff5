"""Plan -> Axolotl config files that need no axosweep: `axolotl train FILE` trains each run to the same loss."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from modal_app.store.own_data import PRETRAINING, own_data_of, without_revisions
from modal_app.store.step import write_atomically
from modal_app.store.user_code import CONFIG_KEY as USER_CODE
from runner.compare.params import label, params_of
from runner.errors import SweepError
from runner.keys.identity import placed_config
from runner.keys.inputs import ADAPTER, hub_name
from runner.types import Gpu, Input, InputKind, Plan, Run

STREAMED = ("datasets.", f"{PRETRAINING}.")
"""Axolotl itself reads these streams at the newest commit."""


def write_configs(plan: Plan, folder: str) -> list[Path]:
    """One file per run, DIR/<run key>.yml, and one to preprocess with, if preprocessing has its own seed.

    Raises SweepError if a file exists with different content (then nothing is written), or cannot be written.
    """
    root = Path(folder).expanduser().absolute()
    texts: dict[Path, str] = {}
    for name, text in _files(plan, root):
        texts.setdefault(root / name, text)  # runs of one dataset share the file that prepares it
    different = [str(path) for path, text in texts.items() if path.exists() and not _has(path, text)]
    if different:
        raise SweepError(f"{', '.join(different)}: exists with different content. Name another folder, or remove it.")
    try:
        root.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            write_atomically(path, text)
    except OSError as error:
        raise SweepError(f"{root} cannot be written: {error.strerror}.") from error
    return list(texts)


def _has(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode("utf-8", "surrogateescape")


def _files(plan: Plan, root: Path) -> Iterator[tuple[str, str]]:
    runs = [planned.run for planned in plan.runs]
    labels = [label(one) for one in params_of([run.experiment for run in runs])]
    for run, params in zip(runs, labels, strict=True):
        config = _plain(run, root)
        seed = run.experiment.data.seed
        prepare = f"prepare-{run.data_key}.yml"
        shuffled_otherwise = seed is not None and seed != config.get("seed")
        if shuffled_otherwise:
            yield prepare, _text(config | {"seed": seed}, [f"axolotl preprocess {prepare}"])
        about = [f"Run {run.key} of {plan.sweep}{f': {params}' if params else ''}"]
        if shuffled_otherwise:
            about.append(f"First: axolotl preprocess {prepare}   (the rows are shuffled with seed {seed})")
        code = _code_folders(run)
        about += [f"With its Python modules: PYTHONPATH={code}"] if code else []
        about += [_command(f"{run.key}.yml", run.experiment.gpu), *map(_unpinned_line, _unpinned_inputs(run))]
        yield f"{run.key}.yml", _text(config, about)


def _plain(run: Run, root: Path) -> dict[str, Any]:
    """The config for Axolotl: local inputs by absolute path, hub inputs by commit, output folders below `root`."""
    config = placed_config(
        run.experiment.axolotl, run.inputs, lambda found: str(Path(found.text).expanduser().absolute())
    )
    config.pop(USER_CODE, None)
    for found in run.inputs:
        if found.at == ADAPTER and found.kind is InputKind.HUB:
            config[ADAPTER] = hub_name(found)
    return without_revisions(config) | {
        # One for each data key, since Axolotl's own hash leaves out the seed and the content of files.
        "dataset_prepared_path": str(root / "prepared" / run.data_key),
        "output_dir": str(root / "outputs" / run.key),
        **_tracking(run),
    }


def _tracking(run: Run) -> dict[str, Any]:
    tracking = run.experiment.tracking
    if tracking.mode == "disabled":
        return {"use_wandb": False}
    keys = {"wandb_project": tracking.project, "wandb_entity": tracking.entity, "wandb_name": run.key}
    return {"use_wandb": True, "wandb_mode": tracking.mode} | {key: value for key, value in keys.items() if value}


def _command(name: str, gpu: Gpu) -> str:
    if gpu.type == "cpu":
        return f"CUDA_VISIBLE_DEVICES= axolotl train {name} --launcher python"
    if gpu.count == 1:
        return f"axolotl train {name}   (on a {gpu.type})"
    return f"axolotl train {name} --launcher torchrun -- --nproc_per_node={gpu.count}   ({gpu.count} x {gpu.type})"


def _code_folders(run: Run) -> str:
    """The folders in which the user's modules are, for Python."""
    files = [one for found in run.inputs for one in found.files]
    return os.pathsep.join(dict.fromkeys(path.removesuffix(name).rstrip("/") or "/" for name, path in files))


def _unpinned_inputs(run: Run) -> list[Input]:
    """The hub inputs that this file cannot pin to a commit."""
    own = own_data_of(run.config)
    streamed = own is not None and own.streams and (PRETRAINING in run.config or bool(run.config.get("sample_packing")))
    return [
        one
        for one in run.inputs
        if one.kind is InputKind.HUB
        and (one.identity is None or one.at == ADAPTER or (streamed and one.at.startswith(STREAMED)))
    ]


def _unpinned_line(found: Input) -> str:
    commit = f", here at commit {found.identity}" if found.identity else ", at whatever commit it has then"
    return f"{found.at}: {hub_name(found)}{commit}"


def _text(config: Mapping[str, Any], about: list[str]) -> str:
    body = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    return "".join(f"# {' '.join(line.splitlines())}\n" for line in about) + body  # a value may hold line breaks
