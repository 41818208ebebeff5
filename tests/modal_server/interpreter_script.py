"""Print what a container's Python is: its prefix, its base's, its version, and whether it has Modal's client."""

import importlib.util
import json
import sys

print(json.dumps([sys.prefix, sys.base_prefix, sys.version_info[:2], bool(importlib.util.find_spec("modal"))]))
