"""How old the view of a sweep on Modal is, without a request to Modal."""

from __future__ import annotations

import json
import time

import pytest

from modal_app.store.layout import SEEN, SUBMISSION, Store
from runner.store.mirror_age import stale
from tests.runner.builders import open_sweep, run


def sweep_in(store: Store, *, submitted: bool = True, seen: dict[str, object] | None = None) -> str:
    sweep = open_sweep(store, [run({"learning_rate": 1})]).sweep
    if submitted:
        (store.sweeps / sweep / SUBMISSION).write_text("{}")
    if seen is not None:
        (store.sweeps / sweep / SEEN).write_text(json.dumps(seen))
    return sweep


def test_a_sweep_of_this_machine_is_never_old(store: Store) -> None:
    assert stale(store, sweep_in(store)) == ""


def test_a_sweep_that_has_ended_is_not_old_and_one_that_goes_on_says_how_old_it_is(store: Store) -> None:
    mirror = Store(store.root / "modal")
    assert stale(mirror, sweep_in(mirror, seen={"at": time.time() - 600, "over": True})) == ""
    sweep = sweep_in(mirror, seen={"at": time.time() - 600, "over": False})
    assert "as of 10 min ago" in stale(mirror, sweep)
    assert f"axosweep status {sweep} --refresh, or axosweep attach {sweep}" in stale(mirror, sweep)
    command = f"axosweep status {sweep} --refresh --store 'a b', or axosweep attach {sweep} --store 'a b'"
    assert command in stale(mirror, sweep, "a b"), "the commands find the sweep where it was found"


def test_a_sweep_whose_launch_was_killed_before_it_was_submitted_says_so(store: Store) -> None:
    mirror = Store(store.root / "modal")
    assert "never submitted" in stale(mirror, sweep_in(mirror, submitted=False))


@pytest.mark.parametrize("seen", [None, {}, {"other": [1]}])
def test_a_sweep_without_a_look_at_modal_says_so(store: Store, seen: dict[str, object] | None) -> None:
    mirror = Store(store.root / "modal")
    assert "this is as submitted" in stale(mirror, sweep_in(mirror, seen=seen))
