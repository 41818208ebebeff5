"""A probe: writes to found.json the random numbers that it draws, and how often NumPy and torch were seeded."""

import json
import random
from pathlib import Path

import numpy.random
import torch

drawn = [random.random(), len(numpy.random.seeds), torch.default_generator.seeds]  # type: ignore[attr-defined]
Path("found.json").write_text(json.dumps(drawn))
