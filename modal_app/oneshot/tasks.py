"""Which tasks the lm-evaluation-harness knows: `python modal_app/run.py tasks`.

Reads {"tasks", "include", "index"} from standard input and prints the unknown tasks, each with the most similar known
ones. `index` is the file in which it is kept what the harness's own task files define.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.step import write_atomically


def main() -> int:
    request = json.loads(sys.stdin.read())
    stdout = os.dup(1)
    os.dup2(2, 1)  # so that output of the imports is not part of the answer
    unknown = unknown_of(request["tasks"], catalogue(request["include"], Path(request["index"])))
    with os.fdopen(stdout, "w", encoding="utf-8") as answer:
        json.dump(unknown, answer)
    return 0


def unknown_of(names: Sequence[str], known: Any) -> dict[str, list[str]]:
    """Name -> the most similar known tasks, for each of `names` (tasks, groups, tags, patterns of them) that is not in
    the catalogue."""
    return {
        name: difflib.get_close_matches(name, known.all_tasks, n=3, cutoff=0.6)
        for name in names
        if not known.match_tasks([name])
    }


def catalogue(include: str | None, index: Path | None) -> Any:
    """The harness's TaskManager, which knows its own tasks and those in the folder `include`.

    Its own task files are more than ten thousand and take seconds to read, so `index` keeps what they define for as
    long as they are the same. None: they are read.
    """
    from lm_eval import tasks

    own = Path(tasks.__file__).parent

    class IndexedTasks(tasks.TaskManager):  # type: ignore[misc]  # the launcher's environment does not have it
        def _get_task_and_group(self, task_dir: str) -> dict[str, Any]:
            if index is None or Path(task_dir) != own:
                return dict(super()._get_task_and_group(task_dir))
            files = _digest(own)
            kept = read_json(index, lenient=True)
            if kept.get("files") == files:
                return dict(kept["tasks"])
            found = dict(super()._get_task_and_group(task_dir))
            with contextlib.suppress(OSError):  # the store of another user; the files are read again next time
                index.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(index, json.dumps({"files": files, "tasks": found}))
            return found

    return IndexedTasks(include_path=None if include is None else str(Path(include).absolute()))


def index_in(store: Store) -> Path:
    return store.cache / "tasks.json"


def _digest(folder: Path) -> str:
    """Of the task files there, by name, size and time."""
    files = sorted(_task_files(folder))
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def _task_files(folder: Path | str) -> Iterator[tuple[str, int, int]]:
    for entry in os.scandir(folder):
        if entry.is_dir():
            yield from _task_files(entry.path)
        elif entry.name.endswith(".yaml"):
            state = entry.stat()
            yield entry.path, state.st_size, state.st_mtime_ns


def said_of(unknown: Mapping[str, Sequence[str]]) -> str:
    """The result of `unknown_of` as a sentence."""
    words = [f"{name} (did you mean {' or '.join(near)}?)" if near else name for name, near in unknown.items()]
    return f"The lm-evaluation-harness has no task {', '.join(words)}."
