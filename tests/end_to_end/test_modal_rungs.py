"""Rungs with executor=modal, where the worker in the containers does nothing but ask: the client is killed, two run at
a time, and one runs after Modal has deleted all entries; none disturbs the search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modal_app.halving.choose import who_goes_on
from modal_app.halving.entries import FileEntries
from modal_app.halving.snapshot import Snapshot
from modal_app.store.layout import Store
from tests.end_to_end.axosweep import Axosweep, kill
from tests.end_to_end.on_modal import ON_GPUS, RUNS, local_modal, machine
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts, noop_settings

pytestmark = [pytest.mark.slow, needs_mounts]

NUMBER = 9
RATES = ",".join(f"{1 + 4 * number % NUMBER}e-4" for number in range(NUMBER))
GRID = ("-m", f"learning_rate={RATES}", *ON_GPUS)
SEARCH = (*GRID, "search.rungs=[0.2,0.6]", "search.eta=3", "search.audit=false")
CLAIMS = "axosweep-claims"


def snapshot(store: Store) -> Snapshot:
    (folder,) = store.root.glob("sweeps/*/rungs/*")
    return Snapshot.of(FileEntries(folder).items())


def all_have_gone_that_should(found: Snapshot) -> bool:
    return all(found.has_gone(rung, run) for rung in (1, 2) for run in who_goes_on(found, rung))


def statuses(here: Axosweep, sweep: str) -> Counter[str]:
    return Counter(row["status"] for row in here.json("compare", sweep)["runs"])


@dataclass(frozen=True)
class Abandoned:
    """A search of nine runs that is over. Its client was killed after it had called them."""

    server: ModalServer
    here: Axosweep
    sweep: str

    @property
    def calls(self) -> int:
        return len(self.server.function_calls())


@pytest.fixture(scope="module")
def abandoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abandoned]:
    with local_modal(noop_settings(train_s=0.4)) as server:
        here = machine(server, tmp_path_factory.mktemp("abandoned"))
        client = here.start(*SEARCH)
        server.wait_until(lambda: len(server.function_calls("train")) >= NUMBER, 120)
        kill(client.pid)
        client.communicate()
        server.wait_until(lambda: all(one.status == "success" for one in server.function_calls()), 120)
        server.wait_until(lambda: all(task.ended_at for task in server.tasks("train")), 30)
        (plan,) = here.store.root.glob("modal/sweeps/*/plan.json")
        yield Abandoned(server, here, plan.parent.name)


def test_a_search_whose_client_was_killed_has_come_to_rest_by_itself(abandoned: Abandoned) -> None:
    there = snapshot(Store(abandoned.server.volume_tree(RUNS)))
    assert all_have_gone_that_should(there)
    ended = [one for name, one in abandoned.server.dict_items(CLAIMS).items() if name.startswith("ended/train/")]
    assert set(counts := Counter(one["status"] for one in ended)) == {"succeeded", "stopped at rung"}
    assert counts.total() == NUMBER
    stops = sum(map(len, there.stopped.values()))
    assert len(abandoned.server.tasks("train")) == NUMBER + stops - counts["stopped at rung"], (
        "a GPU for each part, once"
    )


def test_nothing_is_called_again_by_a_later_client(abandoned: Abandoned, tmp_path: Path) -> None:
    """The same command line twice at a time, and on another machine after Modal has deleted all entries."""
    before = abandoned.calls
    clients = [abandoned.here.start(*SEARCH) for _ in range(2)]
    for client in clients:
        said, _ = client.communicate(timeout=120)
        assert client.returncode == 0, said
    known = statuses(abandoned.here, abandoned.sweep)
    assert set(known) == {"succeeded", "stopped at rung"}
    assert known.total() == NUMBER

    abandoned.server.lose_entries(CLAIMS, lambda entry: True)
    late = machine(abandoned.server, tmp_path / "late")
    attached = late.run("attach", abandoned.sweep)
    assert attached.returncode == 0, attached.stderr
    assert abandoned.calls == before
    assert statuses(late, abandoned.sweep) == known
    assert snapshot(Store(late.store.root / "modal")) == snapshot(Store(abandoned.here.store.root / "modal"))


def test_another_search_of_the_same_runs_calls_none_only_to_compare_it(abandoned: Abandoned) -> None:
    """This search lets fewer of them go on from the same rungs. What each has reached there is known."""
    before, known = abandoned.calls, statuses(abandoned.here, abandoned.sweep)
    planned = abandoned.here.json("plan", *GRID, "search.rungs=[0.2,0.6]", "search.eta=6", "search.audit=false")
    assert sum(run["at_rung"] is not None for run in planned["runs"]) == known["stopped at rung"]
    narrower = abandoned.here.run(*GRID, "search.rungs=[0.2,0.6]", "search.eta=6", "search.audit=false")
    assert narrower.returncode == 0, narrower.stderr
    assert abandoned.calls == before
    folders = [path.name for path in (abandoned.server.volume_tree(RUNS) / "sweeps").glob("*/rungs/*")]
    assert len(folders) == 2, "its entries are on the Volume, too"
    assert statuses(abandoned.here, abandoned.sweep) == known


def test_resume_trains_a_stopped_run_to_its_end_in_one_call(abandoned: Abandoned) -> None:
    before, known = abandoned.calls, statuses(abandoned.here, abandoned.sweep)
    rows = abandoned.here.json("compare", abandoned.sweep)["runs"]
    stopped = next(row["key"] for row in rows if row["status"] == "stopped at rung")
    resumed = abandoned.here.run("resume", stopped, "--yes")
    assert resumed.returncode == 0, resumed.stderr
    assert abandoned.calls == before + 1
    rows = abandoned.here.json("compare", abandoned.sweep)["runs"]
    assert {row["key"]: row["status"] for row in rows}[stopped] == "succeeded"
    assert statuses(abandoned.here, abandoned.sweep)["succeeded"] == known["succeeded"] + 1


def test_a_later_sweep_that_asks_for_the_runs_in_full_continues_those_that_have_stopped(abandoned: Abandoned) -> None:
    before = abandoned.calls
    stopped = statuses(abandoned.here, abandoned.sweep)["stopped at rung"]
    assert stopped > 0
    finished = abandoned.here.run(*GRID)
    assert finished.returncode == 0, finished.stderr
    assert statuses(abandoned.here, abandoned.sweep) == {"succeeded": NUMBER}
    assert abandoned.calls == before + stopped
    for path in (abandoned.server.volume_tree(RUNS) / "runs").glob("*/metrics.jsonl"):
        steps = [line.partition('"step": ')[2].partition(",")[0] for line in path.read_text().splitlines()]
        assert len(set(steps)) == 11, "from the first to the last, as far as each was logged"
