"""What may be imported where, beyond what import-linter can say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
AXOLOTL_SIDE = {"fingerprint", "formats", "generation", "plugin", "preprocess", "recorder", "serve_api", "serve_models"}
"""What the worker, or Axolotl itself, imports when it gets there: they have the trainer's packages at the top."""
MODAL_SIDE = {"claims", "deployment", "functions", "serve_app", "volumes", "work"}
"""What Modal's own entrypoint imports, and the launcher when it deploys: never the worker."""
WORKER = sorted({path.stem for path in (ROOT / "modal_app").glob("*.py")} - AXOLOTL_SIDE - MODAL_SIDE)


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
