"""Rules about the length of a run: a batch that its rows cannot fill, and intervals that are longer than the run."""

from __future__ import annotations

from collections.abc import Iterator

from runner.preflight.data import Steps
from runner.preflight.findings import Finding, error, warning
from runner.preflight.rules.run_facts import RunFacts

TRAINER = "https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments"
BATCHES = "https://docs.axolotl.ai/docs/multi-gpu.html"


def batch_of_more_rows_than_there_are(run: RunFacts) -> Iterator[Finding]:
    steps, ranks = run.steps, run.ranks
    if steps is None or steps.batch <= steps.rows:
        return
    finding, rows = (warning, f"about {steps.rows}") if steps.declared else (error, f"{steps.rows}")
    yield finding(
        "micro_batch_size",
        run.axolotl.get("micro_batch_size", 1),
        f"a step takes {steps.batch} rows (micro_batch_size x gradient_accumulation_steps x {ranks} "
        f"{'process' if ranks == 1 else 'processes'}) and the dataset has "
        f"{rows} for training{', by its declared size' if steps.declared else ''}",
        "Make the batch smaller, or use more rows.",
        BATCHES,
    )


def interval_beyond_the_run(run: RunFacts) -> Iterator[Finding]:
    if run.steps is None:
        return
    for key in ("eval_steps", "save_steps", "logging_steps"):
        every = run.number(key) or 0
        if every >= 1 and every > run.steps.total:
            still = "; only its first and last state are evaluated" if key == "eval_steps" else ""
            reached = f"this step is never reached: the run has {length_text(run.steps)}{still}"
            yield warning(key, run.axolotl[key], reached, source=TRAINER)


def warmup_beyond_the_run(run: RunFacts) -> Iterator[Finding]:
    warmup = run.number("warmup_steps") or 0
    if run.steps is not None and warmup >= run.steps.total:
        never = f"the warmup never ends: the run has {length_text(run.steps)}"
        yield warning("warmup_steps", run.axolotl["warmup_steps"], never, source=TRAINER)


def length_text(steps: Steps) -> str:
    """For people: `12 steps at most`."""
    counted = f"{steps.total} step{'' if steps.total == 1 else 's'}"
    if steps.given:
        return counted
    return f"about {counted}, by the dataset's declared size" if steps.declared else f"{counted} at most"


RULES = (batch_of_more_rows_than_there_are, interval_beyond_the_run, warmup_beyond_the_run)
