"""A patch around the tokenization of a dataset: it reads the rows, and changes none of them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from modal_app.patches.patch import module_with, require

Columns = Mapping[str, list[Any]]


@contextlib.contextmanager
def note_where_rows_are_from(
    note_dataset: Callable[[str, Mapping[str, Any], Any, bool], None], note_text: Callable[[Columns], None]
) -> Iterator[None]:
    sft = module_with("axolotl.utils.data.sft", "_load_and_process_single_dataset")
    rows_class = module_with("axolotl.datasets", "TokenizedPromptDataset").TokenizedPromptDataset
    texts_class = module_with(
        "axolotl.prompt_strategies.completion", "CompletionPromptTokenizingStrategy"
    ).CompletionPromptTokenizingStrategy
    require(rows_class, "TokenizedPromptDataset", "process")
    require(texts_class, "CompletionPromptTokenizingStrategy", "tokenize_prompt")
    load, process, tokenize = sft._load_and_process_single_dataset, rows_class.process, texts_class.tokenize_prompt
    given: list[int] = []

    @functools.wraps(load)
    def noted_load(*, dataset_config: Any, split: str, **others: Any) -> Any:
        given.clear()
        rows, prompter = load(dataset_config=dataset_config, split=split, **others)
        strategy = getattr(rows, "prompt_tokenizer", None)
        apart = strategy is not None and (
            not strategy.supports_batched or isinstance(strategy, texts_class) or given == [len(rows)]
        )
        note_dataset(split, dataset_config, rows, apart)
        return rows, prompter

    @functools.wraps(process)
    def noted_process(self: Any, dataset: Any) -> Any:
        given.append(len(dataset))
        return process(self, dataset)

    @functools.wraps(tokenize)
    def noted_tokenize(self: Any, texts: Columns) -> dict[str, list[Any]]:
        """Text by text, as Axolotl does it, in the process that tokenizes."""
        merged: dict[str, list[Any]] = {}
        for text in zip(*texts.values(), strict=False):
            rows = tokenize(self, {name: [value] for name, value in zip(texts, text, strict=True)})
            note_text(rows)
            for name, values in rows.items():
                merged.setdefault(name, []).extend(values)
        return merged

    sft._load_and_process_single_dataset = noted_load
    rows_class.process, texts_class.tokenize_prompt = noted_process, noted_tokenize
    try:
        yield
    finally:
        sft._load_and_process_single_dataset = load
        rows_class.process, texts_class.tokenize_prompt = process, tokenize
