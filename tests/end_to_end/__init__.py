"""The commands as a person types them: real Hydra, real Axolotl on this machine's CPU, real kills."""
