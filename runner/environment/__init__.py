"""The trainer's environment, and Axolotl's remembered verdicts."""
