"""How the records of workers are read: those of this version, those of an earlier one, and invalid ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.facts import DataManifest, TrainFacts
from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.step import StepKind

EARLIER = Store(Path(__file__).resolve().parents[1] / "guards" / "store_of_0_1_0")
DATA, RUN = "ea7d3e922bfd", "1b644a6c4437"


def test_the_manifest_of_an_earlier_version_is_read() -> None:
    manifest = DataManifest.read(EARLIER.manifest(DATA))
    assert (manifest.rows, manifest.eval_rows, manifest.dropped_rows, manifest.longest_row) == (1641, 87, 0, 18)
    assert (manifest.tokens, manifest.trained_tokens, manifest.seconds) == (25145, 3282, 3.105)
    assert str(manifest.eval_fingerprint).startswith("01d0a3f1")
    assert manifest.versions["axolotl"] == "0.21.0"


def test_the_facts_of_a_run_of_an_earlier_version_are_read() -> None:
    facts = TrainFacts.of(read_json(EARLIER.folder(StepKind.TRAIN, RUN).done)["facts"])
    assert (facts.step, facts.max_steps, facts.world_size, facts.resumed_from, facts.early_stopped) == (
        6,
        6,
        2,
        0,
        False,
    )
    assert facts.phases is not None
    assert (facts.phases["train"], facts.cpu["train"]) == (0.695, 0.335)
    assert str(facts.eval_fingerprint).startswith("01d0a3f1")
    assert str(facts.manifest).startswith("421edbd1")


@pytest.mark.parametrize(
    "text", ["{", "[]", "", '{"rows": "7", "eval_fingerprint": 7, "versions": [], "seconds": true}']
)
def test_of_a_manifest_that_is_none_nothing_is_known(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    assert DataManifest.read(path) == DataManifest()
    path.write_text(text)
    assert DataManifest.read(path) == DataManifest()


@pytest.mark.parametrize("phases", [None, "long", 3])
def test_phases_that_are_not_seconds_are_unknown(phases: Any) -> None:
    assert TrainFacts.of({"phases": phases, "step": "7"}) == TrainFacts()
    assert TrainFacts.of({"phases": {"train": 1.5, "eval": "long"}}).phases == {"train": 1.5}


def test_a_file_that_is_not_json_is_skipped_and_named_once_unless_a_kill_may_have_cut_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    assert read_json(path) == read_json(path / "below") == {}
    path.write_text(json.dumps({"key": 1})[:-1])
    assert read_json(path, lenient=True) == {}
    assert capsys.readouterr().err == ""
    assert read_json(path) == read_json(path) == {}
    assert capsys.readouterr().err == f"{path} cannot be read (it is not valid JSON); it is skipped.\n"
