"""Sends requests to servers with OpenAI's own client, in the trainer's Python: a line of JSON in, a line of JSON out.

In: {"url": URL/v1, "key": KEY, "requests": "models", or what `chat.completions.create` takes, each}. An answer is its
text, its pieces, how it ended and what it took, or the class and the content of an error.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai


def ask(client: openai.OpenAI, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return streamed(client, request) if request.get("stream") else whole(client, request)
    except openai.APIStatusError as error:
        body = error.body if isinstance(error.body, dict) else {}
        return {"error": type(error).__name__, "status": error.status_code, **body}


def whole(client: openai.OpenAI, request: dict[str, Any]) -> dict[str, Any]:
    answer = client.chat.completions.create(**request)
    choice = answer.choices[0]
    return {"text": choice.message.content, "finish": choice.finish_reason, "usage": answer.usage.model_dump()}


def streamed(client: openai.OpenAI, request: dict[str, Any]) -> dict[str, Any]:
    chunks = list(client.chat.completions.create(**request))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    pieces = [choice.delta.content for choice in choices if choice.delta.content]
    usage = [chunk.usage.model_dump() for chunk in chunks if chunk.usage]
    finish = [choice.finish_reason for choice in choices if choice.finish_reason]
    return {"text": "".join(pieces), "pieces": pieces, "finish": finish[0], "usage": usage[0] if usage else None}


def answers(url: str, key: str, requests: Any) -> Any:
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=120) as client:
        if requests == "models":
            return [model.id for model in client.models.list()]
        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(lambda request: ask(client, request), requests))


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(answers(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
