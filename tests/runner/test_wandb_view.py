"""The W&B view, as the model that would be saved; whether the real W&B accepts it cannot be tested here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.command.wandb_view import show
from runner.errors import SweepError
from tests.runner.builders import open_sweep, run
from tests.wandb_server import serve_wandb

pytest.importorskip("wandb_workspaces", reason="the extra wandb-view is not installed; make env installs it")


def _panels(view: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for section in view["spec"]["section"]["panelBankConfig"]["sections"]:
        yield from section["panels"]


def _sections(spec: dict[str, Any]) -> list[str]:
    return [section["name"] for section in spec["section"]["panelBankConfig"]["sections"]]


def _tracked_sweep(store: Store) -> str:
    runs = [run({"learning_rate": rate, "lora_r": rank}) for rate in (1e-4, 1e-2) for rank in (8, 16)]
    sweep = open_sweep(store, runs, "grid").sweep
    kept = {"id": "one", "group": sweep, "project": "mine", "entity": "team"}
    store.folder(StepKind.TRAIN, runs[0].key).tracking.write_text(json.dumps(kept))
    return sweep


def _view(store: Store, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, Any]]:
    sweep = _tracked_sweep(store)
    assert show(store, sweep, dry_run=True, as_json=False) == 0
    return sweep, json.loads(capsys.readouterr().out)


def test_parameters_and_losses_are_named_as_wandb_keeps_them(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, view = _view(store, capsys)
    assert (view["entity"], view["project"], view["displayName"]) == ("team", "mine", sweep)
    panels = {panel["viewType"]: panel["config"] for panel in _panels(view)}
    columns = {column["accessor"]: column for column in panels["Parallel Coordinates Plot"]["columns"]}
    assert list(columns) == ["config:learning_rate.value", "config:lora_r.value", "summary:eval/loss"]
    assert columns["config:learning_rate.value"]["log"] is True
    assert not columns["config:lora_r.value"]["log"]
    assert panels["Parameter Importance"]["targetKey"] == "eval/loss"
    assert panels["Run Comparer"]["diffOnly"] is True
    curves = [panel["config"] for panel in _panels(view) if panel["viewType"] == "Run History Line Plot"]
    assert [(one["xAxis"], one["metrics"]) for one in curves] == [
        ("train/global_step", ["eval/loss"]),
        ("train/global_step", ["train/loss"]),
    ]


def test_the_view_has_the_runs_of_the_group_and_those_that_a_later_sweep_requested(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, view = _view(store, capsys)
    (runset,) = view["spec"]["section"]["runSets"]
    filters = [(one["key"]["name"], one["value"], one.get("connector")) for one in runset["filters"]["filters"]]
    assert filters == [("group", sweep, None), ("tags", [f"sweep:{sweep}"], "OR")]
    assert runset["sort"]["keys"] == [{"key": {"section": "summary", "name": "eval/loss"}, "ascending": True}]


def test_a_sweep_that_was_never_tracked_has_no_view(store: Store) -> None:
    sweep = open_sweep(store, [run({"learning_rate": 1e-3})]).sweep
    with pytest.raises(SweepError, match="ever tracked"):
        show(store, sweep, dry_run=True, as_json=False)


@pytest.mark.slow
def test_a_view_is_saved_once_and_its_address_printed_or_the_reason_why_not(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, model = _view(store, capsys)
    with serve_wandb() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        assert show(store, sweep, dry_run=False, as_json=True) == 0
        printed = json.loads(capsys.readouterr().out)
        (saved,) = server.world.views
        assert (saved["entityName"], saved["projectName"], saved["displayName"]) == ("team", "mine", sweep)
        assert _sections(json.loads(saved["spec"])) == _sections(model["spec"]) == ["Compare", "Curves"]
        assert printed["sweep"] == sweep
        assert printed["url"].endswith(f"/team/mine?nw={saved['name'].removeprefix('nw-').removesuffix('-v')}")

        server.world.instead["UpsertView2"] = {"errors": [{"message": "no views today"}]}
        with pytest.raises(SweepError, match=r"^W&B did not accept the view: .*no views today$"):
            show(store, sweep, dry_run=False, as_json=True)
        monkeypatch.setenv("WANDB_API_KEY", "wrong" + "0" * 40)
        with pytest.raises(SweepError, match="Is the key right"):
            show(store, sweep, dry_run=False, as_json=True)
        assert not server.world.unknown


def test_without_a_key_the_way_out_is_the_dry_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "")
    monkeypatch.setenv("NETRC", str(store.root / "netrc"))
    with pytest.raises(SweepError, match=r"^Saving a view needs a key.*--dry-run prints the view\.$"):
        show(store, _tracked_sweep(store), dry_run=False, as_json=False)
