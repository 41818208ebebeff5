"""The models of a local server in memory, loaded once. Imported in the trainer's environment only.

Several adapters are loaded into one base model, and a request activates its adapter. The active adapter is a state of
the model, so one request is answered at a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from modal_app.inference import generation
from modal_app.inference.generation import Conversation, GeneratedAnswer, Generation, LoadedModel
from modal_app.inference.pieces import Pieces
from modal_app.serving.spec import ServedModel

FIRST = "default"
"""PEFT's name for the adapter that a model was loaded with."""


@dataclass(slots=True)
class GenerationRequest:
    """A prompt as tokens, with its settings. `cancelled`: no client waits for the answer any more."""

    ids: Sequence[int]
    settings: Generation
    stops: Sequence[str] = ()
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class _Model:
    loaded: LoadedModel
    adapter: str | None
    """PEFT's name for its adapter; None without one."""
    base_has_adapters: bool
    """Whether its base model has adapters, which must be disabled for the base model's own answers."""


class Models:
    """All served models, by each of their names."""

    def __init__(self, served: Sequence[ServedModel], progress: Callable[[str], None]) -> None:
        """Loads them; `progress` gets each name before its loading. Works in the current directory, as
        `generation.load`."""
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
        """The most tokens that a model can process, prompt and answer together."""
        return self._models[name].loaded.context

    def prompt_ids(self, name: str, conversation: Conversation) -> list[int]:
        """Raises StepFailed for a conversation that the model's format cannot express."""
        return generation.prompt_ids(self._models[name].loaded, conversation)

    def answer(self, name: str, question: GenerationRequest, send: Callable[[str], None]) -> GeneratedAnswer:
        """Blocks until the answer has ended; calls `send` with each piece of it as soon as it is final."""
        model = self._models[name]
        listener = _Listener(model.loaded, question, send)
        with self._lock:
            if question.cancelled.is_set():
                return GeneratedAnswer("", 0, cut=True)
            if question.settings.greedy is False:
                torch.manual_seed(question.settings.seed)
            try:
                with _switched(model):
                    generation.generate(model.loaded, [question.ids], question.settings, listener)
            except _Enough:
                pass  # a stop text, or no client waits any more
        return listener.ended()


class _Enough(Exception):
    """Ends the generation."""


class _Listener:
    """A streamer: transformers calls it with each new token."""

    def __init__(self, loaded: LoadedModel, question: GenerationRequest, send: Callable[[str], None]) -> None:
        self._loaded, self._question, self._send = loaded, question, send
        self._pieces = Pieces(question.stops)
        self._tokens: list[int] = []
        self._prompt_seen = self._at_end = False

    def put(self, value: Any) -> None:
        if not self._prompt_seen:  # transformers passes the prompt first
            self._prompt_seen = True
            return
        for token in value.flatten().tolist():
            self._add(token)
        if self._pieces.stopped or self._question.cancelled.is_set():
            raise _Enough

    def end(self) -> None:
        """transformers calls this at the end; `ended` does the work."""

    def ended(self) -> GeneratedAnswer:
        if not self._pieces.stopped and (left := self._pieces.finish(self._text())):
            self._send(left)
        done = self._at_end or self._pieces.stopped
        return GeneratedAnswer(self._pieces.answer, len(self._tokens) + self._at_end, cut=not done)

    def _add(self, token: int) -> None:
        if token in self._loaded.ends:
            self._at_end = True
        elif not self._at_end:
            self._tokens.append(token)
            if piece := self._pieces.feed(self._text()):
                self._send(piece)

    def _text(self) -> str:
        text: str = self._loaded.tokenizer.decode(self._tokens, skip_special_tokens=True)
        return text


def _load(group: Sequence[ServedModel], progress: Callable[[str], None]) -> list[tuple[ServedModel, _Model]]:
    """Load the models of a group, which share the weights in memory."""
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
        models.append((one, _Model(loaded, name if has_one else None, base_has_adapters=adapter is not None)))
    return models


def _switched(model: _Model) -> Any:
    """A context in which the model's own adapter is active, or none."""
    if model.adapter is None:
        return model.loaded.model.disable_adapter() if model.base_has_adapters else contextlib.nullcontext()
    model.loaded.model.set_adapter(model.adapter)
    return contextlib.nullcontext()
