"""`axosweep rm` of runs that calls on the local Modal have trained, or are training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.axosweep import Axosweep, kill
from tests.end_to_end.on_modal import local_modal
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts, noop_settings

pytestmark = [pytest.mark.slow, needs_mounts]

WORDS = ("-m", "lora=r8,r16", "gpu=h100", "tracking=disabled", "executor=modal", "--yes")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The file that lets runs finish."""
    (tmp_path / "signs").mkdir()
    return tmp_path / "signs" / "trained"


@pytest.fixture
def server(trained: Path) -> Iterator[ModalServer]:
    with local_modal(noop_settings(until={"train": trained})) as server:
        yield server


def test_a_running_run_is_not_removed_and_a_removed_one_is_trained_again_by_the_same_command(
    alone: Axosweep, server: ModalServer, trained: Path
) -> None:
    on_modal = Axosweep(alone.store, alone.folder, server.environment())
    client = on_modal.start(*WORDS)

    def runs() -> Path:
        return server.volume_tree("axosweep-runs") / "runs"

    server.wait_until(lambda: server.function_calls("train"), 60)
    server.wait_until(lambda: len(list(runs().glob("*/attempt-1/container.json"))) == 2, 60)
    kill(client.pid)
    client.communicate()
    one, other = sorted(path.name for path in runs().iterdir())
    refused = on_modal.run("rm", one, "--yes")
    assert refused.returncode == 2
    assert "works on it" in refused.stderr
    trained.touch()
    server.wait_until(lambda: len(list(runs().glob("*/result.json"))) == 2, 60)
    assert on_modal.run("attach").returncode == 0
    assert on_modal.json("rm", one, "--yes")["to_delete"][0]["key"] == one
    assert not list(runs().glob(f"{one}/attempt-*"))
    (sweep,) = on_modal.json("status", "--refresh")["sweeps"]
    assert sweep["counts"] == {"succeeded": 1, "removed": 1}
    assert sweep["dollars"] is None or sweep["dollars"] > 0, "what was paid stays known"

    done = on_modal.run(*WORDS)
    assert done.returncode == 0, done.stderr
    assert Counter(row["status"] for row in on_modal.json("compare")["runs"]) == {"succeeded": 2}
    assert [len(list(runs().glob(f"{key}/attempt-*"))) for key in (one, other)] == [1, 1]
    assert len(server.function_calls("train")) == 3, "one again, the other not"
    assert len(server.function_calls("preprocess")) == 1
