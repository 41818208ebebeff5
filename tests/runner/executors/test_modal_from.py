"""from= of a run on Modal: its checkpoint is fetched from the Volume, once, and is the same by content."""

from __future__ import annotations

from pathlib import Path

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.errors import SweepError
from runner.launch.start_checkpoint import find_start_checkpoint, identity_of
from runner.store.ledger import sweep_ids
from tests.modal_server import ModalServer
from tests.modal_server.fixture import client_of
from tests.runner import builders
from tests.runner.checkpointed import source
from tests.runner.executors.volume_store import mirror, submit, upload

pytestmark = pytest.mark.slow


def test_a_checkpoint_is_fetched_once_and_has_the_identity_that_it_has_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Store(tmp_path / "there")
    one = source(there, 50, 100)
    (sweep,) = sweep_ids(there)
    submit(there, builders.plan([one], there))
    with ModalServer() as server, client_of(server, monkeypatch) as client:
        upload(there, client)
        here = mirror(there, tmp_path / "here")
        assert sweep_ids(here) == [sweep]
        found = find_start_checkpoint(f"{one.key}@50", [here])
        assert (found.run, found.step, found.store) == (one.key, 50, str(here.root))
        assert found.identity == identity_of(there.folder(StepKind.TRAIN, one.key).model / "checkpoint-50")
        before = server.requested_bytes()
        assert find_start_checkpoint(f"{one.key}@50", [here]) == found
        assert server.requested_bytes() - before < 3_000, "the markers alone"
        with pytest.raises(SweepError, match=r"no complete checkpoint of step 70\. There are: 50, 100"):
            find_start_checkpoint(f"{one.key}@70", [here])
