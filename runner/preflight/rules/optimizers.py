"""Rules about optimizers: what one needs before it can be created, and schedules that it has no use for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runner.preflight.findings import Finding, error, warning
from runner.preflight.rules.run_facts import RunFacts

TRANSFORMERS = "https://github.com/huggingface/transformers/blob/main/src/transformers/trainer_optimizer.py"
SCHEDULE_FREE = "https://github.com/facebookresearch/schedule_free#caveats"
SCHEDULES = "https://github.com/huggingface/transformers/blob/main/src/transformers/optimization.py"
NEEDED = {
    "cosine_with_min_lr": ("min_lr_rate", "min_lr"),
    "cosine_warmup_with_min_lr": ("min_lr_rate", "min_lr"),
    "warmup_stable_decay": ("num_decay_steps",),
}
EXAMPLES = {"min_lr_rate": 0.1, "num_decay_steps": 100}
PROJECTED = ("galore_", "apollo_")


def projection_without_targets(run: RunFacts) -> Iterator[Finding]:
    """GaLore and APOLLO need optim_target_modules."""
    optimizer = str(run.axolotl.get("optimizer") or "")
    if optimizer.startswith(PROJECTED) and not run.axolotl.get("optim_target_modules"):
        yield error(
            "optimizer",
            optimizer,
            "transformers refuses it without optim_target_modules once the model is loaded",
            "Set optim_target_modules=[self_attn,mlp].",
            TRANSFORMERS,
        )


def layerwise_optimizer_with_accumulation(run: RunFacts) -> Iterator[Finding]:
    """A layerwise optimizer steps in the backward pass, so it can neither accumulate gradients nor share them."""
    optimizer = str(run.axolotl.get("optimizer") or "")
    if not optimizer.startswith(PROJECTED) or not optimizer.endswith("layerwise"):
        return
    accumulated = run.number("gradient_accumulation_steps") or 1
    if accumulated > 1:
        yield error(
            "gradient_accumulation_steps",
            run.axolotl["gradient_accumulation_steps"],
            f"transformers refuses it with optimizer={optimizer} once the model is loaded",
            f"Set gradient_accumulation_steps=1, or optimizer={optimizer.removesuffix('_layerwise')}.",
            TRANSFORMERS,
        )
    if run.experiment.gpu.count > 1:
        yield error(
            "gpu.count",
            run.experiment.gpu.count,
            f"transformers refuses several processes with optimizer={optimizer} once the model is loaded",
            f"Set gpu.count=1, or optimizer={optimizer.removesuffix('_layerwise')}.",
            TRANSFORMERS,
        )


def schedule_without_its_arguments(run: RunFacts) -> Iterator[Finding]:
    """cosine_with_min_lr needs its lowest rate, and warmup_stable_decay its number of decay steps."""
    scheduler, given = run.axolotl.get("lr_scheduler"), run.axolotl.get("lr_scheduler_kwargs") or {}
    needs = NEEDED.get(str(scheduler))
    if needs is None or not isinstance(given, Mapping) or any(key in given for key in needs) or run.foreign:
        return
    yield error(
        "lr_scheduler",
        scheduler,
        f"transformers refuses it without {' or '.join(needs)} in lr_scheduler_kwargs, when the training begins"
        + (" (cosine_min_lr_ratio is for lr_scheduler=cosine)" if run.axolotl.get("cosine_min_lr_ratio") else ""),
        f"Set lr_scheduler_kwargs={{{needs[0]}: {EXAMPLES[needs[0]]}}}"
        + (", or lr_scheduler=cosine." if scheduler != "warmup_stable_decay" else "."),
        SCHEDULES,
    )


def schedule_of_an_optimizer_without_one(run: RunFacts) -> Iterator[Finding]:
    """A schedule-free optimizer averages weights instead of lowering its rate, but the schedule still lowers the
    rate."""
    optimizer = str(run.axolotl.get("optimizer") or "")
    scheduler = str(run.axolotl.get("lr_scheduler") or "cosine")
    if optimizer.startswith("schedule_free") and not scheduler.startswith("constant") and not run.foreign:
        yield warning(
            "lr_scheduler",
            run.axolotl.get("lr_scheduler"),
            f"{optimizer} replaces a schedule, and loses its advantage if {scheduler} also lowers its rate",
            "Set lr_scheduler=constant.",
            SCHEDULE_FREE,
        )


def warmup_of_a_constant_rate(run: RunFacts) -> Iterator[Finding]:
    """The schedule `constant` has no warmup, whatever warmup_steps and warmup_ratio say."""
    own = str(run.axolotl.get("optimizer")).startswith("schedule_free")  # has a warmup of its own
    for key in ("warmup_steps", "warmup_ratio"):
        if run.axolotl.get("lr_scheduler") == "constant" and (run.number(key) or 0) > 0 and not own:
            yield warning(
                key,
                run.axolotl[key],
                "lr_scheduler=constant begins with the full learning rate and ignores it",
                "Set lr_scheduler=constant_with_warmup.",
                SCHEDULES,
            )


RULES = (
    projection_without_targets,
    layerwise_optimizer_with_accumulation,
    schedule_without_its_arguments,
    schedule_of_an_optimizer_without_one,
    warmup_of_a_constant_rate,
)
