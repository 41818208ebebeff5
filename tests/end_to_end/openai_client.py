"""Asks a server with OpenAI's own client, in the trainer's Python: requests in, as JSON on standard input, answers out.

`python openai_client.py URL/v1 KEY`. A request is what `chat.completions.create` takes; an answer is its text, what
was said in pieces, how it ended and what it took, or the class and the content of an error.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0, timeout=120)


def ask(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return streamed(request) if request.get("stream") else whole(request)
    except openai.APIStatusError as error:
        body = error.body if isinstance(error.body, dict) else {}
        return {"error": type(error).__name__, "status": error.status_code, **body}


def whole(request: dict[str, Any]) -> dict[str, Any]:
    answer = client.chat.completions.create(**request)
    choice = answer.choices[0]
    return {"text": choice.message.content, "finish": choice.finish_reason, "usage": answer.usage.model_dump()}


def streamed(request: dict[str, Any]) -> dict[str, Any]:
    chunks = list(client.chat.completions.create(**request))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    pieces = [choice.delta.content for choice in choices if choice.delta.content]
    usage = [chunk.usage.model_dump() for chunk in chunks if chunk.usage]
    finish = [choice.finish_reason for choice in choices if choice.finish_reason]
    return {"text": "".join(pieces), "pieces": pieces, "finish": finish[0], "usage": usage[0] if usage else None}


def main() -> None:
    asked = json.load(sys.stdin)
    if asked == "models":
        print(json.dumps([model.id for model in client.models.list()]))
        return
    with ThreadPoolExecutor(8) as threads:
        print(json.dumps(list(threads.map(ask, asked))))


if __name__ == "__main__":
    main()
