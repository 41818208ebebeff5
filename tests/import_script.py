"""Import a module: `import_script.py MODULE`."""

import importlib
import sys

if __name__ == "__main__":
    importlib.import_module(sys.argv[1])
