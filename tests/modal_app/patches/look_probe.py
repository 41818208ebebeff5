"""A probe: writes to found.json whether garbage was frozen, and whether importlib.metadata is as Python has it."""

import gc
import importlib.metadata
import json
from pathlib import Path

own = importlib.metadata.packages_distributions.__module__ == "importlib.metadata"
Path("found.json").write_text(json.dumps({"frozen": gc.get_freeze_count() > 0, "own": own}))
