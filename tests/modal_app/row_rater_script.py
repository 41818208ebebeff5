"""The losses of rows from `RowRater`, for batches of Axolotl's own collators and a model that sees only the previous
token; prints them as JSON next to those that each row has by itself.

Run with the trainer's Python and this checkout in PYTHONPATH: `python row_rater_script.py MODEL FOLDER`.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import torch
from axolotl.utils.collators import DataCollatorForSeq2Seq, V2BatchSamplerDataCollatorForSeq2Seq
from axolotl.utils.collators.batching import BatchSamplerDataCollatorForSeq2Seq
from transformers import AutoTokenizer

from modal_app.held_out.row_losses import RowLosses, row_ids
from modal_app.process.rank import Rank
from modal_app.steps.fingerprint import row_digests
from modal_app.steps.row_rater import RowRater, is_near
from modal_app.steps.token_losses import token_losses
from modal_app.store.layout import Store
from modal_app.store.step import Step, StepKind

ROWS = [
    ([5, 6, 7, 8, 9], [-100, -100, 7, -100, 9]),
    ([5, 6, 7], [-100, 6, 7]),
    ([5, 6, 7], [-100, 6, 7]),
    ([5, 6, 7], [-100, -100, 7]),
    ([9, 9, 3, 9, 9, 9, 4], [9, 9, 3, 9, 9, 9, 4]),
    ([3, 4], [-100, -100]),
]
"""Two are equal, one is trained from its first token on, and one is not trained at all."""
ALONE = (0, 1, 2, 3, 4, 5)


class Bigrams(torch.nn.Module):  # type: ignore[misc]
    """`fused`: it computes its loss without returning logits. `bias`: the error of its own loss. `large`: its logits do
    not fit into the memory."""

    def __init__(self, vocabulary: int, *, fused: bool = False, bias: float = 0.0, large: bool = False) -> None:
        super().__init__()
        self.scores = torch.nn.Embedding(vocabulary, vocabulary)
        self.fused, self.bias, self.large, self.asked = fused, bias, large, list[int]()

    def forward(self, input_ids: Any, labels: Any = None, logits_to_keep: Any = 0, **_: Any) -> Any:
        logits = self.scores(input_ids)
        if isinstance(logits_to_keep, torch.Tensor):
            self.asked.append(len(logits_to_keep))
            if self.large:
                raise torch.OutOfMemoryError
            logits = logits[:, logits_to_keep]
        if labels is None:
            return SimpleNamespace(logits=logits)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(loss=loss + self.bias, logits=None if self.fused else logits)


def rows_of(*chosen: int, positions: bool) -> datasets.Dataset:
    rows = [
        {"input_ids": ROWS[at][0], "labels": ROWS[at][1], "attention_mask": [1] * len(ROWS[at][0])} for at in chosen
    ]
    if positions:
        rows = [row | {"position_ids": list(range(len(row["input_ids"])))} for row in rows]
    return datasets.Dataset.from_list(rows)


def rated(model: Bigrams, rows: datasets.Dataset, batches: list[Any], sharded: bool, folder: Path) -> dict[str, Any]:
    """The file that an evaluation of these batches leaves."""
    arguments = SimpleNamespace(world_size=1, process_index=0, average_tokens_across_devices=True, device="cpu")
    trainer = SimpleNamespace(
        args=arguments, eval_dataset=rows, label_smoother=None, compute_loss_func=None, model_accepts_loss_kwargs=True,
        is_fsdp_enabled=sharded, is_deepspeed_enabled=False, accelerator=SimpleNamespace(parallelism_config=None),
        compute_loss_context_manager=contextlib.nullcontext,
    )  # fmt: skip
    step = Store(folder).folder(StepKind.TRAIN, "run")
    step.path.mkdir(parents=True)
    rank = Rank(Step(StepKind.TRAIN, "run", {}, "data"), step, step.attempt(1))
    rater = RowRater(trainer, rank, without=None)
    model.eval()
    with torch.no_grad():
        for batch in batches:
            inputs = dict(batch)
            outputs = model(**inputs)
            rater.see_batch(model, inputs, outputs, outputs.loss, None)
    rater.on_evaluate(arguments, SimpleNamespace(global_step=3), None, {"eval_loss": 1.5})
    found = RowLosses.read(step.losses)
    if found is None:
        return {"reason": rank.no_row_losses, "asked": model.asked}
    return {
        "reason": rank.no_row_losses,
        "asked": model.asked,
        "equal_ids": found.id.tolist() == row_ids(row_digests(rows)).tolist(),
        "distinct": len(set(found.id.tolist())),
        "step": found.about.step,
        "lengths": found.length.tolist(),
        "batches": found.batch.tolist(),
        "turns": found.turns.tolist(),
        "tokens": found.tokens.tolist(),
        "nll": found.nll.tolist(),
    }


def alone(model: Bigrams) -> list[float]:
    """The loss of each turn of each row, by its definition."""
    scores = torch.log_softmax(model.scores.weight.double(), dim=1)
    found: list[float] = []
    for tokens, labels in ROWS:
        before = False
        for last, token, label in zip(tokens, tokens[1:], labels[1:], strict=False):
            if label != -100:
                nll = -scores[last, token].item()
                found[len(found) - before :] = [found[-1] + nll] if before else [nll]
            before = label != -100
    return found


def near() -> list[bool]:
    """Whether tokens that a model is nearly sure of have its own loss, with logits of 16 bits as with those of 32, and
    whether they have one that is another by a tenth."""
    torch.manual_seed(0)
    logits = 4 * torch.randn(200, 4, 500)
    logits[:, :, 0] = 24.0
    rounded, exact = (
        -torch.log_softmax(one, dim=2)[:, :, 0].mean(dim=1) for one in (logits.bfloat16().float(), logits)
    )
    assert bool(((rounded - exact).abs() > 0.02 * exact).any()), "rounding moves some by more than a fiftieth"
    same = all(is_near(one, other, 4) for one, other in zip(rounded.tolist(), exact.tolist(), strict=True))
    return [same, is_near(1.1, 1.0, 1000)]


def main(model_folder: str, folder: Path) -> None:
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    size = len(tokenizer)
    model, fused, biased = Bigrams(size), Bigrams(size, fused=True), Bigrams(size, bias=0.5)
    fused_and_biased, large = Bigrams(size, fused=True, bias=0.5), Bigrams(size, fused=True, large=True)
    for other in (fused, biased, fused_and_biased):
        other.load_state_dict(model.state_dict())
    bare, placed = rows_of(*ALONE, positions=False), rows_of(*ALONE, positions=True)
    both = [*bare], [*placed]

    def padded(rows: list[Any], side: str, *, mask: bool) -> list[Any]:
        tokenizer.padding_side = side
        collate = DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8)
        batches = [collate([dict(row) for row in part]) for part in (rows[:4], rows[4:])]
        return batches if mask else [{name: batch[name] for name in ("input_ids", "labels")} for batch in batches]

    def packed(collator: Any, order: list[list[int]]) -> list[Any]:
        tokenizer.padding_side = "right"
        collate = collator(tokenizer, pad_to_multiple_of=16)
        return [collate([[dict(both[1][at]) for at in one] for one in order])]

    new, old = V2BatchSamplerDataCollatorForSeq2Seq, BatchSamplerDataCollatorForSeq2Seq
    foreign = [{**one, "labels": one["input_ids"].clone()} for one in padded(both[0], "right", mask=True)]
    layouts = {
        "padded": (model, bare, padded(both[0], "right", mask=True)),
        "left": (model, bare, padded(both[0], "left", mask=True)),
        "unmarked": (model, bare, padded(both[0], "right", mask=False)),
        "positions": (model, placed, padded(both[1], "right", mask=True)),
        "packed": (model, placed, packed(new, [[4, 0], [1, 5, 3, 2]])),
        "packed, all ones": (model, placed, packed(old, [[4, 0], [1, 5, 3, 2]])),
        "fused": (fused, bare, padded(both[0], "right", mask=True)),
        "left out": (model, placed, packed(new, [[4, 0], [1, 5, 3]])),
        "left out and sharded": (model, placed, packed(new, [[4, 0], [1, 5, 3]])),
        "foreign": (model, bare, foreign),
        "biased": (biased, bare, padded(both[0], "right", mask=True)),
        "biased and sharded": (fused_and_biased, bare, padded(both[0], "right", mask=True)),
        "large and sharded": (large, bare, padded(both[0], "right", mask=True)),
    }
    told = {
        name: rated(*what, name.endswith("sharded"), folder / str(at))
        for at, (name, what) in enumerate(layouts.items())
    }
    labels = torch.tensor([[1, 2, -100, 4], [4, 3, 2, 1]])
    logits = model.scores(labels.clamp(min=0)).detach()
    chunks = [token_losses(logits, labels, chunk=size * rows).tolist() for rows in (1, 4, 100)]
    print(json.dumps({"layouts": told, "alone": alone(model), "chunks": chunks, "near": near()}))


main(sys.argv[1], Path(sys.argv[2]))
