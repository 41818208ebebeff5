"""A whole launch with a trainer that cannot even start: what is told of it, and where."""

import json
from pathlib import Path

import pytest

from runner import cli


@pytest.fixture
def broken_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "trainer" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 'a library is missing' >&2\nexit 7\n")
    python.chmod(0o755)
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(tmp_path / "trainer"))


@pytest.mark.usefixtures("broken_trainer")
def test_a_launch_in_json_prints_nothing_else_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([f"store={tmp_path / 'store'}", "json=true"]) == 1
    told = capsys.readouterr()
    (run,) = json.loads(told.out)["runs"]
    assert "1 run, 1 dataset (1 to tokenize)" in told.err
    assert run["status"] == "blocked"
    assert "ended before it began" in run["message"]
    assert "a library is missing" in Path(run["log"]).read_text()
