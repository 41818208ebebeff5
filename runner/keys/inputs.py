"""The inputs of a config: found, then identified by content (local) or commit (hub)."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.errors import SweepError, did_you_mean
from runner.keys import hub_commits
from runner.keys.content import ContentHashes
from runner.types import Input, InputKind

ADAPTER = "lora_model_dir"
MODEL_KEYS = ("base_model", "base_model_config", "tokenizer_config", "processor_config", ADAPTER)
DATASET_LISTS = ("datasets", "test_datasets", "pretraining_dataset")
FILE_KEYS = ("deepspeed",)
"""Keys whose value, if it is text, is a file's path."""

TEMPLATE = "chat_template_jinja"
"""At the top and in each dataset: a template, or the path of its file."""

LOADERS = {"json", "csv", "parquet", "text", "arrow", "xml", "webdataset"}
"""`path` values that name a loader of the datasets library: the files are in data_files."""

LONGEST_NAME = 255
"""Of a file, on most file systems."""

_LOCAL_LOOKING = re.compile(r"^[./~]|\.(jsonl?|csv|parquet|txt|arrow|gz|zst)$")
_HUB_NAME = re.compile(r"^[\w.-]+(/[\w.-]+)?$")
_ADAPTER_NAME = re.compile(r"^[\w.-]+(/[\w.-]+)?(@[\w.-]+)?$")
_NOT_PINNED = (
    "neither a local path nor a Hugging Face name (owner/name), so its content cannot be pinned. Download it and give "
    "the file's path."
)


@dataclass(frozen=True, slots=True)
class UnusableInput:
    """An input of a config that cannot be read or cannot be pinned."""

    at: str
    text: str
    why: str

    def __str__(self) -> str:
        return f"{self.at}={self.text}: {self.why}"


def find_inputs(axolotl: Mapping[str, Any]) -> tuple[Input, ...]:
    """The inputs of a config, not yet identified. Raises SweepError with all unusable ones."""
    found, unusable = look_for_inputs(axolotl)
    if unusable:
        raise SweepError("\n".join(map(str, unusable)))
    return found


def look_for_inputs(axolotl: Mapping[str, Any]) -> tuple[tuple[Input, ...], tuple[UnusableInput, ...]]:
    """The usable inputs and the unusable ones: a local path that does not exist, an address that cannot be pinned."""
    classified = [_classify(at, text) for at, text in _named(axolotl)]
    found = tuple(one for one in classified if isinstance(one, Input))
    unusable = [one for one in classified if isinstance(one, UnusableInput)]
    return found, (*unusable, *_not_dataset_entries(axolotl), *_second_hub_models(found))


def require_possible_paths(axolotl: Mapping[str, Any]) -> None:
    """Raises SweepError for text in the place of a path that no file could have, so that looking for it is an error."""
    entries = [(f"{key}.{index}", one) for key in DATASET_LISTS if isinstance(axolotl.get(key), list)
               for index, one in enumerate(axolotl[key]) if isinstance(one, Mapping)]  # fmt: skip
    named = [(key, axolotl.get(key)) for key in MODEL_KEYS + FILE_KEYS]
    named += [(f"{at}.{key}", entry.get(key)) for at, entry in entries for key in ("path", "data_files")]
    for at, text in named:
        if isinstance(text, str) and (text.startswith("~") or len(text) > LONGEST_NAME):
            try:
                Path(text).expanduser().exists()
            except RuntimeError as error:
                user = text.partition("/")[0]
                raise SweepError(f"{at}={text}: there is no folder {user}. Write the complete path.") from error
            except OSError as error:
                text = f"{text[:40]}... ({len(text)} characters)"
                raise SweepError(f"{at}={text}: expected a path or a name ({error.strerror}).") from error


def identify_input(found: Input, axolotl: Mapping[str, Any], hashes: ContentHashes) -> Input:
    """The same input with its identity, or for a hub name that cannot be resolved now, with the reason and None."""
    if found.kind is not InputKind.HUB:
        return replace(found, identity=hashes.of(Path(found.text).expanduser()))
    repository = hub_commits.Repository("dataset" if is_dataset(found.at) else "model", hub_name(found))
    resolved = hub_commits.resolve(repository, _configured_revision(found, axolotl))
    return replace(found, identity=resolved.commit, problem=resolved.problem)


def staged_name(found: Input) -> str:
    """The path of a local input below the store's root, by content."""
    assert found.identity is not None
    assert found.kind is not InputKind.HUB
    is_file = found.kind in (InputKind.FILE, InputKind.ROWS)
    extension = _extension(Path(found.text)) if is_file else ""
    return f"inputs/{found.identity[:16]}{extension}"


def hub_name(found: Input) -> str:
    """The repository of a hub input. Only an adapter's text may contain a revision as well."""
    return found.text.partition("@")[0] if found.at == ADAPTER else found.text


def how_to_pin(found: Input) -> str:
    """The override that pins a hub input, so that the hub is not needed."""
    return "=".join(pinned(found, "<40-digit commit>"))


def pinned(found: Input, commit: str) -> tuple[str, str]:
    """The config key that pins a hub input, and its value. Axolotl has no key for an adapter's revision, so it is part
    of the adapter's name.

    >>> pinned(Input("lora_model_dir", "owner/adapter", InputKind.HUB, None), "c0ffee")
    ('lora_model_dir', 'owner/adapter@c0ffee')
    """
    if found.at == ADAPTER:
        return ADAPTER, f"{hub_name(found)}@{commit}"
    return revision_key(found.at), commit


def revision_key(at: str) -> str:
    """The config key that holds the revision of the hub input named at `at`.

    >>> revision_key("base_model"), revision_key("datasets.1.path")
    ('revision_of_model', 'datasets.1.revision')
    """
    return at.rsplit(".", 1)[0] + ".revision" if is_dataset(at) else "revision_of_model"


def _named(axolotl: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in MODEL_KEYS + FILE_KEYS:
        if isinstance(axolotl.get(key), str) and axolotl[key]:  # an empty text is not the current folder
            yield key, axolotl[key]
    yield from _named_template(TEMPLATE, axolotl)
    for key in DATASET_LISTS:
        entries = axolotl.get(key)
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, Mapping):
                yield from _named_in_dataset(f"{key}.{index}", entry)
                yield from _named_template(f"{key}.{index}.{TEMPLATE}", entry)


def _not_dataset_entries(axolotl: Mapping[str, Any]) -> Iterator[UnusableInput]:
    for key in DATASET_LISTS:
        entries = axolotl.get(key)
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            if not isinstance(entry, Mapping):
                yield UnusableInput(
                    f"{key}.{index}", str(entry), f"expected a mapping: {key}=[{{path: ..., type: ...}}]"
                )
        if entries and not isinstance(entries, list | Mapping) and key != "pretraining_dataset":
            yield UnusableInput(key, str(entries), f"expected a list: {key}=[{{path: ..., type: ...}}]")


def _named_template(at: str, holder: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Axolotl reads the value as a file if there is one of this name, and otherwise as the template itself."""
    text = holder.get(TEMPLATE)
    if isinstance(text, str) and (text.endswith((".jinja", ".jinja2", ".j2")) or os.path.isfile(text)):
        yield at, text


def _named_in_dataset(at: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    path, files = entry.get("path"), entry.get("data_files")
    if isinstance(path, str) and path not in LOADERS:
        yield f"{at}.path", path
        if not Path(path).expanduser().exists():
            return  # data_files of a hub dataset are in its repository, so the commit covers them
    if isinstance(files, str):
        yield f"{at}.data_files", files
    elif isinstance(files, list):
        yield from ((f"{at}.data_files.{index}", name) for index, name in enumerate(files) if isinstance(name, str))


def _classify(at: str, text: str) -> Input | UnusableInput:
    path = Path(text).expanduser()
    if path.is_file():
        return Input(at, text, InputKind.FILE, None)
    if path.is_dir():
        return Input(at, text, InputKind.FOLDER, None)
    if "://" in text:
        return UnusableInput(at, text, _NOT_PINNED)
    always_local = at.split(".")[0] in FILE_KEYS or at.endswith(TEMPLATE) or ".data_files" in at
    if always_local or _LOCAL_LOOKING.search(text):
        return UnusableInput(at, text, f"there is no such file or folder (looked in {os.getcwd()}).{_near(path)}")
    if not (_ADAPTER_NAME if at == ADAPTER else _HUB_NAME).match(text):
        return UnusableInput(at, text, _NOT_PINNED)
    return Input(at, text, InputKind.HUB, None)


def _near(path: Path) -> str:
    """A sentence with what the folder of a missing file has under a similar name; only so much is looked at."""
    try:
        names = list(itertools.islice(os.listdir(path.parent), 1000))
    except OSError:
        return ""
    return did_you_mean(path.name, names, lambda name: str(path.parent / name))


def _second_hub_models(inputs: Sequence[Input]) -> Iterator[UnusableInput]:
    """Models that are not in the first one's hub repository. Axolotl reads all of them at `revision_of_model`, and two
    repositories share no commit. An adapter has a commit of its own."""
    models = [
        found for found in inputs if found.kind is InputKind.HUB and found.at != ADAPTER and not is_dataset(found.at)
    ]
    for found in models[1:]:
        if found.text != models[0].text:
            yield UnusableInput(
                found.at,
                found.text,
                f"this is not the hub repository of {models[0].at}={models[0].text}, and Axolotl reads both at one "
                "commit (revision_of_model). Download one of them and give its folder.",
            )


def _extension(path: Path) -> str:
    compressed = path.suffix in {".gz", ".zst", ".bz2", ".xz"}
    return "".join(path.suffixes[-2:]) if compressed else path.suffix


def is_dataset(at: str) -> bool:
    return at.split(".")[0] in DATASET_LISTS


def _configured_revision(found: Input, axolotl: Mapping[str, Any]) -> str | None:
    if found.at == ADAPTER:
        revision = found.text.partition("@")[2] or None
    elif not is_dataset(found.at):
        revision = axolotl.get("revision_of_model")
    else:
        key, index, _ = found.at.split(".")[:3]
        revision = axolotl[key][int(index)].get("revision")
    return None if revision is None else str(revision)
