"""The offline parts of a run, one from each attempt: which of them W&B lacks, and uploading these with `wandb sync`.

`wandb sync` marks a part as synced when it has sent all of it. It leaves a part unmarked if W&B did not take it, and
also if a kill has cut off the part's end, even though it has sent the rest. Its exit code is 0 in each case.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from google.protobuf.message import DecodeError
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

from runner.console.harmless import harmless_log
from runner.wandb.messages import LocalRun

HEADER_BYTES = 7
"""The size of the file's header."""
BLOCK_BYTES, FRAME_BYTES = 32768, 7
"""The file is a log of LevelDB: blocks of frames, each with a checksum (4), a length (2) and a type (1) before it."""
FULL, FIRST, LAST = 1, 2, 4
"""Types of frames: a record, or the first or last piece of one. The others are pieces in between."""
RUN: Final = "run"
EXIT: Final = "exit"
"""The records that begin and end a run."""


def lacking(run: LocalRun) -> list[Path]:
    """The parts that have not been uploaded, oldest first. Not those of runs that were killed before their first flush:
    there is nothing in them that could be uploaded."""
    found = sorted(Path(run.folder, "wandb").glob(f"offline-run-*-{run.id}/run-{run.id}.wandb"))
    return [part for part in found if not _is_uploaded(part) and _has(part, RUN)]


def upload(parts: Sequence[Path]) -> None:
    if not parts:
        return
    command = [sys.executable, "-P", "-m", "wandb", "sync", *(str(part.parent) for part in parts)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        print(harmless_log(done.stdout), file=sys.stderr)


def refused(parts: Sequence[Path]) -> list[Path]:
    """Of parts that were to be uploaded, those that W&B did not take, as far as the files show: the complete ones."""
    return [part for part in parts if not _is_uploaded(part) and _has(part, EXIT)]


def mark_uploaded(parts: Sequence[Path]) -> None:
    """Of uploaded parts, mark those that a kill has cut off. W&B has what could be read of them."""
    for part in parts:
        if not _is_uploaded(part):
            _own_mark(part).touch()


def _is_uploaded(part: Path) -> bool:
    return part.with_name(f"{part.name}.synced").exists() or _own_mark(part).exists()


def _own_mark(part: Path) -> Path:
    return part.with_name(f"{part.name}.cut-off-and-uploaded")


def _has(part: Path, record: Literal["run", "exit"]) -> bool:
    """Whether such a record can be read in a part."""
    try:
        return any(Record.FromString(text).HasField(record) for text in _records(part.read_bytes()))
    except DecodeError:
        return False


def _records(content: bytes) -> Iterator[bytes]:
    """Each record of a file, up to the place where it is cut off."""
    at, pieces = HEADER_BYTES, b""
    while at + FRAME_BYTES <= len(content):
        if BLOCK_BYTES - at % BLOCK_BYTES < FRAME_BYTES:
            at += BLOCK_BYTES - at % BLOCK_BYTES  # too little is left of the block for a frame
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        start, at = at + FRAME_BYTES, at + FRAME_BYTES + length
        if at > len(content):
            return
        pieces = content[start:at] if kind in (FULL, FIRST) else pieces + content[start:at]
        if kind in (FULL, LAST):
            yield pieces
