"""The vocabulary is read from the files themselves, and agrees with what Hydra finds there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigSource
from omegaconf import OmegaConf

from runner.config.project import Project
from runner.config.shipped import shipped_root
from runner.config.vocabulary import load_yaml, package_of, read_vocabulary

CONF = str(shipped_root() / "conf")


def test_groups_and_options_are_those_that_hydra_finds() -> None:
    ours = {group: set(options) for group, options in read_vocabulary().groups.items()}
    with initialize_config_dir(CONF, version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        for group, options in ours.items():
            assert set(loader.get_group_options(group, ObjectType.CONFIG)) == options


def test_options_are_in_the_order_of_their_numbers() -> None:
    groups = read_vocabulary().groups
    assert [option for option in groups["lora"] if option[1:].isdecimal()] == [f"r{2**power}" for power in range(2, 9)]
    sizes = [option for option in groups["model"] if option.startswith("qwen2_5")]
    assert sizes == [f"qwen2_5_{size}" for size in ("0_5b", "1_5b", "3b", "7b", "14b", "32b", "72b")]


def test_what_the_defaults_list_chooses_is_read_as_hydra_reads_it() -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose("config", return_hydra_config=True)
        choices = {
            group: option or ""
            for group, option in config.hydra.runtime.choices.items()
            if not group.startswith("hydra/")
        }
    assert read_vocabulary().chosen == choices


def test_every_node_outside_axolotl_is_a_name() -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose("config")
        for name, below in read_vocabulary().nodes.items():
            assert name in config
            assert set(below) == (set(config[name]) if below else set())
        assert set(config) == {*read_vocabulary().nodes, "axolotl", "model", "sizes"}


def _sweep(root: Path, text: str) -> frozenset[str]:
    (root / "conf").mkdir()
    (root / "conf" / "config.yaml").write_text("defaults: [_self_]\n")
    (root / "sweeps").mkdir()
    (root / "sweeps" / "mine.yaml").write_text(text)
    return read_vocabulary(Project((root / "conf",), (root,))).pure_sweeps


@pytest.mark.parametrize(
    ("text", "pure"),
    [
        ("hydra: {sweeper: {params: {lora: [r8]}}}", True),
        ("hydra: {sweeper: {params: {lora: [r8]}}}\naxolotl: {max_steps: 5}", False),
        ("defaults: [{override /model: tiny}]\nhydra: {sweeper: {params: {lora: [r8]}}}", False),
        ("hydra:", False),
        ("defaults: 5", False),
        ("defaults: {override /search: random}", False),
    ],
)
def test_a_sweep_file_of_axes_alone_is_distinguished_from_one_that_also_sets_values(
    tmp_path: Path, text: str, pure: bool
) -> None:
    assert _sweep(tmp_path, text) == ({"mine"} if pure else set())


VALUES = "2e-4 2E4 -1_0e+2 1.5e3 .5e-3 1e 1e-x 0x1f 1_000 1:30 2026-11-03 yes no null .inf -.inf 1.0 '2e-4' 1.e5 +3"


def test_values_are_read_as_hydra_reads_them() -> None:
    text = "".join(f"k{number}: {value}\n" for number, value in enumerate(VALUES.split()))
    assert load_yaml(text, Path("mine.yaml")) == OmegaConf.to_container(OmegaConf.create(text))


@pytest.mark.parametrize(
    "text",
    [
        "# @package axolotl\na: 1\n",
        "#@package axolotl\n",
        "\n\n#  @package  axolotl  \r\na: 1\n",
        "## @package _global_\n",
        "# A recipe.\n# @package axolotl\n",
        "a: 1\n# @package axolotl\n",
        "",
    ],
)
def test_where_a_files_keys_belong_is_read_as_hydra_reads_it(text: str) -> None:
    package = ConfigSource._get_header_dict(text)["package"] or "lora"
    assert package_of(Path("lora/mine.yaml"), text) == ("" if package == "_global_" else package)


def test_a_sweep_file_that_is_not_yaml_stops_only_who_asks_for_it(tmp_path: Path) -> None:
    assert not _sweep(tmp_path, "a: [")
