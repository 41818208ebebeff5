"""Load a model as Axolotl trained it, and generate answers to conversations in the format of its training.

The step of `axosweep infer` and the local server use it. It is imported in the trainer's environment only.
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

from modal_app.inference.config import config_to_load
from modal_app.inference.formats import Conversation as Conversation
from modal_app.inference.formats import Prompter, Template, instruction, prompter_of, template_of
from modal_app.process.attempt import write_yaml
from modal_app.process.failures import StepFailed
from modal_app.store import user_code
from modal_app.store.step import FailureReason

TOKENS_AT_ONCE = 16_384
"""The most tokens in a batch, prompts and answers together. This limits the memory of the keys and values."""
ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory, with what is needed to prompt it."""

    model: Any
    tokenizer: Any
    template: Template | None
    """None if the run was trained without a chat template."""
    prompter: Prompter | None
    """Used if there is no template; None for plain text."""
    context: int
    """The most tokens that it can process, prompt and answer together."""
    ends: tuple[int, ...]
    """Tokens that end an answer."""


@dataclass(frozen=True, slots=True)
class Generation:
    """How answers are sampled."""

    greedy: bool = True
    max_tokens: int = 256
    """The most tokens of an answer; fewer if the model's context ends before."""
    temperature: float = 0.7
    top_p: float = 1.0
    """Sample only from the most likely tokens that together have this probability."""
    seed: int = 0
    """Of the sampling. On one machine, the same prompts in the same order give the same answers."""


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    text: str
    tokens: int
    """The number of generated tokens, including the end of the answer."""
    cut: bool
    """Whether `max_tokens` or the model's context ended it."""


def load(config: Mapping[str, Any], *, adapter: Path | None = None, weights: Path | None = None) -> LoadedModel:
    """The base model of a keyed config, with an adapter or with other weights (a merged model, a full fine-tune).

    Works in the current directory, which must contain the config's `inputs/...` and to which Axolotl writes its files.
    CUDA_VISIBLE_DEVICES decides on which device the model is.
    """
    user_code.make_importable(config, Path.cwd())
    path = Path("answering.yml")
    write_yaml(path, config_to_load(config, adapter=adapter, weights=weights))
    sys.argv = ["axolotl"]  # Axolotl parses the command line
    cfg = load_cfg(str(path))
    cfg.rl = None  # with it, Axolotl would not load the adapter, since TRL does
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
    """The tokens of the prompt. Raises StepFailed for a conversation that the model's format cannot express."""
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
    """One answer per conversation, in their order.

    Answers to prompts of similar length are generated together, padded on the left; `progress(done, of)` is called
    after each batch. Raises StepFailed, before anything is generated, when a prompt leaves no room for an answer.
    """
    prompts = [prompt_ids(loaded, conversation) for conversation in conversations]
    for number, ids in enumerate(prompts, 1):
        if len(ids) >= loaded.context:
            raise StepFailed(
                FailureReason.DATA,
                f"prompt {number} has {len(ids):,} tokens, and the model reads {loaded.context:,} at most, "
                "prompt and answer together: shorten the prompt",
            )
    torch.manual_seed(settings.seed)
    found: dict[int, GeneratedAnswer] = {}
    for batch in _batches([len(ids) for ids in prompts], settings.max_tokens, loaded.context):
        generated = generate(loaded, [prompts[index] for index in batch], settings)
        found |= dict(zip(batch, generated, strict=True))
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
    loaded.model.generation_config = config  # otherwise the model's own would fill in what ours leaves out
    with torch.inference_mode():
        tokens = loaded.model.generate(input_ids=ids, attention_mask=mask, generation_config=config, streamer=streamer)
    return [_answer(loaded, row[longest:].tolist()) for row in tokens]


def _generation_config(loaded: LoadedModel, settings: Generation, room: int, padding: int) -> Any:
    sampling = {} if settings.greedy else {"temperature": settings.temperature, "top_k": 0, "top_p": settings.top_p}
    return GenerationConfig(
        do_sample=not settings.greedy,
        max_new_tokens=max(1, min(settings.max_tokens, room)),
        eos_token_id=list(loaded.ends) or None,
        pad_token_id=padding,
        use_cache=True,
        **sampling,
    )


def _answer(loaded: LoadedModel, ids: list[int]) -> GeneratedAnswer:
    end = next((place for place, token in enumerate(ids) if token in loaded.ends), None)
    answer = ids if end is None else ids[:end]
    text = loaded.tokenizer.decode(answer, skip_special_tokens=True)
    return GeneratedAnswer(text.strip(), len(answer) + (end is not None), cut=end is None)


def _batches(lengths: Sequence[int], max_tokens: int, context: int) -> Iterator[list[int]]:
    """Indices of prompts whose answers are generated together, the longest first, so that lack of memory shows at once.

    All prompts of a batch have the same room for an answer, since the longest limits the answers of all.
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
    """The positions of the model, or the tokenizer's limit if the model's config has none."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length)


def _ends(cfg: DictDefault, model: Any, tokenizer: Any, template: Template | None) -> tuple[int, ...]:
    """The end tokens of the tokenizer, of the model's own generation config, of `eot_tokens` and of the chat template.

    A base model's tokenizer ends a document with another token than the one with which a chat template ends a turn.
    """
    own = model.generation_config.eos_token_id
    ends = [tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
    ends += tokenizer.convert_tokens_to_ids(list(cfg.eot_tokens or ()))
    if template is not None:
        turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        question = template.ids(tokenizer, turn[:1], answer_follows=False)
        added = template.ids(tokenizer, turn, answer_follows=False)[len(question) :]
        # After the answer comes a special token, and at most one line end.
        special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", ())}
        ends += [token for token in added[-2:] if token in special]
    return tuple(dict.fromkeys(end for end in ends if end is not None))
