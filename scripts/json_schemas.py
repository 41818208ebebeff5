"""The JSON Schema of what each verb prints with --json, from the dataclasses that are printed.

    .venv/bin/python -m scripts.json_schemas

writes docs/compare.schema.json and docs/best.schema.json, which the pages about them link. Those of all verbs are pages
of the site's reference. A test compares the files with the code, and outputs of the verbs with the schemas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from runner.command.data import DatasetList, SampledDataset
from runner.command.doctor import Checks
from runner.command.ls import FilesOfRun
from runner.command.merge import MergedModel
from runner.command.pull import PulledFiles
from runner.command.push import PushedModel
from runner.command.removal import RemovalResult
from runner.command.sync import SyncOutput
from runner.command.wandb_view import BuiltView, SavedView
from runner.command.warm import EndedTrainers, PreloadedTrainers
from runner.compare.best import Best
from runner.compare.comparison import Comparison
from runner.compare.pair import Pair
from runner.console.print_json import VERSION
from runner.executors.serve_deployments import EndedDeployments, ServeDeployments
from runner.follow_up.show_answers import Answers
from runner.follow_up.show_measures import Measures
from runner.launch.printed_plan import PrintedPlan
from runner.serve.words import ServedModels
from runner.settle.words import SettleOutput
from runner.show.status import SweepList
from scripts.docs_site.attribute_docs import attribute_docs

DOCS = Path(__file__).resolve().parents[1] / "docs"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
PRINTED: Mapping[str, tuple[type[Any], ...]] = {
    "plan": (PrintedPlan,),
    "status": (SweepList, Comparison),
    "compare": (Comparison, Pair),
    "best": (Best,),
    "sync": (SyncOutput,),
    "wandb-view": (SavedView, BuiltView),
    "data": (DatasetList, SampledDataset),
    "merge": (MergedModel,),
    "eval": (Measures,),
    "settle": (SettleOutput,),
    "resume": (Comparison,),
    "infer": (Answers,),
    "attach": (Comparison,),
    "serve": (ServedModels, ServeDeployments, EndedDeployments),
    "ls": (FilesOfRun,),
    "pull": (PulledFiles,),
    "rm": (RemovalResult,),
    "gc": (RemovalResult,),
    "push": (PushedModel,),
    "doctor": (Checks,),
    "warm": (PreloadedTrainers, EndedTrainers),
}
"""Each verb that takes --json, and what it may print. A launch prints a Comparison."""
FILES = ("compare", "best")
"""The verbs whose schema is a file, too."""


@cache
def adapter(verb: str) -> TypeAdapter[Any]:
    """Describes and checks what the verb prints."""
    described: Any = PRINTED[verb][0]
    for one in PRINTED[verb]:
        one.__pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # for the dataclasses in it, too
        described |= one
    return TypeAdapter(described)


def schema_of(verb: str) -> dict[str, Any]:
    schema = {"$schema": DIALECT, **adapter(verb).json_schema(mode="serialization")}
    objects = {**schema.get("$defs", {}), **({schema["title"]: schema} if "properties" in schema else {})}
    for printed in PRINTED[verb]:
        properties = objects[printed.__name__]["properties"]
        if "version" not in properties:
            properties["version"] = {"const": VERSION, "title": "Version", "type": "integer"}
        for one in printed.__mro__[:-1]:  # pydantic does not read the docstrings of base classes
            if one.__name__ in objects:
                _describe_inherited(objects[one.__name__]["properties"], one)
    return schema


def _describe_inherited(properties: Mapping[str, dict[str, Any]], described: type) -> None:
    for above in described.__mro__[1:-1]:
        for name, text in attribute_docs(above).items():
            properties[name].setdefault("description", " ".join(text.split()))


def text_of(verb: str) -> str:
    return json.dumps(schema_of(verb), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    for verb in FILES:
        (DOCS / f"{verb}.schema.json").write_text(text_of(verb), encoding="utf-8")
        print(f"written docs/{verb}.schema.json")


if __name__ == "__main__":
    main()
