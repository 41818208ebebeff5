"""A trained model answers conversations: loaded as Axolotl trained it, asked in the format it was trained in.

The step of `axosweep infer` and the local server share it. It is imported in the trainer's environment only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from axolotl.cli.config import load_cfg
from axolotl.cli.utils import load_model_and_tokenizer
from axolotl.utils.dict import DictDefault
from peft import PeftModel
from transformers import GenerationConfig

from modal_app.inference.config import asked_of
from modal_app.inference.formats import Conversation as Conversation
from modal_app.inference.formats import Prompter, Template, instruction, prompter_of, template_of
from modal_app.process.attempt import write_yaml
from modal_app.process.failures import StepFailed
from modal_app.store.step import FailureReason

TOKENS_AT_ONCE = 16_384
"""Of a batch, prompt and answer together: it bounds the memory of the keys and values."""
ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that can be asked."""

    model: Any
    tokenizer: Any
    template: Template | None
    """None where the run was trained without a chat template."""
    prompter: Prompter | None
    """Where there is no template: None for plain text."""
    context: int
    """Tokens that it reads at most, prompt and answer together."""
    ends: tuple[int, ...]
    """Tokens that end an answer."""


@dataclass(frozen=True, slots=True)
class Generation:
    """How answers are drawn."""

    greedy: bool = True
    max_tokens: int = 256
    """Of an answer, at most; fewer where the model's context ends before."""
    temperature: float = 0.7
    top_p: float = 1.0
    """Of the likeliest tokens, as many are drawn from as have this probability together."""
    seed: int = 0
    """Of the draw, when it is not greedy: the same prompts in the same order give the same answers on a machine."""


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    text: str
    tokens: int
    """Generated, the end of the answer included."""
    cut: bool
    """Whether it was not at its end when `max_tokens` or the model's context was."""


def load(config: Mapping[str, Any], *, adapter: Path | None = None, weights: Path | None = None) -> LoadedModel:
    """The base model of a keyed config, with an adapter or with other weights (a merged model, a full fine-tune).

    Works in the current directory, where the config's `inputs/...` must be found and where it writes what Axolotl
    wants to write. The device is the process's: CUDA_VISIBLE_DEVICES decides.
    """
    path = Path("answering.yml")
    write_yaml(path, asked_of(config, adapter=adapter, weights=weights))
    sys.argv = ["axolotl"]  # Axolotl parses it
    cfg = load_cfg(str(path))
    cfg.rl = None  # Axolotl would leave the adapter to TRL
    model, tokenizer, _ = load_model_and_tokenizer(cfg=cfg, inference=True)
    if adapter is None and isinstance(model, PeftModel):
        model = model.unload()
    if not hasattr(model, "hf_device_map"):
        model.to(cfg.device)
    model.eval()
    model.config.use_cache = True
    template = template_of(cfg, tokenizer)
    return LoadedModel(
        model,
        tokenizer,
        template,
        None if template else prompter_of(cfg, tokenizer),
        _context(model, tokenizer),
        _ends(cfg, model, tokenizer, template),
    )


def prompt_ids(loaded: LoadedModel, conversation: Conversation) -> list[int]:
    """The tokens that the model reads before its answer. StepFailed for what its format has no place for."""
    if loaded.template is not None:
        return loaded.template.ids(loaded.tokenizer, conversation, answer_follows=True)
    text = instruction(loaded.prompter, conversation)
    ids: list[int] = loaded.tokenizer(text, add_special_tokens=True)["input_ids"]
    return ids[:-1] if len(ids) > 1 and ids[-1] == loaded.tokenizer.eos_token_id else ids


def answers(
    loaded: LoadedModel,
    conversations: Sequence[Conversation],
    settings: Generation,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[GeneratedAnswer]:
    """One answer a conversation, in their order.

    Prompts of about the same length are generated together, padded on the left; `progress(done, of)` is called after
    each batch. StepFailed, before anything is generated, when a prompt leaves no room for an answer.
    """
    prompts = [prompt_ids(loaded, conversation) for conversation in conversations]
    for number, ids in enumerate(prompts, 1):
        if len(ids) >= loaded.context:
            raise StepFailed(
                FailureReason.DATA,
                f"prompt {number} has {len(ids):,} tokens, and the model reads {loaded.context:,} at most, "
                "prompt and answer together: shorten it",
            )
    torch.manual_seed(settings.seed)
    found: dict[int, GeneratedAnswer] = {}
    for batch in _batches([len(ids) for ids in prompts], settings.max_tokens, loaded.context):
        made = generate(loaded, [prompts[index] for index in batch], settings)
        found |= dict(zip(batch, made, strict=True))
        progress(len(found), len(prompts))
    return [found[index] for index in range(len(prompts))]


def generate(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], settings: Generation, streamer: Any = None
) -> list[GeneratedAnswer]:
    """Answers to prompts as tokens, all in one batch. `streamer`: one of transformers, for a single prompt."""
    longest = max(map(len, prompts))
    padding = loaded.tokenizer.pad_token_id if loaded.tokenizer.pad_token_id is not None else loaded.ends[0]
    device = loaded.model.device
    ids = torch.tensor([[padding] * (longest - len(ids)) + list(ids) for ids in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=device)
    config = _generation_config(loaded, settings, room=loaded.context - longest, padding=padding)
    loaded.model.generation_config = config  # what the model's own says would fill in what ours leaves out
    with torch.inference_mode():
        made = loaded.model.generate(input_ids=ids, attention_mask=mask, generation_config=config, streamer=streamer)
    return [_answer(loaded, row[longest:].tolist()) for row in made]


def _generation_config(loaded: LoadedModel, settings: Generation, room: int, padding: int) -> Any:
    drawn = {} if settings.greedy else {"temperature": settings.temperature, "top_k": 0, "top_p": settings.top_p}
    return GenerationConfig(
        do_sample=not settings.greedy,
        max_new_tokens=max(1, min(settings.max_tokens, room)),
        eos_token_id=list(loaded.ends) or None,
        pad_token_id=padding,
        use_cache=True,
        **drawn,
    )


def _answer(loaded: LoadedModel, ids: list[int]) -> GeneratedAnswer:
    end = next((place for place, token in enumerate(ids) if token in loaded.ends), None)
    kept = ids if end is None else ids[:end]
    text = loaded.tokenizer.decode(kept, skip_special_tokens=True)
    return GeneratedAnswer(text.strip(), len(kept) + (end is not None), cut=end is None)


def _batches(lengths: Sequence[int], max_tokens: int, context: int) -> Iterator[list[int]]:
    """Indices of prompts that are generated together, the longest first: what does not fit fails at once.

    All of a batch have the same room for an answer: one near the end of the context would cut the others' short.
    """
    batch: list[int] = []
    rooms = [min(max_tokens, context - length) for length in lengths]
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        width = lengths[batch[0] if batch else index] + max_tokens
        crowded = len(batch) == ROWS_AT_ONCE or (len(batch) + 1) * width > TOKENS_AT_ONCE
        if batch and (crowded or rooms[index] != rooms[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _context(model: Any, tokenizer: Any) -> int:
    """Positions that the model knows; the tokenizer's limit where its config has none."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length)


def _ends(cfg: DictDefault, model: Any, tokenizer: Any, template: Template | None) -> tuple[int, ...]:
    """The tokenizer's end, those of the model's own generation config and of `eot_tokens`, and the template's own.

    A base model's tokenizer ends documents by another token than its chat template ends a turn.
    """
    own = model.generation_config.eos_token_id
    ends = [tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
    ends += tokenizer.convert_tokens_to_ids(list(cfg.eot_tokens or ()))
    if template is not None:
        turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        asked = template.ids(tokenizer, turn[:1], answer_follows=False)
        added = template.ids(tokenizer, turn, answer_follows=False)[len(asked) :]
        # What follows the answer: the last special token, with a line end at most behind it.
        special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", ())}
        ends += [token for token in added[-2:] if token in special]
    return tuple(dict.fromkeys(end for end in ends if end is not None))
