"""Format a question for a run: with its chat template, or as its dataset formats instructions.

Both come from Axolotl. It is imported in the trainer's environment only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from axolotl.cli.utils import resolve_chat_template_str
from axolotl.prompt_strategies import load as load_strategy
from axolotl.prompt_strategies.alpaca_w_system import InstructionWSystemPromptTokenizingStrategy
from axolotl.prompt_tokenizers import InstructionPromptTokenizingStrategy
from axolotl.prompters import AlpacaPrompter, GPTeacherPrompter
from axolotl.utils.chat_templates import get_chat_template, get_chat_template_from_config
from axolotl.utils.dict import DictDefault
from jinja2.exceptions import TemplateError

from modal_app.process.failures import StepFailed
from modal_app.store.step import FailureReason

Message = Mapping[str, str]
Conversation = Sequence[Message]
"""Messages {"role", "content"}, the last one the user's."""

Prompter = Callable[[str | None, str], str]
"""Formats a system message, if there is one, and an instruction as in training (alpaca and similar types)."""

INSTRUCTED = {"alpaca": AlpacaPrompter, "gpteacher": GPTeacherPrompter}
"""Types of dataset that Axolotl selects by their names alone, and their prompters."""
PLAIN = ("completion", "input_output", "pretrain")
"""Types of dataset whose text is not formatted."""
NO_PLACE = "this run was trained without a chat template, and its format has no place for {}"


@dataclass(frozen=True, slots=True)
class Template:
    """The chat template that a run was trained with."""

    text: str
    values: Mapping[str, Any]
    """The config's `chat_template_kwargs`."""

    def ids(self, tokenizer: Any, messages: Conversation, *, answer_follows: bool) -> list[int]:
        """Raises StepFailed for a conversation that the template refuses (with a system message, for example)."""
        try:
            rendered = tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=self.text,
                add_generation_prompt=answer_follows,
                tokenize=True,
                return_dict=True,
                **self.values,
            )
        except TemplateError as error:
            raise StepFailed(
                FailureReason.DATA, f"the run's chat template refuses the conversation: {error}"
            ) from error
        return list(rendered["input_ids"])


def template_of(cfg: DictDefault, tokenizer: Any) -> Template | None:
    """The chat template that a config trains with; None if it trains without one."""
    text = _template_text(cfg, tokenizer)
    return Template(text, dict(cfg.chat_template_kwargs or {})) if text else None


def prompter_of(cfg: DictDefault, tokenizer: Any) -> Prompter | None:
    """Formats instructions as in training; None for plain text. Raises StepFailed for what the format cannot hold."""
    dataset = cfg.datasets[0] if cfg.datasets else None
    if dataset is None or dataset.type is None:
        return None
    if not isinstance(dataset.type, str):
        strategy = load_strategy("user_defined", tokenizer, cfg, dataset.type.to_dict())
        return functools.partial(_with_system, strategy.prompter, dataset.type.system_prompt or "")
    kind, _, style = dataset.type.partition(":")
    strategy = load_strategy(dataset.type, tokenizer, cfg, dataset)
    if isinstance(strategy, InstructionWSystemPromptTokenizingStrategy):
        return functools.partial(_with_system, strategy.prompter, "")
    if isinstance(strategy, InstructionPromptTokenizingStrategy):
        return functools.partial(_instructed, strategy.prompter)
    if kind in INSTRUCTED:
        return functools.partial(_instructed, INSTRUCTED[kind](style or None))
    if kind in PLAIN:
        return None
    return functools.partial(_unknown, dataset.type)


def instruction(prompter: Prompter | None, conversation: Conversation) -> str:
    """The prompt without a chat template: one question, with a system message if the format has a place for it."""
    *before, last = conversation
    system = before[0]["content"] if before and before[0]["role"] == "system" else None
    if len(before) > (system is not None):
        raise StepFailed(FailureReason.DATA, NO_PLACE.format("earlier turns"))
    if system is not None and prompter is None:
        raise StepFailed(FailureReason.DATA, NO_PLACE.format("a system message"))
    return prompter(system, last["content"]) if prompter else last["content"]


def _template_text(cfg: DictDefault, tokenizer: Any) -> str | None:
    """The chat template of the config, or that of its first dataset."""
    if text := resolve_chat_template_str(cfg, tokenizer):
        return str(text)
    kind = str(cfg.datasets[0].type).partition(".")[0] if cfg.datasets else ""
    if kind == "chat_template":  # for preference pairs, a function's name follows it
        return str(get_chat_template_from_config(cfg, cfg.datasets[0], tokenizer))
    return str(get_chat_template(kind)) if kind in ("chatml", "llama3") else None


def _with_system(prompter: Any, default: str, system: str | None, text: str) -> str:
    message = default if system is None else system
    return str(next(iter(prompter.build_prompt_w_system(message, text, "", ""))))


def _instructed(prompter: Any, system: str | None, text: str) -> str:
    if system is not None:
        raise StepFailed(FailureReason.DATA, NO_PLACE.format("a system message"))
    return str(next(iter(prompter.build_prompt(text))))


def _unknown(kind: str, system: str | None, text: str) -> NoReturn:
    raise StepFailed(
        FailureReason.CONFIG,
        f"this run was trained without a chat template, on a dataset of type {kind}: axosweep cannot format a question "
        "for this type",
    )
