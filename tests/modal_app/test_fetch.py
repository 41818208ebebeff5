"""`run.py fetch` with the trainer's Python, as a container runs it, with a hub that is down for a while."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from modal_app.store.sources import RUN
from runner.environment import trainer_environment
from tests.hub_server import COMMIT, serve_hub

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tiny" / "model"


def listing(name: str) -> str:
    return f"/api/models/{name}/tree/{COMMIT}"


def fetch(url: str, cache: Path, name: str = "owner/tiny") -> subprocess.CompletedProcess[str]:
    """Fetch, with very short pauses."""
    variables = {"HF_ENDPOINT": url, "HF_HUB_CACHE": str(cache), "HF_HOME": str(cache)}
    return subprocess.run(
        [trainer_environment.find(), RUN, "fetch", name, COMMIT, "*.md", "--pauses", "0.1", "0.2"],
        env={**os.environ, **variables}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_a_model_is_fetched_from_a_hub_that_is_away_for_a_while(tmp_path: Path) -> None:
    with serve_hub("owner/tiny", TINY) as hub:
        hub.failures[COMMIT] = 2  # its listing, which the library asks for once a try
        done = fetch(hub.url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "another try in 0.1 s" in done.stderr
    assert "another try in 0.2 s" in done.stderr
    assert Path(done.stdout.strip(), "config.json").read_bytes() == (TINY / "config.json").read_bytes()


def test_a_hub_that_does_not_answer_is_tried_three_times(tmp_path: Path) -> None:
    with serve_hub("owner/tiny", TINY) as hub:
        hub.failures[COMMIT] = 9
        done = fetch(hub.url, tmp_path)
    assert done.returncode == 1
    assert "503" in done.stderr
    assert hub.refused[503, listing("owner/tiny")] == 3
    assert "another try in 0.2 s" in fetch(hub.url, tmp_path).stderr, "no server listens there now"


def test_a_model_that_the_hub_does_not_have_is_requested_once(tmp_path: Path) -> None:
    with serve_hub("owner/tiny", TINY) as hub:
        done = fetch(hub.url, tmp_path, "owner/gone")
    assert done.returncode == 1
    assert "RepositoryNotFoundError" in done.stderr
    assert hub.refused[404, listing("owner/gone")] == 1
