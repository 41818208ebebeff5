"""What may be imported where, beyond what import-linter can say."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from tests.fork_server import ForkServer, fork_server
from tests.runner.heavy_imports_script import HEAVY
from tests.runner.judged_store import judged_sweep

ROOT = Path(__file__).resolve().parent.parent
IMPORT = Path(__file__).with_name("import_script.py")
AXOLOTL_SIDE = {
    "held_out.row_losses",
    "held_out.rows_table",
    "steps.batch_rows",
    "steps.epoch_start",
    "steps.row_origins",
    "steps.rated_rows",
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
"""Modules that the worker or Axolotl imports late: they import the trainer's packages at the top."""
MODAL_SIDE = {
    "cloud.claims",
    "cloud.call",
    "cloud.connection",
    "cloud.deployment",
    "cloud.executions",
    "cloud.functions",
    "cloud.job_files",
    "cloud.notices",
    "cloud.rung_entries",
    "cloud.searches",
    "cloud.reuse",
    "cloud.volumes",
    "cloud.vllm_app",
}
"""Modules that Modal's own entrypoint imports, and the launcher when it deploys, but never the worker."""
MODULES = {
    ".".join(path.relative_to(ROOT / "modal_app").with_suffix("").parts)
    for path in (ROOT / "modal_app").rglob("*.py")
    if path.name != "__init__.py" and path.parent.name != "trainer"
}
WORKER = sorted(MODULES - AXOLOTL_SIDE - MODAL_SIDE)


STANDARD = (
    "argparse",
    "ast",
    "asyncio",
    "concurrent.futures",
    "ctypes",
    "dataclasses",
    "email",
    "http.client",
    "json",
    "logging",
    "platform",
    "secrets",
    "ssl",
    "subprocess",
    "tempfile",
    "typing",
    "urllib.request",
    "zipfile",
)
"""Modules of the standard library that take long to import."""


@pytest.fixture(scope="module")
def without_packages() -> Iterator[ForkServer]:
    """-S leaves site-packages out, so that an import of anything installed fails."""
    with fork_server(*STANDARD, options=["-S"]) as server:
        yield server


@pytest.mark.parametrize("module", WORKER)
def test_the_worker_is_standard_library_until_it_reaches_axolotl(module: str, without_packages: ForkServer) -> None:
    done = without_packages.run(IMPORT, f"modal_app.{module}")
    assert done.returncode == 0, done.stderr


def test_a_process_without_packages_has_none(without_packages: ForkServer) -> None:
    assert "No module named 'yaml'" in without_packages.run(IMPORT, "yaml").stderr


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


@pytest.mark.medium
@pytest.mark.parametrize(("words", "needs"), [("status SWEEP", False), ("compare", True)])
def test_numpy_is_imported_where_losses_by_row_are_compared_and_nowhere_else(
    tmp_path: Path, words: str, needs: bool
) -> None:
    sweep, _ = judged_sweep(Store(tmp_path), {1e-4: 1.0, 2e-4: 2.0}, rows=20)
    found = imported([sweep if word == "SWEEP" else word for word in words.split()], tmp_path)
    assert {*HEAVY} & found == ({"numpy"} if needs else set())
