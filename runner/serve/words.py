"""The output of `axosweep serve`: the models by their names, and how to use one."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass

from rich.table import Table

from modal_app.serving.spec import TOKEN_VARIABLE, ServedModel
from runner.console import terminal
from runner.console.print_json import print_json
from runner.executors.serve_deployments import ServeDeployments
from runner.serve.choice import BEST, ServeSelection

QUESTION = [{"role": "user", "content": "Hello"}]
_PYTHON = """\
import os
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key={key})
answer = client.chat.completions.create(model="{model}", messages={messages})
print(answer.choices[0].message.content)"""


def _example(chosen: ServeSelection) -> ServedModel:
    """The model for the examples: the best, if there is one."""
    return next((model for model in chosen.models if BEST in model.names), chosen.models[-1])


@dataclass(frozen=True, slots=True)
class Address:
    url: str
    """Without a path: `http://127.0.0.1:8000`."""
    needs_token: bool
    ends_by: str = "Ctrl-C ends it"


@dataclass(frozen=True, slots=True)
class ModelNames:
    """A served model."""

    names: tuple[str, ...]
    """Each of them can be used in a request."""
    what: str


@dataclass(frozen=True, slots=True)
class ServedModels:
    """What `serve --json` prints as soon as the models are ready."""

    url: str
    token: bool
    """Whether requests need the token."""
    models: tuple[ModelNames, ...]


def how_to_ask(chosen: ServeSelection, address: Address, *, as_json: bool) -> None:
    """Print the models and two ways to use them to standard output, without the token."""
    if as_json:
        names = (model.names for model in chosen.models)
        models = tuple(ModelNames(tuple(one), what) for one, what in zip(names, chosen.summaries, strict=True))
        print_json(ServedModels(f"{address.url}/v1", address.needs_token, models))
        sys.stdout.flush()
        return
    out = terminal.results()
    terminal.say(out, f"{address.url}/v1  ({address.ends_by})")
    table = Table(box=None, pad_edge=False)
    for heading in ("  model", "what", "also called"):
        table.add_column(heading)
    for model, what in zip(chosen.models, chosen.summaries, strict=True):
        table.add_row(f"  {model.names[0]}", what, "  ".join(model.names[1:]))
    out.print(table)
    terminal.say(out, f"\n{ways(address, _example(chosen).names[-1])}")
    sys.stdout.flush()


def show_deployed(deployed: ServeDeployments, *, as_json: bool) -> None:
    """Print all servers on Modal."""
    if as_json:
        print_json(deployed)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "models", "GPU", "url"):
        table.add_column(heading)
    for one in deployed.deployments:
        models = "  ".join(names[0] for names, _ in one.models)
        table.add_row(one.app, models, one.gpu, f"{one.url}/v1")
    terminal.results().print(table if deployed.deployments else "Nothing is being served on Modal.")


def ways(address: Address, model: str) -> str:
    """A command line and a program that use the server; both read the token from the environment."""
    messages = json.dumps(QUESTION)
    header = f' -H "Authorization: Bearer ${TOKEN_VARIABLE}"' if address.needs_token else ""
    body = shlex.quote(json.dumps({"model": model, "messages": QUESTION}))
    curl = f"curl {address.url}/v1/chat/completions -H 'Content-Type: application/json'{header} -d {body}"
    key = f'os.environ["{TOKEN_VARIABLE}"]' if address.needs_token else '"none"'
    program = _PYTHON.format(url=address.url, key=key, model=model, messages=messages)
    if not address.needs_token:
        program = program.replace("import os\n", "")
    return f"{curl}\n\n{program}"
