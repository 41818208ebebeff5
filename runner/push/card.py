"""Facts of a run -> its model card: Markdown with metadata for the Hugging Face hub. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.console.numbers import loss
from runner.cost.spent import money
from runner.push.files import Kind
from runner.push.tasks import Score, model_index, table

TAG = "axosweep"


@dataclass(frozen=True, slots=True)
class Source:
    """The base model, or a dataset."""

    name: str
    """Its name on the hub, or the last part of its local path."""
    on_hub: bool
    identity: str
    """The commit on the hub, or the sha256 of the content; empty if it is not known."""

    def as_markdown(self) -> str:
        if self.on_hub:
            return f"`{self.name}`" + (f" at `{self.identity}`" if self.identity else "")
        known = f", sha256 `{self.identity}`" if self.identity else ""
        return f"`{self.name}`, a local file or folder{known}"


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the records say about a run. None means not recorded."""

    repo: str
    run: str
    sweep: str
    kind: Kind
    adapter: str | None
    """lora, qlora, ...; None for a full fine-tune."""
    base: Source
    data: tuple[Source, ...]
    rows: int | None
    eval_rows: int | None
    tokens: int | None
    """Of the training rows, each counted once."""
    metrics: Mapping[str, tuple[float, int]]
    """The last logged value of each, and its step; of the eval loss, that of the weights."""
    stored_step: int | None
    """The step of the weights, if it is known to be an earlier one than the last."""
    first: float | None
    """The eval loss of the weights that training began with."""
    best: tuple[float, int] | None
    """The smallest eval loss, and its step."""
    hardware: str
    seconds: float | None
    """On Modal, of all containers; otherwise, of all attempts."""
    train_seconds: float | None
    dollars: float | None
    versions: Mapping[str, str]
    config: str
    """YAML."""
    command: str
    """The command that trains it again from the config."""
    sweep_command: str
    """The command that launched its sweep."""
    license: str | None = None
    start: Mapping[str, Any] | None = None
    """Run and step of its start checkpoint."""
    healed: str | None = None
    """How its batch differs from the one in the config, since it was out of memory."""
    scores: tuple[Score, ...] = ()
    """On tasks of the lm-evaluation-harness."""


CONFIG = "config.yml"


def card(facts: CardFacts) -> str:
    """README.md. The same facts always give the same text, without the time of writing."""
    return f"---\n{_metadata(facts)}\n---\n\n" + "\n".join(_body(facts)).rstrip() + "\n"


def _metadata(facts: CardFacts) -> str:
    """YAML, without keys that are None."""
    from huggingface_hub import ModelCardData

    datasets = list(dict.fromkeys(one.name for one in facts.data if one.on_hub))
    data = ModelCardData(
        license=facts.license,
        library_name="peft" if facts.kind is Kind.ADAPTER else "transformers",
        pipeline_tag="text-generation",
        base_model=facts.base.name if facts.base.on_hub else None,
        base_model_relation=_relation(facts) if facts.base.on_hub else None,
        datasets=datasets or None,
        tags=[TAG, "axolotl", *([facts.adapter] if facts.adapter else [])],
    )
    data["model-index"] = model_index(_name(facts), facts.scores)
    return data.to_yaml()


def _name(facts: CardFacts) -> str:
    return facts.repo.partition("/")[2]


def _relation(facts: CardFacts) -> str:
    return "adapter" if facts.kind is Kind.ADAPTER else "finetune"


def _body(facts: CardFacts) -> Iterator[str]:
    yield f"# {_name(facts)}"
    yield ""
    yield _what(facts)
    yield "Trained with [Axolotl](https://github.com/axolotl-ai-cloud/axolotl)"
    yield f"as run `{facts.run}` of the sweep `{facts.sweep}`."
    if facts.start:
        yield f"Training started from the checkpoint at step {facts.start['step']} of run `{facts.start['run']}`."
    yield ""
    if facts.license is None:
        yield "No license is stated here; the terms of the base model and of the data apply."
        yield ""
    yield from _section("Data", _data(facts))
    yield from _section("Results", _results(facts))
    yield from _section("Training", _training(facts))
    yield from _section("Reproduce", _reproduce(facts))
    yield "<details><summary>The Axolotl config</summary>"
    yield ""
    yield "```yaml"
    yield facts.config.rstrip()
    yield "```"
    yield ""
    yield "</details>"


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield from lines
    yield ""


def _what(facts: CardFacts) -> str:
    base = facts.base.as_markdown()
    match facts.kind:
        case Kind.ADAPTER:
            return f"A {facts.adapter} adapter for {base}."
        case Kind.MERGED:
            return f"{base} with a {facts.adapter} adapter merged into it."
        case Kind.FULL:
            if facts.adapter:
                return f"{base}, fine-tuned by ReLoRA: one {facts.adapter} adapter after another was merged into it."
            return f"{base}, with all its weights fine-tuned."


def _data(facts: CardFacts) -> Iterator[str]:
    for one in facts.data:
        yield f"- {one.as_markdown()}"
    if facts.rows is not None:
        held_out = f", {facts.eval_rows} held out" if facts.eval_rows else ""
        tokens = f", {facts.tokens} tokens" if facts.tokens else ""
        yield f"- {facts.rows} training rows{tokens}{held_out}"


def _results(facts: CardFacts) -> Iterator[str]:
    yield "| metric | value | at step |"
    yield "|---|---|---|"
    for name, (value, step) in facts.metrics.items():
        yield f"| {name} | {loss(value)} | {step} |"
    if facts.stored_step is not None:
        yield ""
        yield f"The weights are those of step {facts.stored_step}, not of the last one: the run has stored its best."
    if facts.first is not None and facts.best is not None:
        yield ""
        yield (
            f"The eval loss was {loss(facts.first)} before training; its smallest value was {loss(facts.best[0])}, at "
            f"step {facts.best[1]}."
        )
    if facts.scores:
        yield ""
        yield from table(facts.scores)


def _training(facts: CardFacts) -> Iterator[str]:
    yield f"- Hardware: {facts.hardware}"
    if facts.seconds is not None:
        training = f", {facts.train_seconds:.0f} of them in optimizer steps" if facts.train_seconds is not None else ""
        yield f"- Time: {facts.seconds:.0f} s{training}"
    if facts.healed:
        yield f"- Batch: {facts.healed}, with the same number of rows in each step"
    if facts.dollars is not None:
        yield f"- Cost: {money(facts.dollars)}"
    yield "- Versions: " + ", ".join(f"{name} {version}" for name, version in facts.versions.items())


def _reproduce(facts: CardFacts) -> Iterator[str]:
    yield f"With `{CONFIG}` of this repository{_local_inputs(facts)}:"
    yield ""
    yield "```"
    yield facts.command
    yield "```"
    yield ""
    yield "The sweep was launched with:"
    yield ""
    yield "```"
    yield facts.sweep_command
    yield "```"


def _sources(facts: CardFacts) -> tuple[Source, ...]:
    return (facts.base, *facts.data)


def _local_inputs(facts: CardFacts) -> str:
    local = dict.fromkeys(f"`{one.name}`" for one in _sources(facts) if not one.on_hub)
    return f", and {', '.join(local)} next to it" if local else ""
