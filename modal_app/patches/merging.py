"""Patches of ReLoRA, which merges its adapter into the base model several times during a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modal_app.patches.patch import module_with, require
from modal_app.store import checkpoints
from modal_app.store.step import Step

FOLDER = "relora"
"""Axolotl's own name for the folder in a checkpoint."""
FILE = "merged_into.safetensors"


def save_what_relora_merged_into(step: Step) -> None:
    """Each checkpoint gets the base weights that adapters were merged into, and a resumed run loads them.

    Except where the base model is quantized: such a run starts from scratch (`checkpoints.can_resume`).
    """
    if not step.config.get("relora") or not checkpoints.can_resume(step.config):
        return
    relora = module_with("axolotl.monkeypatch.relora", "ReLoRACallback", "find_lora_modules")
    require(relora.ReLoRACallback, "ReLoRACallback", "on_save", "on_train_begin")

    def save(callback: Any, args: Any, state: Any, control: Any, model: Any, **_: Any) -> Any:
        from safetensors.torch import save_file

        if state.is_world_process_zero:
            file = _file(args, state)
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(dict(_merged_into(relora, model)), file)
        return control

    def load(callback: Any, args: Any, state: Any, control: Any, model: Any, **_: Any) -> Any:
        from safetensors.torch import load_file

        if state.global_step:
            saved = load_file(_file(args, state))
            for name, weight in _merged_into(relora, model):
                weight.copy_(saved[name])
            callback.num_lora_restarts = (state.global_step - 1) // callback.jagged_restart_steps
        return control

    relora.ReLoRACallback.on_save = save
    relora.ReLoRACallback.on_train_begin = load


def restart_relora_alone(step: Step) -> None:
    """A restart saves nothing. All ranks draw the same numbers for it, from the seed and the number of the step."""
    if not step.config.get("relora"):
        return
    relora = module_with("axolotl.monkeypatch.relora", "ReLoRACallback")
    require(relora.ReLoRACallback, "ReLoRACallback", "on_step_begin")
    begin: Callable[..., Any] = relora.ReLoRACallback.on_step_begin

    def restart(callback: Any, args: Any, state: Any, control: Any, model: Any, **others: Any) -> Any:
        import torch

        if not state.global_step or state.global_step % callback.jagged_restart_steps:
            return control
        with torch.random.fork_rng(enabled=step.processes > 1):
            if step.processes > 1:
                torch.manual_seed(args.seed + state.global_step)
            model.save_pretrained = _save_nothing
            try:
                return begin(callback, args, state, control, model, **others)
            finally:
                del model.save_pretrained

    relora.ReLoRACallback.on_step_begin = restart


def _save_nothing(*_: Any, **__: Any) -> None:
    pass


def _file(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"{checkpoints.PREFIX}{state.global_step}" / FOLDER / FILE


def _merged_into(relora: Any, model: Any) -> Iterator[tuple[str, Any]]:
    """The base weights below each adapter, by name."""
    for name, layer in relora.find_lora_modules(model).items():
        yield name, layer.get_base_layer().weight.detach()
