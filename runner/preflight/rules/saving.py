"""Rules about checkpoints: bytes that are written more often than they could ever be used."""

from __future__ import annotations

from collections.abc import Iterator

from runner.config.gpus import GPUS
from runner.memory.disk import saved_bytes
from runner.memory.sharding import with_files
from runner.preflight.findings import Finding, warning
from runner.preflight.rules.run_facts import RunFacts

TRAINER = "https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments.save_steps"
LARGE = 1_000_000_000
OFTEN = 10
"""So few steps between saves that not all of these checkpoints are ever useful."""
TRIAL = 100
"""A run of so few steps is a trial, which may save as often as it likes."""
KEPT = 10
"""More checkpoints than a user compares."""


def full_model_saved_every_few_steps(run: RunFacts) -> Iterator[Finding]:
    """A full fine-tune of a large model writes all weights, and the optimizer's state, every few steps."""
    key = "saves_per_epoch" if run.axolotl.get("saves_per_epoch") else "save_steps"
    every = _steps_between_saves(run)
    if every is None or every >= OFTEN or run.axolotl.get("adapter"):
        return
    if run.parameters is None or run.parameters < LARGE:
        return
    if run.total_steps is not None and run.total_steps <= TRIAL:
        return
    each = _bytes(run)
    often = "after each step" if every <= 1 else f"every {every:.2g} steps"
    stored_limit = run.number("save_total_limit") or 0
    yield warning(
        key,
        run.axolotl[key],
        f"{often} the cards wait until {each / 1e9:.0f} GB are written (weights"
        f"{'' if run.axolotl.get('save_only_model') else ' and optimizer state'} of "
        f"{run.parameters / 1e9:.3g} billion parameters)"
        + (
            f", and save_total_limit={stored_limit:g} keeps {stored_limit * each / 1e12:.0f} TB"
            if stored_limit >= KEPT
            else ""
        ),
        f"Set saves_per_epoch=1{' (~save_steps)' if key == 'save_steps' else ''}, or save_steps=200.",
        TRAINER,
    )


def _steps_between_saves(run: RunFacts) -> float | None:
    often, steps = run.number("saves_per_epoch") or 0, run.steps_per_epoch
    if often:
        return steps / often if steps is not None and often > 1 else None
    every = run.number("save_steps") or 0
    return every if every >= 1 else None


def _bytes(run: RunFacts) -> float:
    """Bytes of a checkpoint, as in the plan's price and disk; otherwise, as far as the optimizer's name shows."""
    experiment = run.experiment
    card = GPUS.get(experiment.gpu.type)
    if run.model is not None and card is not None:
        saved = saved_bytes(with_files(run.axolotl), run.model, card, experiment.gpu.count)
        if saved is not None:
            return saved.checkpoint
    weights = (run.parameters or 0) * 2
    return weights if run.axolotl.get("save_only_model") else weights + _state(run)


def _state(run: RunFacts) -> float:
    """Bytes of the optimizer's state."""
    name = str(run.axolotl.get("optimizer") or "adamw_torch_fused")
    if "lomo" in name or name in ("sgd", "flash_sgd"):
        return 0
    bytes_per_weight = 1 if "4bit" in name else 2 if "8bit" in name else 4
    return (run.parameters or 0) * bytes_per_weight * (0.5 if "lion" in name else 1)


RULES = (full_model_saved_every_few_steps,)
