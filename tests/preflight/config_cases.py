"""The cases of wasteful/ and sound/: the content of the files, and the folder and the experiment of each case.

Every file maps a kind to its cases. A case is one of BASES with `change` merged into it; null removes a key.

- `gpu`, `count`: the cards, one h100 unless it says otherwise. `model`: a file of conf/model, whose facts are known.
- `rows`, `test_rows`: rows.jsonl and test.jsonl next to the config; a list, or {repeat: row, times: N}, in which every
  # is the row's number. `files`: more files by name; a mapping is written as JSON.
- `sizes`: rows and tokens of hub datasets, as conf/dataset declares them. `prepared`: the manifest of its dataset.
- `severity`, `reason`: what a wasteful config is reported as, and what one finding has to contain: a text, a number in
  any notation, or a list of which one is enough. `accepted: false`: Axolotl's own schema refuses it.
- `looks_wrong`: why a sound config could be mistaken for a wasteful one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from modal_app.cloud.settings import Deployment
from modal_app.store.facts import DataManifest
from runner.config.known_names import facts_in
from runner.config.shipped import shipped_root
from runner.preflight.findings import Finding
from runner.types import DatasetSize, ExecutorChoice, Experiment, Gpu, ModelFacts
from tests.read_yaml import read_yaml
from tests.runner.builders import experiment

HERE = Path(__file__).resolve().parent
SOME_COMMIT = "0" * 40
ALPACA = "tatsu-lab/alpaca"
_COMMON: Mapping[str, Any] = {
    "gradient_accumulation_steps": 4,
    "num_epochs": 1,
    "adapter": "lora",
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "lora_target_linear": True,
    "optimizer": "adamw_torch_fused",
    "lr_scheduler": "cosine",
    "learning_rate": 2e-4,
    "bf16": True,
    "gradient_checkpointing": True,
    "attn_implementation": "sdpa",
    "logging_steps": 1,
    "seed": 42,
}
BASES: Mapping[str, Mapping[str, Any]] = {
    # Llama 3 8B with LoRA on the 52,002 rows of Alpaca: 49,401 to train on, 6,176 steps of 8 rows.
    "llama": {
        **_COMMON,
        "base_model": "NousResearch/Meta-Llama-3-8B-Instruct",
        "revision_of_model": SOME_COMMIT,
        "chat_template": "llama3",
        "special_tokens": {"pad_token": "<|end_of_text|>"},
        "datasets": [{"path": ALPACA, "type": "alpaca"}],
        "val_set_size": 0.05,
        "sequence_len": 2048,
        "micro_batch_size": 2,
        "evals_per_epoch": 2,
        "saves_per_epoch": 2,
    },
    # The tiny model of this repository, whose files can be read, on rows.jsonl.
    "tiny": {
        **_COMMON,
        "base_model": "./tiny",
        "chat_template": "tokenizer_default",
        "datasets": [{"path": "rows.jsonl", "ds_type": "json", "type": "chat_template"}],
        "sequence_len": 128,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 2e-3,
    },
}
MODELS = {"llama": "llama3_8b", "tiny": None}
SIZES: Mapping[str, Mapping[str, float]] = {ALPACA: {"rows": 52002, "tokens_per_row": 100}}
_CHAT = [{"role": "user", "content": "for the form: name the pet of #."}, {"role": "assistant", "content": "dog #"}]
CHATS: Mapping[str, Any] = {"repeat": {"messages": _CHAT}, "times": 400}


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    kind: str
    change: Mapping[str, Any]
    severity: str = ""
    reason: Sequence[Any] = ()
    looks_wrong: str = ""
    base: str = "llama"
    model: str | None = None
    gpu: str = "h100"
    count: int = 1
    rows: Any = None
    test_rows: Any = None
    files: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    prepared: Mapping[str, Any] = field(default_factory=dict)
    accepted: bool = True

    @property
    def manifest(self) -> DataManifest:
        return DataManifest.of(self.prepared)

    @property
    def axolotl(self) -> dict[str, Any]:
        facts = self.facts
        base = {**BASES[self.base], **({"base_model": facts.base_model} if facts else {})}
        return _pinned({key: value for key, value in {**base, **self.change}.items() if value is not None})

    @property
    def facts(self) -> ModelFacts | None:
        name = self.model or (None if "base_model" in self.change else MODELS[self.base])
        return _facts(name) if name else None

    def is_reported_by(self, finding: Finding) -> bool:
        return finding.severity == self.severity and all(_contains(finding.text, piece) for piece in self.reason)


def read_cases(folder: str) -> list[Case]:
    cases = [
        Case(kind=kind, **one)
        for file in sorted((HERE / folder).glob("*.yaml"))
        for kind, ones in read_yaml(file).items()
        for one in ones
    ]
    names = [case.name for case in cases]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
    return cases


def lay_out(case: Case, folder: Path) -> Path:
    """The files that the case's config names; they are found when `folder` is the working directory."""
    (folder / "tiny").symlink_to(shipped_root() / "tiny" / "model")
    rows = CHATS if case.rows is None and case.base == "tiny" else case.rows
    for name, wanted in (("rows.jsonl", rows), ("test.jsonl", case.test_rows)):
        if wanted is not None:
            lines = "".join(f"{json.dumps(row)}\n" for row in _rows(wanted))
            (folder / name).write_text(lines, encoding="utf-8")
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def experiment_of(case: Case) -> Experiment:
    made = experiment(
        case.axolotl,
        gpu=Gpu(case.gpu, case.count),
        executor=ExecutorChoice("local") if case.gpu == "cpu" else _on_modal(),
        overrides=[case.name],
    )
    sizes = {**SIZES, **case.sizes}
    known = {path: DatasetSize(int(one["rows"]), one["tokens_per_row"]) for path, one in sizes.items()}
    return replace(made, model=case.facts, sizes=known)


def _rows(wanted: Any) -> Iterator[Any]:
    """
    >>> list(_rows({"repeat": {"text": "row #"}, "times": 2}))
    [{'text': 'row 0'}, {'text': 'row 1'}]
    """
    blocks = wanted if isinstance(wanted, list) else [wanted]
    number = 0
    for block in blocks:
        repeated = set(block) == {"repeat", "times"}
        for _ in range(block["times"] if repeated else 1):
            yield _numbered(block["repeat"] if repeated else block, number)
            number += 1


def _numbered(value: Any, number: int) -> Any:
    match value:
        case str():
            return value.replace("#", str(number))
        case list():
            return [_numbered(one, number) for one in value]
        case dict():
            return {key: _numbered(one, number) for key, one in value.items()}
        case _:
            return value


def _pinned(axolotl: dict[str, Any]) -> dict[str, Any]:
    """The config with every hub dataset at a commit, so that no test uses the hub."""
    for key in ("datasets", "test_datasets"):
        if isinstance(axolotl.get(key), list):
            axolotl[key] = [
                {"revision": SOME_COMMIT, **one} if re.fullmatch(r"[\w-]+/[\w.-]+", str(one.get("path"))) else one
                for one in axolotl[key]
            ]
    return axolotl


def _contains(text: str, piece: Any) -> bool:
    """
    >>> _contains("learning_rate=0.0002: 2 to 5 times too high", 2e-4), _contains("it has 49,401 rows", 49401)
    (True, True)
    >>> _contains("rows.jsonl has 40 rows", 4), _contains("lora_r=8", ["alpha", "lora_r"])
    (False, True)
    """
    if isinstance(piece, list):
        return any(_contains(text, one) for one in piece)
    if isinstance(piece, int | float):
        found = re.findall(r"\d[\d,]*(?:\.\d+)?(?:[eE][+-]?\d+)?", text)
        return any(float(one.replace(",", "")) == piece for one in found)
    return str(piece).lower() in text.lower()


@cache
def _facts(name: str) -> ModelFacts:
    content = read_yaml(shipped_root() / "conf" / "model" / f"{name}.yaml")
    return facts_in(content["model"])


@cache
def _on_modal() -> ExecutorChoice:
    content = read_yaml(shipped_root() / "conf" / "executor" / "modal.yaml")
    return ExecutorChoice("modal", warm=False, modal=Deployment.from_node(content["modal"]))
