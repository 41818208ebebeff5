"""What may be imported where, beyond what import-linter can say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from tests.runner.builders import finish_run, open_sweep, run
from tests.runner.judged_store import judged_sweep

ROOT = Path(__file__).resolve().parent.parent
AXOLOTL_SIDE = {
    "held_out.row_losses",
    "held_out.rows_table",
    "steps.batch_rows",
    "steps.row_origins",
    "steps.row_rater",
    "steps.token_losses",
    "inference.formats",
    "inference.generation",
    "serving.models",
    "serving.openai_api",
    "steps.fingerprint",
    "steps.plugin",
    "steps.preprocess",
    "steps.recorder",
    "steps.rungs",
}
"""What the worker, or Axolotl itself, imports when it gets there: they have the trainer's packages at the top."""
MODAL_SIDE = {
    "cloud.claims",
    "cloud.call",
    "cloud.connection",
    "cloud.deployment",
    "cloud.executions",
    "cloud.functions",
    "cloud.notices",
    "cloud.rung_entries",
    "cloud.searches",
    "cloud.reuse",
    "cloud.volumes",
    "cloud.vllm_app",
}
"""What Modal's own entrypoint imports, and the launcher when it deploys: never the worker."""
MODULES = {
    ".".join(path.relative_to(ROOT / "modal_app").with_suffix("").parts)
    for path in (ROOT / "modal_app").rglob("*.py")
    if path.name != "__init__.py" and path.parent.name != "trainer"
}
WORKER = sorted(MODULES - AXOLOTL_SIDE - MODAL_SIDE)


@pytest.mark.parametrize("module", WORKER)
def test_the_worker_is_standard_library_until_it_reaches_axolotl(module: str) -> None:
    """-S leaves site-packages out, so that an import of anything installed fails."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import modal_app.{module}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


HEAVY = {"hydra", "omegaconf", "modal", "wandb", "huggingface_hub", "plotly", "torch", "numpy"}
READING = ("--help", "status", "status SWEEP", "compare", "compare --json", "best", "data", "report", "completion bash")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A store with a sweep of one run, and what it is called."""
    store = Store(tmp_path_factory.mktemp("store"))
    done = run({"base_model": "tiny", "seed": 1})
    planned = open_sweep(store, [done], "imports")
    finish_run(store, done, {10: 1.0})
    return store.root, {"SWEEP": planned.sweep, "RUN": done.key}


def imported(words: list[str], root: Path) -> set[str]:
    """The modules that a verb has imported when it ends, having printed something."""
    script = f"import sys; from runner.cli import main; main({words!r}); sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "AXOSWEEP_STORE": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout
    return set(done.stderr.split())


@pytest.mark.parametrize("words", READING)
def test_a_verb_that_only_reads_imports_nothing_heavy(words: str, finished: tuple[Path, dict[str, str]]) -> None:
    root, names = finished
    assert HEAVY & imported([names.get(word, word) for word in words.split()], root) == set()


@pytest.mark.parametrize(("words", "needs"), [("status SWEEP", False), ("compare", True)])
def test_numpy_is_imported_where_losses_by_row_are_compared_and_nowhere_else(
    tmp_path: Path, words: str, needs: bool
) -> None:
    sweep, _ = judged_sweep(Store(tmp_path), {1e-4: 1.0, 2e-4: 2.0}, rows=20)
    found = imported([sweep if word == "SWEEP" else word for word in words.split()], tmp_path)
    assert HEAVY & found == ({"numpy"} if needs else set())
