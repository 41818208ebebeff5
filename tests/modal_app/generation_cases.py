"""Runs in the trainer's Python, in a folder of its own, and prints what it has found as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from axolotl.utils.dict import DictDefault

from modal_app.inference import formats, generation
from modal_app.inference.generation import Generation
from modal_app.process.failures import StepFailed

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {
    "base_model": str(ROOT / "tiny" / "model"), "model_type": "LlamaForCausalLM", "chat_template": "tokenizer_default",
    "sequence_len": 128, "datasets": [{"path": "rows.jsonl", "ds_type": "json", "type": "chat_template"}],
    "micro_batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 1e-3, "num_epochs": 1, "bf16": False,
    "attn_implementation": "sdpa",
}  # fmt: skip
OWN = {"field_instruction": "i", "no_input_format": "Q: {instruction} A:", "system_prompt": "S. "}
PROMPTS = [json.loads(line)["prompt"] for line in (ROOT / "tiny/data/prompts.jsonl").read_text().splitlines()[::2]]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def asked(config: dict[str, Any], tokenizer: Any, conversation: list[dict[str, str]]) -> str:
    """The text of a question, or the reason why there is none."""
    try:
        return formats.instruction(formats.prompter_of(DictDefault(config), tokenizer), conversation)
    except StepFailed as error:
        return f"refused: {error}"


def batching(loaded: generation.LoadedModel) -> dict[str, Any]:
    """Answers to prompts of very different lengths, all at once and one by one."""
    conversations = [user(text * (1 + index % 6)) for index, text in enumerate(PROMPTS)]
    together = generation.answers(loaded, conversations, Generation(max_tokens=12))
    alone = [generation.answers(loaded, [one], Generation(max_tokens=12))[0] for one in conversations]
    lengths = {len(generation.prompt_ids(loaded, one)) for one in conversations}
    return {"together": [one.text for one in together], "alone": [one.text for one in alone], "lengths": len(lengths)}


def drawing(loaded: generation.LoadedModel) -> dict[str, Any]:
    conversations = list(map(user, PROMPTS))
    draws = {
        name: [one.text for one in generation.answers(loaded, conversations, settings)]
        for name, settings in (
            ("greedy", Generation(max_tokens=4)),
            ("first", Generation(greedy=False, max_tokens=4, temperature=1.5)),
            ("again", Generation(greedy=False, max_tokens=4, temperature=1.5)),
            ("other", Generation(greedy=False, max_tokens=4, temperature=1.5, seed=1)),
        )
    }
    cut = generation.answers(loaded, conversations[:1], Generation(max_tokens=1))[0]
    whole = generation.answers(loaded, conversations[:1], Generation(max_tokens=4))[0]
    return {"draws": draws, "cut": [cut.cut, cut.tokens], "whole": [whole.cut, whole.tokens, whole.text]}


def too_long(loaded: generation.LoadedModel) -> str:
    try:
        generation.answers(loaded, [user("short"), user("where does Ada live? " * 60)], Generation())
    except StepFailed as error:
        return str(error)
    return ""


def main() -> None:
    loaded = generation.load(CONFIG)
    system = [{"role": "system", "content": "T."}, *user("q")]
    turns = [*user("q"), {"role": "assistant", "content": "a"}, *user("r")]
    found: dict[str, Any] = {
        "batching": batching(loaded),
        "drawing": drawing(loaded),
        "too_long": too_long(loaded),
        "ids": loaded.tokenizer.decode(generation.prompt_ids(loaded, system)),
        "batches": [
            list(generation._batches(lengths, 100, context))
            for lengths, context in (
                ([5, 9, 7], 256), ([9_000, 10, 9_000], 10_000), ([1] * 130, 256), ([9, 250, 20, 253, 250], 256),
            )
        ],
        "asked": {
            name: [asked({"sequence_len": 9, "datasets": [{"type": kind}]}, loaded.tokenizer, one)
                   for one in (user("q"), system, turns)]
            for name, kind in (
                ("alpaca", "alpaca:chat"), ("own", OWN), ("completion", "completion"), ("jeopardy", "jeopardy"),
            )
        },
    }  # fmt: skip
    other = generation.load(CONFIG | {"chat_template": "chatml", "special_tokens": {"additional_special_tokens": [
        "<|im_start|>", "<|im_end|>"]}})  # fmt: skip
    found["ends"] = other.tokenizer.convert_ids_to_tokens(list(other.ends))
    quantized = generation.load(CONFIG | {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True,
                                          "lora_dropout": 0.0, "load_in_8bit": True})  # fmt: skip
    found["quantized"] = sorted({type(module).__name__ for module in quantized.model.modules()})
    print("\n" + json.dumps(found))


main()
