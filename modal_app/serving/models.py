"""The models of a local server in memory: loaded once, asked one at a time. Imported in the trainer's environment only.

Adapters of one base model lie beside each other in it, and the one that is asked for is switched on. That is a state of
the model, so one question is answered at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from modal_app.inference import generation
from modal_app.inference.generation import Conversation, Generation, LoadedModel
from modal_app.inference.pieces import Pieces
from modal_app.serving.spec import ServedModel

FIRST = "default"
"""What PEFT calls the adapter that a model was loaded with."""


@dataclass(frozen=True, slots=True)
class GenerationEnd:
    """How an answer ended."""

    text: str
    tokens: int
    """Generated, the end of the answer included."""
    cut: bool
    """Whether it was not at its end when `max_tokens` or the model's context was."""


@dataclass(slots=True)
class GenerationRequest:
    """What is asked of a model, as tokens. `cancelled`: nobody waits for the answer any more."""

    ids: Sequence[int]
    settings: Generation
    stops: Sequence[str] = ()
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class _Model:
    loaded: LoadedModel
    adapter: str | None
    """PEFT's name for it; None for what has none."""
    adapters_beside: bool
    """Whether its base model holds adapters, which are to be switched off for the base's own answers."""


class Models:
    """All that are served, by each of their names."""

    def __init__(self, served: Sequence[ServedModel], progress: Callable[[str], None]) -> None:
        """Loads them; `progress` is told what comes next. Works in the current directory, as `generation.load`."""
        self._lock = threading.Lock()
        self._models: dict[str, _Model] = {}
        groups: dict[str, list[ServedModel]] = {}
        for one in served:
            groups.setdefault(one.shares, []).append(one)
        for group in groups.values():
            for one, model in _load(group, progress):
                self._models |= dict.fromkeys(one.names, model)
        self.names = [name for one in served for name in one.names]

    def __contains__(self, name: str) -> bool:
        return name in self._models

    def context(self, name: str) -> int:
        """Tokens that a model reads at most, prompt and answer together."""
        return self._models[name].loaded.context

    def prompt_ids(self, name: str, conversation: Conversation) -> list[int]:
        """Raises StepFailed for what the model's format has no place for."""
        return generation.prompt_ids(self._models[name].loaded, conversation)

    def answer(self, name: str, question: GenerationRequest, say: Callable[[str], None]) -> GenerationEnd:
        """Blocks until the answer has ended; `say` is given each piece of it as soon as it is sure."""
        model = self._models[name]
        listener = _Listener(model.loaded, question, say)
        with self._lock:
            if question.cancelled.is_set():
                return GenerationEnd("", 0, cut=True)
            if question.settings.greedy is False:
                torch.manual_seed(question.settings.seed)
            try:
                with _switched(model):
                    generation.generate(model.loaded, [question.ids], question.settings, listener)
            except _Enough:
                pass  # a stop text has come, or nobody listens
        return listener.ended()


class _Enough(Exception):
    """Nothing more is to be generated."""


class _Listener:
    """What transformers hands each new token to: a streamer."""

    def __init__(self, loaded: LoadedModel, question: GenerationRequest, say: Callable[[str], None]) -> None:
        self._loaded, self._question, self._say = loaded, question, say
        self._pieces = Pieces(question.stops)
        self._tokens: list[int] = []
        self._prompt_seen = self._at_end = False

    def put(self, value: Any) -> None:
        if not self._prompt_seen:  # transformers begins with the prompt
            self._prompt_seen = True
            return
        for token in value.flatten().tolist():
            self._add(token)
        if self._pieces.stopped or self._question.cancelled.is_set():
            raise _Enough

    def end(self) -> None:
        """All is said by `ended`."""

    def ended(self) -> GenerationEnd:
        if not self._pieces.stopped and (left := self._pieces.finish(self._text())):
            self._say(left)
        done = self._at_end or self._pieces.stopped
        return GenerationEnd(self._pieces.answer, len(self._tokens) + self._at_end, cut=not done)

    def _add(self, token: int) -> None:
        if token in self._loaded.ends:
            self._at_end = True
        elif not self._at_end:
            self._tokens.append(token)
            if piece := self._pieces.feed(self._text()):
                self._say(piece)

    def _text(self) -> str:
        text: str = self._loaded.tokenizer.decode(self._tokens, skip_special_tokens=True)
        return text


def _load(group: Sequence[ServedModel], progress: Callable[[str], None]) -> list[tuple[ServedModel, _Model]]:
    """Models that share what is in memory."""
    first = next((one for one in group if one.adapter is not None), group[0])
    progress(first.names[0])
    adapter = None if first.adapter is None else Path(first.adapter)
    weights = None if first.weights is None else Path(first.weights)
    loaded = generation.load(first.config, adapter=adapter, weights=weights)
    models = []
    for one in group:
        name = FIRST if one is first else one.names[0]
        if one.adapter is not None and one is not first:
            progress(one.names[0])
            loaded.model.load_adapter(one.adapter, adapter_name=name)
            loaded.model.eval()
        has_one = one.adapter is not None
        models.append((one, _Model(loaded, name if has_one else None, adapters_beside=adapter is not None)))
    return models


def _switched(model: _Model) -> Any:
    """The context in which the model's own adapter answers, or none."""
    if model.adapter is None:
        return model.loaded.model.disable_adapter() if model.adapters_beside else _Nothing()
    model.loaded.model.set_adapter(model.adapter)
    return _Nothing()


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...
