"""Rules about the tokens of a model's vocabulary: those that a chat template needs, and those that the config adds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from runner.preflight.findings import Finding, error, warning
from runner.preflight.rules.run_facts import RunFacts
from runner.preflight.tokenizer_files import Vocabulary, special_token, tokenizer_folder, vocabulary

TEMPLATES = "https://huggingface.co/docs/transformers/chat_templating"
LOADER = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/loaders/tokenizer.py"
CHECKS = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/loaders/utils.py"
TURNS = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/prompt_strategies/chat_template.py"
PICTURES = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/processing_strategies.py"
MISTRAL = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/examples/magistral/README.md"
QUESTION_AND_ANSWER = frozenset("alpaca alpaca_chat alpaca_w_system gpteacher jeopardy oasst summarizetldr".split())
"""Types whose questions and answers Axolotl tokenizes apart."""
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
"""Templates of one family alone. alpaca and the like suit any model, since their turns are plain text."""
WITHOUT_CHATML = re.compile(r"(meta-)?llama-?3|gemma|mistral|mixtral|ministral|phi-3")
"""Names of models whose vocabulary has none of ChatML's tokens. Qwen's and Phi 4's have them."""
EMBEDDINGS = ("lora_modules_to_save", "peft_trainable_token_indices")
MARKERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("llama3", "llama3_2_vision"), ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    **dict.fromkeys(("chatml", "qwen_25", "qwen3", "qwen2_vl"), ("<|im_start|>", "<|im_end|>")),
    **dict.fromkeys(("gemma", "gemma3", "gemma3n"), ("<start_of_turn>", "<end_of_turn>")),
    **dict.fromkeys(("phi_3", "phi_35"), ("<|user|>", "<|assistant|>", "<|end|>")),
}
"""The tokens around a turn, by the template of Axolotl that writes them."""
EMBEDDING_NAMES = (
    ("embed_tokens", "lm_head"),
    ("embed_in", "lm_head"),
    ("word_embeddings", "lm_head"),
    ("embeddings", "lm_head"),
)
"""As Axolotl names them for the models of one kind or another."""
CHECKED = ("bos_token", "eos_token", "unk_token", "cls_token", "sep_token", "mask_token")


def template_of_another_family(run: RunFacts) -> Iterator[Finding]:
    """An instruct model is trained in the format of another family: it forgets its own, and has to learn the new
    one."""
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
        if template == "chatml" and WITHOUT_CHATML.match(name) and not {*_added(run.axolotl)} & {*MARKERS["chatml"]}:
            yield warning(
                at,
                template,
                f"the vocabulary of {run.axolotl['base_model']} does not have {' and '.join(MARKERS['chatml'])}, so "
                "each becomes several tokens in every turn, and the model was trained to answer in another format",
                f"Write {at}=tokenizer_default for the model's own, or add both: "
                "'special_tokens.eos_token=\"<|im_end|>\"' 'tokens=[\"<|im_start|>\"]' "
                "lora_modules_to_save=[embed_tokens,lm_head].",
                TEMPLATES,
            )
        elif others:
            yield warning(
                at,
                template,
                f"{run.axolotl['base_model']} was trained to answer in another format, whose turns end in another "
                "token; with this template, the tokenizer splits the marks of each turn into several tokens",
                f"Write {at}=tokenizer_default for the model's own.",
                TEMPLATES,
            )


def template_that_the_vocabulary_lacks(run: RunFacts) -> Iterator[Finding]:
    """The tokens around a turn are not in the model's vocabulary, so each of them becomes many tokens of plain text."""
    known = _known(run)
    added = {*_added(run.axolotl), *_overrides(run.axolotl).values()}
    if known is None:
        return
    for one in run.training:
        if not str(one.entry.get("type") or "").startswith("chat_template"):
            continue
        at, template = _template(run, f"{one.at}.chat_template", one.entry)
        lacking = [token for token in MARKERS.get(template, ()) if not known.has(token) and token not in added]
        if lacking:
            yield warning(
                at,
                template,
                f"the vocabulary of {run.axolotl['base_model']} does not have {', '.join(lacking)}, so each becomes "
                "many tokens in every turn, and no single token ends a turn",
                f"Write {at}=tokenizer_default for the model's own, or add the tokens (added_tokens_overrides).",
                TEMPLATES,
            )


def answers_after_an_end_of_text(run: RunFacts) -> Iterator[Finding]:
    """mistral-common adds an end-of-text token to every text that it tokenizes. So a question that is tokenized without
    its answer gets one, too."""
    if not run.axolotl.get("tokenizer_use_mistral_common") or run.axolotl.get("rl"):
        return
    for one in run.training:
        kind = one.entry.get("type")
        if isinstance(kind, Mapping) or str(kind).partition(".")[0] in QUESTION_AND_ANSWER:
            yield warning(
                f"{one.at}.type",
                kind,
                "with tokenizer_use_mistral_common Axolotl supports chat_template alone: with this type the end of the "
                "text (</s>) is between each question and its answer",
                "Write the rows as messages and choose dataset=local (type: chat_template).",
                MISTRAL,
            )


def new_tokens_without_embeddings(run: RunFacts) -> Iterator[Finding]:
    """An adapter does not train the embeddings of new `tokens`: Axolotl refuses it without `lora_modules_to_save`."""
    tokens, saved = run.axolotl.get("tokens"), run.axolotl.get("lora_modules_to_save")
    named = set(map(str, saved)) if isinstance(saved, list) else set()
    if run.axolotl.get("adapter") and tokens and not any(named.issuperset(pair) for pair in EMBEDDING_NAMES):
        yield error(
            "tokens",
            tokens,
            "with an adapter Axolotl refuses new tokens whose embeddings are not trained",
            "Write lora_modules_to_save=[embed_tokens, lm_head], or use tokens that the vocabulary has.",
            CHECKS,
        )


def special_token_that_the_vocabulary_lacks(run: RunFacts) -> Iterator[Finding]:
    """A special token is new to the model, and the adapter does not train its embedding."""
    special, known = run.axolotl.get("special_tokens"), _known(run)
    if not run.adapts or run.axolotl.get("lora_modules_to_save") or not isinstance(special, Mapping) or known is None:
        return
    added = {*_overrides(run.axolotl).values()}
    for name in CHECKED:
        token = special.get(name)
        if not isinstance(token, str) or known.has(token) or token in added or token == special.get("pad_token"):
            continue
        refused = known.is_in_three_or_more(token)
        finding = error if refused else warning
        yield finding(
            f"special_tokens.{name}",
            token,
            f"the vocabulary of {run.axolotl['base_model']} does not have it, and an adapter does not train its "
            f"embedding{'; Axolotl refuses that' if refused else ', so the model writes it at random'}",
            "Write lora_modules_to_save=[embed_tokens, lm_head], or name a token that the vocabulary has.",
            LOADER,
        )


def end_of_turn_in_pieces(run: RunFacts) -> Iterator[Finding]:
    """An end of turn has to be one token of the vocabulary: Axolotl refuses one that becomes several."""
    known, ends = _known(run), run.axolotl.get("eot_tokens")
    if known is None or not known.by_bytes or not isinstance(ends, list) or run.axolotl.get("rl"):
        return
    added = {*_added(run.axolotl), *_overrides(run.axolotl).values()}
    for one in run.training:
        if one.entry.get("type") != "chat_template":
            continue
        _, template = _template(run, "", one.entry)
        for token in ends:
            if token in MARKERS.get(template, ()) and not known.has(token) and token not in added:
                yield error(
                    "eot_tokens",
                    token,
                    f"the vocabulary of {run.axolotl['base_model']} does not have it, so it becomes several tokens",
                    "Name the token that ends a turn, or add it (added_tokens_overrides).",
                    TURNS,
                )


def override_of_a_token_that_is_not_there(run: RunFacts) -> Iterator[Finding]:
    """`added_tokens_overrides` renames added tokens of the tokenizer by their numbers; any other number ends the
    run."""
    known = _known(run)
    numbers = set(known.added.values()) if known is not None else set()
    for number, token in _overrides(run.axolotl).items():
        if known is not None and number not in numbers:
            yield error(
                "added_tokens_overrides",
                f"{{{number}: {token}}}",
                f"the tokenizer of {run.axolotl['base_model']} has added no token with this number",
                f"It has {min(numbers)} to {max(numbers)}." if numbers else "",
                LOADER,
            )


def padding_that_hides_the_end(run: RunFacts) -> Iterator[Finding]:
    """With pictures, Axolotl masks every padding token; if this token also ends a turn, no end of a turn is trained."""
    special = run.axolotl.get("special_tokens")
    pad = special.get("pad_token") if isinstance(special, Mapping) else None
    if not run.axolotl.get("processor_type") or not isinstance(special, Mapping) or not pad:
        return
    folder = tokenizer_folder(run.axolotl)
    own = special_token(folder, "eos_token") if folder else None
    eot = run.axolotl.get("eot_tokens")
    ends = {special.get("eos_token") or own, *(eot if isinstance(eot, list) else ()), "<|im_end|>", "<|eot_id|>"}
    if pad in ends:
        yield warning(
            "special_tokens.pad_token",
            pad,
            "this token also ends a turn; with a processor Axolotl masks all padding tokens, so the model "
            "never learns to stop",
            "Leave the pad token as the model has it, or name another one.",
            PICTURES,
        )


def _known(run: RunFacts) -> Vocabulary | None:
    """What is known of a tokenizer on this machine."""
    folder = tokenizer_folder(run.axolotl) if _asks_for_it(run.axolotl) else None
    return vocabulary(folder) if folder is not None else None


def _asks_for_it(axolotl: Mapping[str, Any]) -> bool:
    """Whether the config names any token or template: reading a large vocabulary takes half a second."""
    return any(
        axolotl.get(key) for key in ("special_tokens", "eot_tokens", "added_tokens_overrides", "tokens")
    ) or axolotl.get("chat_template") not in (None, "tokenizer_default")


def _template(run: RunFacts, at: str, entry: Mapping[str, Any]) -> tuple[str, str]:
    """The chat template of a dataset, and the key that names it."""
    own = entry.get("chat_template")
    return (at, str(own)) if own else ("chat_template", str(run.axolotl.get("chat_template") or ""))


def _added(axolotl: Mapping[str, Any]) -> list[str]:
    """Tokens that the config adds to the vocabulary."""
    special, tokens = axolotl.get("special_tokens"), axolotl.get("tokens")
    named: list[Any] = list(tokens) if isinstance(tokens, list) else []
    if isinstance(special, Mapping):
        for value in special.values():
            named += value if isinstance(value, list) else [value]
    return [one for one in named if isinstance(one, str)]


def _overrides(axolotl: Mapping[str, Any]) -> dict[int, str]:
    given = axolotl.get("added_tokens_overrides")
    numbered = given.items() if isinstance(given, Mapping) else ()
    return {int(number): str(token) for number, token in numbered if str(number).isdecimal()}


RULES = (
    template_of_another_family,
    template_that_the_vocabulary_lacks,
    answers_after_an_end_of_text,
    new_tokens_without_embeddings,
    special_token_that_the_vocabulary_lacks,
    end_of_turn_in_pieces,
    override_of_a_token_that_is_not_there,
    padding_that_hides_the_end,
)
