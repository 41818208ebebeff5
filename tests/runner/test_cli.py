import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from tests.fork_server import ForkServer, fork_server
from tests.runner.builders import finish_run, open_sweep, run
from tests.runner.heavy_imports_script import HEAVY

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("heavy_imports_script.py")


@pytest.fixture
def swept(store: Store) -> Store:
    runs = [run({"learning_rate": rate}) for rate in (1, 2)]
    finish_run(store, runs[0], {0: 3.0, 9: 1.0})
    open_sweep(store, runs, "rates")
    store.folder(StepKind.TRAIN, runs[0].key).attempt(1).log.write_text("what Axolotl said\n")
    return store


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """A server with the imports of verbs that only read: nothing heavy, since each fork would report that."""
    with fork_server("runner.cli", "runner.command.compare", "runner.command.report", "rich.table", "yaml") as server:
        yield server


@pytest.fixture
def axosweep(server: ForkServer) -> Run:
    def run(store: Store, *words: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"AXOSWEEP_STORE": str(store.root)}
        return server.run(SCRIPT, *words, environment=environment, folder=store.root)

    return run


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["status"],
        ["status", "rates"],
        ["compare"],
        ["compare", "--json"],
        ["compare", "--all", "--over", "learning_rate"],
        ["compare", "--csv", "--sort", "best", "--where", "learning_rate=1"],
        ["best"],
        ["report"],
        ["sync"],
        ["data"],
        ["ls", "rates"],
        ["pull", "rates", "logs", "home"],
        ["rm", "rates", "--dry-run"],
        ["gc", "--dry-run"],
        ["completion", "bash"],
        ["__complete", "axosweep sta", "12"],
    ],
    ids=" ".join,
)
def test_what_composes_nothing_imports_nothing_heavy(axosweep: Run, swept: Store, words: list[str]) -> None:
    done = axosweep(swept, *words)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert done.stdout.strip()


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    code = f"import sys, runner.cli; sys.exit(any(name in sys.modules for name in {(*HEAVY, 'rich.table', 'yaml')!r}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_compare_as_json_is_nothing_but_json(axosweep: Run, swept: Store) -> None:
    done = axosweep(swept, "compare", "--json")
    assert [one["is_best"] for one in json.loads(done.stdout)["runs"]] == [True, False]


def test_a_mistake_is_one_message_and_exit_code_2(axosweep: Run, swept: Store) -> None:
    done = axosweep(swept, "compare", "rats")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"axosweep: There is no run or sweep rats in {swept.root}.")


@pytest.mark.parametrize(("verb", "meant"), [("comapre", "compare"), ("wandb-veiw", "wandb-view")])
def test_a_misspelt_verb_is_refused_with_the_verbs(axosweep: Run, swept: Store, verb: str, meant: str) -> None:
    done = axosweep(swept, verb)
    assert done.returncode == 2
    assert f"There is no verb {verb}. Did you mean {meant}?" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-m", "plan", "lora=r8,r16"), "The verb comes first: axosweep plan -m lora=r8,r16"),
        (("lora=r8", "plan"), "The verb comes first: axosweep plan lora=r8"),
        (("-m", "learning_rate=1e-3,", "2e-3"), "Write values without spaces: learning_rate=1e-3,..."),
        (("plan", "lr=1e-3"), "Did you mean learning_rate?"),
        (("--config-dir", "plan", "lr=1e-3"), "Did you mean learning_rate?"),
    ],
)
def test_the_syntax_of_another_program_is_refused_in_one_line(swept: Store, words: tuple[str, ...], said: str) -> None:
    (swept.root / "plan").mkdir(exist_ok=True)
    done = _in_shell(swept, shlex.join([sys.executable, "-m", "runner", *words]))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_store_has_no_sweeps_and_is_not_created(axosweep: Run, store: Store, tmp_path: Path) -> None:
    done = axosweep(Store(tmp_path), "status", "--json", "--store", str(store.root))
    assert json.loads(done.stdout)["sweeps"] == []
    assert not store.root.exists()


@pytest.mark.medium
@pytest.mark.parametrize("words", [["compare"], ["infer", "--help"]], ids=" ".join)
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_stream_that_the_shell_has_closed_is_not_used_for_a_file(swept: Store, words: list[str], closed: str) -> None:
    done = _in_shell(swept, f"{shlex.join([sys.executable, '-m', 'runner', *words])} {closed}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [["compare"], ["compare", "--json"]], ids=" ".join)
def test_a_reader_that_has_left_is_not_a_failure(swept: Store, words: list[str]) -> None:
    command = shlex.join([sys.executable, "-m", "runner", *words])
    done = _in_shell(swept, f"{{ {command}; echo $? >&2; }} | true")
    assert done.stderr == "0\n"


@pytest.mark.medium
def test_a_mistake_ends_with_its_exit_code_even_if_its_message_is_not_read(swept: Store) -> None:
    done = _in_shell(swept, f"{{ {sys.executable} -m runner compare rats 2>&1; echo $? >{swept.root}/code; }} | true")
    assert done.returncode == 0
    assert (swept.root / "code").read_text() == "2\n"


def _in_shell(store: Store, line: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "AXOSWEEP_STORE": str(store.root)}
    return subprocess.run(
        ["sh", "-c", line], env=environment, capture_output=True, text=True, check=False, cwd=store.root
    )
