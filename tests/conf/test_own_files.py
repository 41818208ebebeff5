"""A user's own files, in each format that a dataset option names, become rows in the real Axolotl."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.environment import trainer_environment

LIMIT = 3
ROWS: Mapping[str, Mapping[str, Any]] = {
    "local": {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."}]},
    "local_sharegpt": {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Ann."}]},
    "local_alpaca": {"instruction": "Name one.", "input": "", "output": "Ann."},
    "local_text": {"text": "Ann has room 7."},
}


def _written(folder: Path, option: str) -> Path:
    """A file with more distinct rows than the limit."""
    file = folder / f"{option}.jsonl"
    rows = [json.dumps(ROWS[option]).replace("Ann", f"Ann{number}") for number in range(2 * LIMIT)]
    file.write_text("\n".join(rows), encoding="utf-8")
    return file


def _prepared(configs: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, int]:
    files = []
    for name, config in configs.items():
        files.append(folder / name / "config.yml")
        files[-1].parent.mkdir()
        files[-1].write_text(yaml.safe_dump({**config, "output_dir": str(folder / name / "out")}), encoding="utf-8")
    done = subprocess.run(
        [trainer_environment.find(), Path(__file__).with_name("tokenized_rows.py")],
        input=json.dumps([str(file) for file in files]),
        env={**os.environ, "HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(configs, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.slow
def test_axolotl_reads_a_limited_number_of_rows_of_each_kind_of_file_and_of_a_mix(
    ask: Callable[..., Any], tmp_path: Path
) -> None:
    files = {option: _written(tmp_path, option) for option in ROWS}
    mixed = [
        argument
        for index, option in enumerate(("local", "local_alpaca", "local_text"))
        for argument in (f"datasets.{index}.path={files[option]}", f"datasets.{index}.ds_type=json")
    ]
    lines = {
        **{option: [f"dataset={option}", f"data.path={file}"] for option, file in files.items()},
        "mix": ["dataset=mix", "~datasets.2.name", *mixed],
    }
    requested = {
        name: ask(*line, f"data.limit={LIMIT}", "val_set_size=0").experiments[0] for name, line in lines.items()
    }
    rows = _prepared({name: one.axolotl for name, one in requested.items()}, tmp_path)
    assert rows == {**dict.fromkeys(ROWS, LIMIT), "mix": 3 * LIMIT}
