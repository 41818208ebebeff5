"""The part of OpenAI's HTTP protocol that a chat needs. Imported in the trainer's environment only.

Unsupported keys that would change the answer are refused, never ignored.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from jinja2 import TemplateError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from modal_app.inference.generation import GeneratedAnswer, Generation
from modal_app.process.failures import StepFailed
from modal_app.serving.guard import ANSWERS_WITHOUT_TOKEN, Guard
from modal_app.serving.models import GenerationRequest, Models


class RequestRefused(Exception):
    """A request that cannot be answered, as an error in OpenAI's form."""

    def __init__(self, message: str, *, status: int = 400, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def response(self) -> JSONResponse:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return JSONResponse({"error": error}, self.status)


class Part(BaseModel):
    type: Literal["text"]
    text: str


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    def as_trained(self) -> dict[str, str]:
        """The messages, in the roles and the form that chat templates accept."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """Other keys are ignored, unless they are in `_UNSUPPORTED`."""

    model_config = {"extra": "allow"}

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Literal[1] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def question(self, ids: list[int]) -> GenerationRequest:
        temperature = 1.0 if self.temperature is None else self.temperature
        settings = Generation(
            greedy=temperature == 0,
            max_tokens=self.max_completion_tokens or self.max_tokens or Generation().max_tokens,
            temperature=temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=secrets.randbits(32) if self.seed is None else self.seed,
        )
        return GenerationRequest(ids, settings, [self.stop] if isinstance(self.stop, str) else self.stop or [])


_UNSUPPORTED = {
    "tools": [], "functions": [], "logprobs": False, "top_logprobs": 0, "logit_bias": {}, "presence_penalty": 0,
    "frequency_penalty": 0, "response_format": {"type": "text"}, "modalities": ["text"],
}  # fmt: skip
"""Keys that would change an answer, each with the value that has no effect; null has none, either."""


def application(models: Models, token: str, max_body: int) -> FastAPI:
    """The server's application. With an empty token, it answers only this user's processes."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, token=token, max_body=max_body)
    for kind, answer in _ERRORS.items():
        app.add_exception_handler(kind, answer)

    async def health() -> dict[str, str]:
        return {"status": "ok"}

    async def listed() -> dict[str, Any]:
        return {"object": "list", "data": [_card(models, name) for name in models.names]}

    async def one(name: str) -> dict[str, Any]:
        return _card(models, _known(models, name))

    async def chat(body: ChatRequest, request: Request) -> Response:
        _refuse_unsupported(body)
        question = body.question(await asyncio.to_thread(_prompt, models, body))
        answering = _AnswerStream(models, body, question)
        if body.stream:
            return StreamingResponse(answering.events(), media_type="text/event-stream")
        return JSONResponse(await answering.complete(request.is_disconnected))

    app.add_api_route(ANSWERS_WITHOUT_TOKEN, health)
    app.add_api_route("/v1/models", listed)
    app.add_api_route("/v1/models/{name:path}", one)
    app.add_api_route("/v1/chat/completions", chat, methods=["POST"])
    return app


class _AnswerStream:
    """One answer, sent complete or in pieces. If the client disconnects, the generation ends."""

    def __init__(self, models: Models, body: ChatRequest, question: GenerationRequest) -> None:
        self._models, self._body, self._question = models, body, question
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": body.model}

    async def complete(self, is_gone: Callable[[], Any]) -> dict[str, Any]:
        async for piece in self._pieces():
            if isinstance(piece, GeneratedAnswer):
                message = {"role": "assistant", "content": piece.text, "refusal": None}
                choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(piece)}
                return {"object": "chat.completion", **self._head, "choices": [choice], "usage": self._usage(piece)}
            if await is_gone():
                self._question.cancelled.set()
        raise AssertionError("an answer ends")

    async def events(self) -> AsyncIterator[str]:
        try:
            yield self._chunk({"role": "assistant", "content": ""})
            async for piece in self._pieces():
                if isinstance(piece, str):
                    yield self._chunk({"content": piece})
                    continue
                yield self._chunk({}, finish=_finish(piece))
                options = self._body.stream_options
                if options is not None and options.include_usage:
                    yield _event({"object": _CHUNK, **self._head, "choices": [], "usage": self._usage(piece)})
        except Exception as error:  # the answer's boundary: its status has been sent already
            traceback.print_exception(error, file=sys.stderr)
            yield _event({"error": {"message": _text(error), "type": "server_error", "param": None, "code": None}})
        yield "data: [DONE]\n\n"

    async def _pieces(self) -> AsyncIterator[str | GeneratedAnswer]:
        """Each piece as it comes, then the end. A thread generates them, so that torch does not block the server."""
        loop, ready = asyncio.get_running_loop(), asyncio.Queue[str | None]()

        def send(piece: str | None) -> None:
            loop.call_soon_threadsafe(ready.put_nowait, piece)

        answer = asyncio.ensure_future(asyncio.to_thread(self._models.answer, self._body.model, self._question, send))
        answer.add_done_callback(lambda _: ready.put_nowait(None))
        try:
            while (piece := await ready.get()) is not None:
                yield piece
            yield await answer
        finally:
            self._question.cancelled.set()

    def _chunk(self, delta: dict[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({"object": _CHUNK, **self._head, "choices": [choice]})

    def _usage(self, ended: GeneratedAnswer) -> dict[str, int]:
        prompt = len(self._question.ids)
        return {"prompt_tokens": prompt, "completion_tokens": ended.tokens, "total_tokens": prompt + ended.tokens}


_CHUNK = "chat.completion.chunk"


def _prompt(models: Models, body: ChatRequest) -> list[int]:
    name = _known(models, body.model)
    try:
        ids = models.prompt_ids(name, [message.as_trained() for message in body.messages])
    except StepFailed as error:
        raise RequestRefused(str(error), param="messages") from error
    except TemplateError as error:
        raise RequestRefused(f"the model's chat template refuses these messages: {error}", param="messages") from error
    context = models.context(name)
    if len(ids) >= context:
        raise RequestRefused(
            f"the messages have {len(ids):,} tokens, and the model reads {context:,} at most, prompt and answer "
            "together",
            code="context_length_exceeded",
            param="messages",
        )
    return ids


def _known(models: Models, name: str) -> str:
    if name not in models:
        served = ", ".join(models.names)
        raise RequestRefused(
            f"there is no model {name} here; there are: {served}", status=404, code="model_not_found", param="model"
        )
    return name


def _refuse_unsupported(body: ChatRequest) -> None:
    for key, nothing in _UNSUPPORTED.items():
        value = (body.model_extra or {}).get(key)
        if value is not None and value != nothing:
            raise RequestRefused(f"{key} is not supported by this server", param=key, code="unsupported_parameter")


def _card(models: Models, name: str) -> dict[str, Any]:
    card = {"id": name, "object": "model", "created": 0, "owned_by": "axosweep"}
    return card | {"max_model_len": models.context(name)}


def _finish(ended: GeneratedAnswer) -> str:
    return "length" if ended.cut else "stop"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


async def _on_refused(request: Request, error: Any) -> Response:
    response: Response = error.response()
    return response


async def _on_invalid(request: Request, error: Any) -> Response:
    if "json" not in request.headers.get("content-type", ""):  # curl -d sends another one
        return RequestRefused("the body is read only with the header Content-Type: application/json").response()
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return RequestRefused(f"{where}: {first['msg']}" if where else first["msg"], param=where or None).response()


async def _on_http(request: Request, error: Any) -> Response:
    return RequestRefused(f"{request.method} {request.url.path}: {error.detail}", status=error.status_code).response()


async def _on_error(request: Request, error: Any) -> Response:
    return RequestRefused(_text(error), status=500).response()


_ERRORS: dict[Any, Any] = {
    RequestRefused: _on_refused,
    RequestValidationError: _on_invalid,
    HTTPException: _on_http,
    Exception: _on_error,
}
