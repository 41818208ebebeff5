"""Runs with the user's own Python next to their config: what is imported, what is in the key, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from tests.end_to_end.axosweep import Axosweep, kill_all
from tests.end_to_end.on_modal import local_modal, machine, with_axolotl
from tests.end_to_end.own_code import PLUGIN, write_own_code
from tests.modal_server.fixture import needs_mounts

pytestmark = pytest.mark.slow

WORDS = ("base=configs/grpo.yml", "tracking=disabled")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Axosweep]:
    """A finished GRPO run."""
    place = tmp_path_factory.mktemp("own")
    write_own_code(place / "work" / "configs")
    command = Axosweep(Store(place / "store"), place / "work").waiting()
    done = command.run(*WORDS)
    assert done.returncode == 0, done.stderr
    yield command
    kill_all(command.processes())


def planned(own: Axosweep) -> tuple[str, bool]:
    (run,) = own.json("plan", *WORDS)["runs"]
    return run["key"], run["done"]


def test_grpo_trains_on_a_cpu_with_rewards_next_to_its_config(own: Axosweep) -> None:
    (row,) = own.json("compare")["runs"]
    assert (row["status"], row["step"]) == ("succeeded", 2)
    metrics = (own.store.runs / own.run_keys()[0] / "metrics.jsonl").read_text()
    assert "rewards/short/mean" in metrics
    (code,) = [one for one in own.store.inputs.iterdir() if (one / "rewards.py").exists()]
    assert sorted(path.name for path in code.iterdir()) == ["lengths.py", "rewards.py"]


def test_an_edit_of_what_a_reward_imports_is_a_new_run(own: Axosweep) -> None:
    key, done = planned(own)
    assert done
    lengths = own.folder / "configs" / "lengths.py"
    before = lengths.read_text()
    lengths.write_text("LIMIT = 50\n")
    other, done = planned(own)
    assert other != key
    assert not done
    lengths.write_text(before)
    (own.folder / "configs" / "unrelated.py").write_text("2 / 0\n")
    assert planned(own) == (key, True)


def test_a_users_own_dataset_format_prepares_the_rows(own: Axosweep) -> None:
    done = own.run(*WORDS, "~rl", "~trl", "datasets.0.type=formats.directory")
    assert done.returncode == 0, done.stderr
    assert "succeeded  16 rows" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        (
            "lengths.py",
            "import no_such_package",
            "importing rewards needs no_such_package, which the trainer does not have",
        ),
        ("rewards.py", "1 / 0", "rewards.short cannot be loaded: ZeroDivisionError: division by zero"),
        ("rewards.py", "del short", "the module rewards has no short"),
    ],
)
def test_code_that_cannot_be_imported_is_refused_with_its_own_error(
    own: Axosweep, file: str, line: str, expected: str
) -> None:
    path = own.folder / "configs" / file
    before = path.read_text()
    path.write_text(f"{before}\n{line}\n")
    done = own.run(*WORDS)
    path.write_text(before)
    assert done.returncode == 2
    assert f"trl.reward_funcs.0=rewards.short: {expected}" in done.stderr


def test_a_module_that_hides_a_package_of_the_trainer_is_refused(own: Axosweep) -> None:
    config = own.folder / "configs" / "grpo.yml"
    (own.folder / "trl.py").write_text("def short(prompts, completions): return [0.0]\n")
    before = config.read_text()
    config.write_text(before.replace("rewards.short", "trl.short"))
    done = own.run(*WORDS)
    config.write_text(before)
    (own.folder / "trl.py").unlink()
    assert done.returncode == 2
    assert "trl.py: the trainer has a package of this name" in done.stderr


@needs_mounts
def test_two_ranks_on_modal_import_a_package_and_what_lies_in_it(tmp_path: Path) -> None:
    with local_modal(with_axolotl()) as server:
        here = machine(server, tmp_path)
        write_own_code(here.folder / "configs", plugins=[PLUGIN])
        done = here.run(*WORDS, "gpu.count=2", "executor=modal")
        assert done.returncode == 0, done.stderr
        (row,) = here.json("compare")["runs"]
        assert row["record"]["world_size"] == 2
        assert "The word is hello" in here.run("logs", row["key"]).stdout
