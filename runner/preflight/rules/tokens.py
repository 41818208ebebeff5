"""Rules about the tokens of rows: those that the loss sees, and those that a template or the config brings along."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modal_app.store.own_data import own_data_of
from runner.preflight.findings import Finding, Severity, warning
from runner.preflight.rules.run_facts import ListedDataset, RunFacts
from runner.preflight.tokenizer_files import special_token, tokenizer_folder, tokens_lacking

CONVERSATIONS = "https://docs.axolotl.ai/docs/dataset-formats/conversation.html"
TEMPLATES = "https://huggingface.co/docs/transformers/chat_templating"
LOADER = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/loaders/tokenizer.py"
PICTURES = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/processing_strategies.py"
INSTRUCTIONS = "https://docs.axolotl.ai/docs/dataset-formats/inst_tune.html"
ROLES: Mapping[str, str] = {
    "human": "user",
    "user": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
    "tool": "tool",
}
"""As the rows spell them -> as chat templates do, where a dataset has no `roles`."""
FAMILIES: Mapping[str, str] = {
    "llama3": r"(meta-)?llama-?3",
    "qwen": r"qwen-?[23]|qwq",
    "gemma": r"gemma",
    "mistral": r"mistral|mixtral|ministral",
    "phi": r"phi-[34]",
}
"""Family -> how the names of its own models begin."""
INSTRUCTED = re.compile(r"instruct|-it\b|chat|^qwen3-[\d.]+b(-a\d+b)?$|^phi-[34]|^qwq")
TEMPLATES_OF: Mapping[str, tuple[str, ...]] = {
    "llama3": ("llama3", "llama3_2_vision", "llama4"),
    "qwen": ("qwen_25", "qwen3", "qwen3_5", "qwen2_vl"),
    "gemma": ("gemma", "gemma3", "gemma3n", "gemma4", "gemma4_unified"),
    "mistral": ("mistral_v1", "mistral_v2v3", "mistral_v3_tekken", "mistral_v7_tekken", "pixtral"),
    "phi": ("phi_3", "phi_35", "phi_4"),
    "": ("aya", "cohere", "command_a", "deepseek_v2", "deepseek_v3", "exaone", "exaone4", "falcon_h1", "jamba"),
}
"""Templates of one family alone. chatml, alpaca and the like are anybody's."""
EMBEDDINGS = ("lora_modules_to_save", "peft_trainable_token_indices")


def no_role_to_train(run: RunFacts) -> Iterator[Finding]:
    """No message has a role that is trained, so every token is masked and the loss is NaN."""
    if run.axolotl.get("rl") or run.axolotl.get("train_on_inputs") or own_data_of(run.axolotl):
        return
    silent = [one for one in run.training if _has_no_trained_turn(one)]
    severity = Severity.ERROR if len(silent) == len(run.training) else Severity.WARNING
    for one in silent:
        assert one.rows is not None
        trained, seen = _trained(one.entry), ", ".join(f"{name} ({count})" for name, count in one.rows.roles.items())
        yield Finding(
            severity,
            f"{one.at}.roles_to_train",
            "[" + ", ".join(trained) + "]",
            f"no message of {one.path} has such a role, so none of its tokens is trained; it has the roles {seen}",
            f"Name a role of the rows, or map one: {one.at}.roles={{assistant: [NAME]}}.",
            CONVERSATIONS,
        )


def no_output_to_train(run: RunFacts) -> Iterator[Finding]:
    """The answers are empty or missing, so the rows are read and computed, and nothing of them is trained."""
    if run.axolotl.get("rl") or run.axolotl.get("train_on_inputs") or own_data_of(run.axolotl):
        return
    for one in run.training:
        column = _output_column(one.entry)
        if one.rows is None or column is None or one.rows.tokenized:
            continue
        rows = one.rows
        without = rows.count - rows.columns.get(column, 0) + rows.empty.get(column, 0)
        if without * 5 < rows.count or (without == rows.count and column not in rows.columns and _by_type(one.entry)):
            continue
        alone = without == rows.count and len(run.training) == 1
        yield Finding(
            Severity.ERROR if alone else Severity.WARNING,
            f"{one.at}.path",
            one.path,
            f"`{column}`, which is what is trained, is empty in {without} of its {rows.count} rows, and these teach "
            "nothing",
            "Remove these rows, or name the column with the answers.",
            INSTRUCTIONS,
        )


def template_of_another_family(run: RunFacts) -> Iterator[Finding]:
    """An instruct model is trained in the format of another family: its own is forgotten, the new one costs rows."""
    name = str(run.axolotl.get("base_model") or "").rstrip("/").rsplit("/", 1)[-1].lower()
    family = next((family for family, begins in FAMILIES.items() if re.match(begins, name)), None)
    added = any(run.axolotl.get(key) for key in ("tokens", "added_tokens_overrides", "tokenizer_config"))
    special = run.axolotl.get("special_tokens")
    if family is None or not INSTRUCTED.search(name) or added:
        return
    if isinstance(special, Mapping) and special.get("additional_special_tokens"):
        return
    for one in run.training:
        if not str(one.entry.get("type") or "").startswith("chat_template"):
            continue
        at, template = f"{one.at}.chat_template", one.entry.get("chat_template")
        if not template:
            at, template = "chat_template", run.axolotl.get("chat_template")
        others = [other for other, templates in TEMPLATES_OF.items() if other != family and template in templates]
        if others:
            yield warning(
                at,
                template,
                f"{run.axolotl['base_model']} was taught to answer in another format, whose turns end in another "
                "token; with this one it starts from text that its tokenizer splits into pieces",
                f"Write {at}=tokenizer_default for the model's own.",
                TEMPLATES,
            )


def token_that_the_vocabulary_lacks(run: RunFacts) -> Iterator[Finding]:
    """A new token gets an embedding that no training has touched, and an adapter leaves it like that."""
    if not run.adapts or any(run.axolotl.get(key) for key in EMBEDDINGS) or run.axolotl.get("added_tokens_overrides"):
        return
    named = _new_tokens(run.axolotl)
    if not named:
        return
    folder = tokenizer_folder(str(run.axolotl.get("tokenizer_config") or run.axolotl.get("base_model") or ""))
    lacking = tokens_lacking(folder, named) if folder else []
    if lacking:
        yield warning(
            "tokens" if run.axolotl.get("tokens") else "special_tokens",
            lacking,
            "the model's vocabulary does not have that; an adapter alone does not train the embeddings of new tokens, "
            "so the model would read and write them at random",
            "Write lora_modules_to_save=[embed_tokens, lm_head], or use tokens that the vocabulary has.",
            LOADER,
        )


def padding_that_hides_the_end(run: RunFacts) -> Iterator[Finding]:
    """With pictures Axolotl masks every padding token, and where that also ends a turn, no end is ever trained."""
    special = run.axolotl.get("special_tokens")
    pad = special.get("pad_token") if isinstance(special, Mapping) else None
    if not run.axolotl.get("processor_type") or not isinstance(special, Mapping) or not pad:
        return
    folder = tokenizer_folder(str(run.axolotl.get("tokenizer_config") or run.axolotl.get("base_model") or ""))
    own = special_token(folder, "eos_token") if folder else None
    eot = run.axolotl.get("eot_tokens")
    ends = {special.get("eos_token") or own, *(eot if isinstance(eot, list) else ()), "<|im_end|>", "<|eot_id|>"}
    if pad in ends:
        yield warning(
            "special_tokens.pad_token",
            pad,
            "it also ends a turn; with a processor Axolotl masks every one of it, so the model never learns to stop",
            "Leave the pad token as the model has it, or name another one.",
            PICTURES,
        )


def _has_no_trained_turn(one: ListedDataset) -> bool:
    entry, rows = one.entry, one.rows
    if entry.get("type") != "chat_template" or rows is None or rows.tokenized or not rows.roles or rows.parts:
        return False
    if "all" in (entry.get("train_on_eos"), entry.get("train_on_eot")):
        return False
    mapped = entry.get("message_property_mappings")
    marks = [entry.get("message_field_training"), entry.get("message_field_training_detail")]
    marks += [mapped.get(key) for key in ("training", "training_detail")] if isinstance(mapped, Mapping) else []
    if any(mark in rows.properties for mark in marks if mark):
        return False
    roles = _roles(entry)
    trained = {roles.get(role, role) for role in _trained(entry)}
    return not trained & {roles.get(role, role) for role in rows.roles}


def _roles(entry: Mapping[str, Any]) -> Mapping[str, str]:
    own = entry.get("roles")
    if not isinstance(own, Mapping) or not own:
        return ROLES
    return {str(source): str(role) for role, sources in own.items() if isinstance(sources, list) for source in sources}


def _trained(entry: Mapping[str, Any]) -> Sequence[str]:
    named = entry.get("roles_to_train")
    return [str(one) for one in named] if isinstance(named, list) else ["assistant"]


def _output_column(entry: Mapping[str, Any]) -> str | None:
    match entry.get("type"):
        case "alpaca":
            return "output"
        case Mapping() as kind:
            return str(kind.get("field_output") or "output")
    return None


def _by_type(entry: Mapping[str, Any]) -> bool:
    """Whether another check reports a missing column."""
    return isinstance(entry.get("type"), str)


def _new_tokens(axolotl: Mapping[str, Any]) -> list[str]:
    """Tokens that the config adds and that rows may have; a padding token is only padding."""
    special, tokens = axolotl.get("special_tokens"), axolotl.get("tokens")
    named: list[Any] = list(tokens) if isinstance(tokens, list) else []
    if isinstance(special, Mapping):
        more = special.get("additional_special_tokens")
        named += list(more) if isinstance(more, list) else []
        named += [value for key, value in special.items() if key.endswith("_token") and key != "pad_token"]
    pad = special.get("pad_token") if isinstance(special, Mapping) else None
    return list(dict.fromkeys(one for one in named if isinstance(one, str) and one != pad))


RULES = (
    no_role_to_train,
    no_output_to_train,
    template_of_another_family,
    token_that_the_vocabulary_lacks,
    padding_that_hides_the_end,
)
