"""Slow imports of commands that read no variable of a command's environment.

Those at their start, and those that a command makes late: to reach Modal, to show a table, to write a report.
"""
# ruff: noqa: F401

import csv
import gzip
import importlib.resources.readers
import mimetypes

import aiohttp
import certifi
import hydra._internal.core_plugins.bash_completion
import hydra._internal.core_plugins.basic_launcher
import hydra._internal.core_plugins.basic_sweeper
import hydra._internal.core_plugins.file_config_source
import hydra._internal.core_plugins.fish_completion
import hydra._internal.core_plugins.importlib_resources_config_source
import hydra._internal.core_plugins.structured_config_source
import hydra._internal.core_plugins.zsh_completion
import hydra._internal.hydra
import hydra.core.utils
import hydra.main
import modal
import modal._utils.proxy_support
import numpy.ma
import numpy.random
import omegaconf._impl
import pydantic
import rich._emoji_codes
import yaml

import runner.api.application
import runner.cli
import runner.command.compare
import runner.command.page
import runner.compare.show
import runner.compare.verdicts
import runner.executors.modal
import runner.executors.modal_work
import runner.html_report.page
import runner.launch.sweep
import runner.show.following
import runner.verdict.paired
