"""`python -m runner`, whose trainers are forks: `command_script.py [WORDS]`."""

import os
import sys

from runner.cli import main
from tests.forked_trainer import popen

if __name__ == "__main__":
    sys.path[0] = os.getcwd()
    popen.install()
    sys.exit(main())
