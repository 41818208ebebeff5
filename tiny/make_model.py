"""Creates the tiny base model: a small Llama, trained for about a minute, that knows last year's directory.

    OMP_NUM_THREADS=1 .axosweep/trainer/bin/python tiny/make_model.py [--out tiny/model]

It has seen this task's questions, with last year's answers in four fifths of the rows and random ones in
the rest. So it knows how to look up a fact, is not certain of any answer, and has every current fact left
to learn with LoRA. Needs torch, transformers and tokenizers, which the trainer environment has. The
weights are committed, because torch gives equal bits only on equal machines.
"""

import argparse
import random
import time
from pathlib import Path

import make_data
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 2025
VOCABULARY = 512
CONTEXT = 256
BATCH = 64
STEPS = 1200
LEARNING_RATE = 3e-3
LAST_YEAR_SHARE = 0.8

BOS, USER, ASSISTANT, END, PAD = "<|begin|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"

# Every turn closes with <|end|>, which is also the eos token: what training teaches is what stops generation.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

Example = tuple[list[int], list[int]]  # token ids, labels


def last_year() -> dict[make_data.Fact, str]:
    """A directory in which every answer differs from the current one."""
    current = make_data.directory(make_data.SEED)
    rng = random.Random(SEED)
    facts = make_data.directory(SEED)
    for fact, value in facts.items():
        if value == current[fact]:
            facts[fact] = rng.choice([other for other in make_data.VALUES[fact[1]] if other != value])
    return facts


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the task's text; bytes that are not in it have a token, too."""
    text = [
        part
        for (person, kind), answer in make_data.directory(make_data.SEED).items()
        for part in (*make_data.phrasings((person, kind)), *([answer] * 20))
    ]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[PAD, BOS, END, USER, ASSISTANT, "<|system|>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, "<|system|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """About 125,000 random fp32 weights."""
    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=176,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).float()


def encode(tokenizer: PreTrainedTokenizerFast, prompt: str, answer: str) -> Example:
    """The complete conversation, with only the answer and its end token as labels."""
    question = tokenizer(f"{BOS}{USER}{prompt}{END}{ASSISTANT}", add_special_tokens=False)["input_ids"]
    reply = tokenizer(f"{answer}{END}", add_special_tokens=False)["input_ids"]
    return question + reply, [-100] * len(question) + reply


def draw(rng: random.Random, facts: dict[make_data.Fact, str]) -> tuple[str, str]:
    """One random question with last year's answer, or with a random one of the right kind."""
    fact = rng.choice(list(facts))
    answer = facts[fact] if rng.random() < LAST_YEAR_SHARE else rng.choice(make_data.VALUES[fact[1]])
    return rng.choice(make_data.phrasings(fact)), answer


def pad(examples: list[Example], pad_id: int) -> dict[str, torch.Tensor]:
    longest = max(len(ids) for ids, _ in examples)
    missing = [longest - len(ids) for ids, _ in examples]
    return {
        "input_ids": torch.tensor([ids + [pad_id] * n for (ids, _), n in zip(examples, missing, strict=True)]),
        "labels": torch.tensor([labels + [-100] * n for (_, labels), n in zip(examples, missing, strict=True)]),
        "attention_mask": torch.tensor(
            [[1] * len(ids) + [0] * n for (ids, _), n in zip(examples, missing, strict=True)]
        ),
    }


def pretrain(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Trains every weight; the rate rises for 5 % of the steps, then falls to zero."""
    rng = random.Random(SEED)
    facts = last_year()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, STEPS, pct_start=0.05)
    model.train()
    for step in range(STEPS):
        examples = [encode(tokenizer, *draw(rng, facts)) for _ in range(BATCH)]
        loss = model(**pad(examples, tokenizer.pad_token_id)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == STEPS - 1:
            print(f"step {step:4d}  loss {loss.item():.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Create the tiny base model.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    pretrain(model, tokenizer)
    model.generation_config.do_sample = False
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    tokenizer.save_pretrained(out)
    model.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # it is written as private, and a wheel would have the same mode
    print(f"{model.num_parameters()} weights in {out}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
