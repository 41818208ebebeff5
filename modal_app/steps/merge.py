"""A merge step: the adapter of a run, or another one, is merged into its base model, and the result has a manifest.

Axolotl does it shard by shard by default, so that the model need not fit into memory. `options`: adapter, the folder of
another adapter below the store's inputs (without it, the run's own is merged).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from modal_app.process.attempt import BUILD, stamp, write_yaml
from modal_app.process.failures import StepFailed
from modal_app.process.rank import Rank
from modal_app.steps.infer import usable_model
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.manifest import listed_files
from modal_app.store.step import FailureReason, Step, StepKind, write_atomically

MERGED = "merged"
"""Axolotl's own name for the folder in its output_dir."""
WHOLE_MODEL_METHODS = ("adalora", "vera")
"""Adapters that Axolotl merges only with the whole model in memory."""


def merge(step: Step, store: Store, folder: StepFolder, attempt: Attempt, rank: Rank) -> dict[str, Any]:
    """Write the merged model to the step's `model/`; returns its files and bytes. Raises StepFailed."""
    from axolotl.cli.merge_lora import do_cli

    adapter = adapter_of(step, store, attempt)
    write_yaml(attempt.config, stamp(step, output_dir=BUILD, dataset_prepared_path="prepared") | _method(adapter))
    rank.clock.book("config")
    sys.argv = ["axolotl"]  # Axolotl parses it
    do_cli(config=attempt.config.name, lora_model_dir=str(adapter))
    rank.clock.book("merge")
    merged = attempt.path / BUILD / MERGED
    if not list(merged.glob("*.safetensors")) + list(merged.glob("*.bin")):
        raise StepFailed(FailureReason.ERROR, "Axolotl ended without an error, and left no merged weights")
    files = listed_files(merged)
    if folder.model.exists():
        shutil.rmtree(folder.model)  # an earlier worker moved it, and died before it recorded that
    merged.rename(folder.model)
    write_atomically(folder.manifest, json.dumps({"files": files, "of": step.run}, indent=1))
    rank.clock.book("save")
    return {"files": len(files), "bytes": sum(one["bytes"] for one in files.values())}


def adapter_of(step: Step, store: Store, attempt: Attempt) -> Path:
    """The folder of the step's adapter, as a path from the attempt's folder. Raises StepFailed without one.

    PEFT loads the base model that an adapter names only if it gets no model; here it always gets one.
    """
    given = step.options.get("adapter")  # below `inputs`, to which the attempt's folder has a link
    if not given:
        return usable_model(store, store.folder(StepKind.TRAIN, step.run).model, "adapter_config.json", attempt)
    if not (Path(given) / "adapter_config.json").exists():
        raise StepFailed(FailureReason.DATA, f"there is no adapter in {given}: adapter_config.json is missing")
    return Path(given)


def _method(adapter: Path) -> dict[str, Any]:
    kind = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get("peft_type", "")
    return {"merge_method": "legacy"} if str(kind).lower() in WHOLE_MODEL_METHODS else {}
