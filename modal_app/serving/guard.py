"""What is checked before the local server reads a request: its user, its length, and whether it is JSON.

Without a token only the server's own user is answered: the loopback address keeps other machines out, but every user of
this machine can connect to it. Standard library.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

from modal_app.serving import peers
from modal_app.serving.spec import brings_token

LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
ANSWERS_WITHOUT_TOKEN = "/health"
MOST_READ_AWAY = 64 << 20
"""Bytes of a body that is too long anyway."""

IsOwnUser = Callable[[tuple[str, int], tuple[str, int]], bool]


class Refusal(Exception):
    """Its text goes to the client."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Guard:
    """An ASGI application around another one. The other one gets the body of a request complete, and checked."""

    def __init__(self, app: Any, token: str, max_body: int, is_own_user: IsOwnUser = peers.is_own_user) -> None:
        self._app, self._token, self._max_body, self._is_own_user = app, token.encode(), max_body, is_own_user

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_client(scope)
            if scope["method"] == "POST":
                receive = _replayed(check_json(await self._body(scope, receive)), receive)
        except Refusal as refusal:
            await _send(refusal, send)
            return
        await self._app(scope, receive, send)

    def _check_client(self, scope: Any) -> None:
        if self._token:
            if scope["path"] != ANSWERS_WITHOUT_TOKEN and not brings_token(scope["headers"], self._token):
                raise Refusal(401, "a token is needed: Authorization: Bearer TOKEN", "invalid_api_key")
            return
        host = dict(scope["headers"]).get(b"host", b"").decode(errors="replace")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name not in LOCAL_NAMES:  # a web page may send requests to this machine by a name of its own
            raise Refusal(403, "this server answers only to localhost")
        if not self._is_own_user(tuple(scope["client"][:2]), tuple(scope["server"][:2])):
            raise Refusal(403, "without a token, this server answers only the user who has started it")

    async def _body(self, scope: Any, receive: Any) -> bytes:
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._max_body:
            await _read_away(receive)
            self._refuse_length()
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "the request has ended before its body")
            body += bytes(message.get("body", b""))
            if len(body) > self._max_body:
                if message.get("more_body"):
                    await _read_away(receive)
                self._refuse_length()
            if not message.get("more_body"):
                return body

    def _refuse_length(self) -> NoReturn:
        raise Refusal(
            413, f"the body of a request has at most {self._max_body:,} bytes here (axosweep serve --max-body)"
        )


async def _read_away(receive: Any) -> None:
    """The rest of a body, up to MOST_READ_AWAY: a client that is still writing when the connection is closed fails, and
    never reads the answer."""
    left = MOST_READ_AWAY
    while left > 0:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return
        left -= len(message.get("body", b""))


def check_json(body: bytes) -> bytes:
    """The body, if it is JSON in UTF-8, and its texts are, too. Raises Refusal."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # `"\ud800"` is half a character
    except UnicodeError as error:
        raise Refusal(400, "the body is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "the body is not JSON") from error
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _replayed(body: bytes, receive: Any) -> Any:
    """A `receive` that returns the body once, and then what comes from the client."""
    first = True

    async def replay() -> Any:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay


async def _send(refusal: Refusal, send: Any) -> None:
    """As an error of OpenAI's protocol. The connection is closed, since the rest of a body is not read."""
    kind = "authentication_error" if refusal.status == 401 else "invalid_request_error"
    error = {"message": str(refusal), "type": kind, "param": None, "code": refusal.code}
    content = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
