"""Slow imports of commands that read no variable of a command's environment."""
# ruff: noqa: F401

import hydra._internal.hydra
import hydra.core.utils
import hydra.main
import modal
import pydantic
import yaml

import runner.api.application
import runner.cli
import runner.launch.sweep
