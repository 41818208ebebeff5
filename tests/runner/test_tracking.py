"""What W&B needs is checked before anything starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from runner.errors import SweepError
from runner.executors.choose import executor_for
from runner.store.ledger import Ledger
from runner.types import ExecutorChoice, TrackingChoice
from runner.wandb import account
from tests.runner.builders import plan, run


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb"))
    return tmp_path


def refuse(store: Store, mode: str, *, tags: tuple[str, ...] = ()) -> None:
    planned = plan([run({"learning_rate": 1e-3}, tracking=TrackingChoice(mode, "p", tags=tags))], store)
    executor_for(ExecutorChoice("local"), planned, store, Ledger(store, planned.sweep), None)


def test_online_tracking_without_a_key_is_refused_with_the_way_out(store: Store) -> None:
    with pytest.raises(SweepError, match=r"no key for api\.forge\.coreweave\.com here.*wandb login.*tracking=offline"):
        refuse(store, "online")


@pytest.mark.parametrize("place", ["environment", "netrc"])
def test_a_key_is_found_where_wandb_looks_for_it(
    store: Store, no_account: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "environment":
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    else:
        (no_account / "netrc").write_text("machine wandb.example.com login user password " + "k" * 40)
        (no_account / "wandb").mkdir()
        (no_account / "wandb" / "settings").write_text("[default]\nbase_url = https://wandb.example.com\n")
    account.check_key()


@pytest.mark.medium
@pytest.mark.parametrize("words", [(), ("--host", "http://localhost:8080")])
def test_a_key_is_found_where_wandb_login_leaves_it(no_account: Path, words: tuple[str, ...]) -> None:
    login = [sys.executable, "-P", "-m", "wandb", "login", "--no-verify", *words, "k" * 40]
    subprocess.run(login, cwd=no_account, check=True, capture_output=True, timeout=60)
    assert account.has_key()


def test_a_key_that_an_earlier_wandb_saved_for_its_cloud_is_found(no_account: Path) -> None:
    (no_account / "netrc").write_text("machine api.wandb.ai login user password " + "k" * 40)
    assert account.has_key()


def test_a_key_of_another_host_is_none(no_account: Path) -> None:
    (no_account / "netrc").write_text("machine wandb.example.com login user password " + "k" * 40)
    assert not account.has_key()


@pytest.mark.parametrize("tag", ["x" * 65, "a,b", ""])
def test_a_tag_that_wandb_would_refuse_in_every_run_is_refused_once(store: Store, tag: str) -> None:
    with pytest.raises(SweepError, match=r"tracking\.tags has"):
        refuse(store, "offline", tags=("fine", tag))


def test_a_run_is_named_by_what_differs_and_says_what_was_swept(store: Store) -> None:
    runs = [run({"lora_r": rank, "lora_alpha": 2 * rank, "seed": 1}, overrides=["lora=x", "seed=1"]) for rank in (4, 8)]
    printed = [planned.step.tracking for planned in plan(runs, store).runs]
    assert [(one.name, one.params) for one in printed] == [("lora_r=4", {"lora_r": 4}), ("lora_r=8", {"lora_r": 8})]
    (alone,) = plan(runs[:1], store).runs
    assert alone.step.tracking.name == "lora=x seed=1"
