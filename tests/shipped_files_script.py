"""Print where axosweep finds what it ships, and the trainer's lock."""

from runner.config.shipped import shipped_root
from runner.environment.trainer_environment import LOCK_FILE

print(shipped_root())
print(LOCK_FILE)
