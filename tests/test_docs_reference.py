"""The pages of the reference have everything that the code has: verbs, flags, options, keys, fields, exported names."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

import axosweep
from runner.command import VERBS
from runner.config.project import CONF
from runner.config.shipped import shipped_root
from runner.config.vocabulary import read_vocabulary
from runner.errors import ExitCode
from scripts.docs_site import reference
from scripts.docs_site.markdown import plain
from scripts.docs_site.reference.groups import shipped_project
from scripts.docs_site.reference.keys import settings
from scripts.json_schemas import PRINTED
from tests.read_yaml import read_yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pages() -> Mapping[str, str]:
    return reference.pages()


def test_every_verb_has_a_section_with_all_its_flags(pages: Mapping[str, str]) -> None:
    page = pages["reference/verbs.md"]
    for name, module in VERBS.items():
        assert (f"\n## {name}\n" in page) is not name.startswith("_")
        if not name.startswith("_"):
            section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
            parser = importlib.import_module(f"runner.command.{module}").parser()
            assert all(flag in section for argument in parser.arguments for flag in argument.option_strings)


def test_every_option_of_every_group_has_its_keys_and_its_file(pages: Mapping[str, str]) -> None:
    for group, options in read_vocabulary(shipped_project()).groups.items():
        for option in options:
            assert f"={option}`](#{option}) |" in pages[f"reference/{group}.md"]
            assert f"\n## {option}\n" in pages[f"reference/{group}.md"]
    (rslora,) = (line for line in pages["reference/lora.md"].splitlines() if "lora=rslora" in line)
    assert "`peft_use_rslora`" in rslora
    (sharded,) = (line for line in pages["reference/experiment.md"].splitlines() if "llama3_70b_four_gpus`](" in line)
    assert "`fsdp=fsdp2`" in sharded
    assert "`gpu.count`" in sharded


def test_every_key_outside_axolotls_config_is_on_one_of_the_two_pages(pages: Mapping[str, str]) -> None:
    both = pages["reference/keys.md"] + pages["reference/executors.md"]
    config = read_yaml(shipped_root() / CONF / "config.yaml")
    modal = read_yaml(shipped_root() / CONF / "executor/modal.yaml")
    for name in {*config} - {"defaults", "hydra", "executor"}:
        assert f"\n| `{name}` |" in both
    for name in (*(f"executor.{one}" for one in modal), *(f"executor.modal.{one}" for one in modal["modal"])):
        assert f"\n| `{name}` |" in both or name == "executor.modal"


def test_a_setting_has_the_comment_at_its_line_that_below_it_or_that_above_it() -> None:
    text = "# of the file\na: 1  # first;\n      # and on\n\n# above\nb:\n  c: [x]   # below b\n  d: '#'\n"
    assert [(one.name, one.value, one.comment) for one in settings(text)] == [
        ("a", "1", "first; and on"),
        ("b", "", "above"),
        ("b.c", "[x]", "below b"),
        ("b.d", "'#'", ""),
    ]


def test_every_type_and_field_of_the_printed_json_is_described(pages: Mapping[str, str]) -> None:
    sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", pages["reference/json.md"], re.MULTILINE))
    assert not any(name.endswith((" of best", " of attach", " of compare")) for name in sections), "described before"
    for verb in PRINTED:
        for title, described in json.loads(pages[f"reference/{verb}.schema.json"]).get("$defs", {}).items():
            named = [section for name, section in sections.items() if name.partition(" of ")[0] == title]
            fields = [f"\n| `{field}` |" for field in described.get("properties", {})]
            assert any(all(field in section for field in fields) for section in named)


def test_every_verb_that_takes_json_has_a_schema(pages: Mapping[str, str]) -> None:
    parsers = {name: importlib.import_module(f"runner.command.{module}").parser() for name, module in VERBS.items()
               if not name.startswith("_")}  # fmt: skip
    takes = {name for name, one in parsers.items() if any("--json" in word.option_strings for word in one.arguments)}
    assert {*PRINTED} == takes
    assert all(f"reference/{verb}.schema.json" in pages for verb in takes)


def test_everything_that_axosweep_exports_is_described(pages: Mapping[str, str]) -> None:
    assert all(f"\n## {name}\n" in pages["reference/python.md"] for name in axosweep.__all__)
    assert "| `finished` | `bool` | It was trained before," in pages["reference/python.md"]
    assert "curves(*names: str) -> Records" in pages["reference/python.md"]


def test_every_exit_code_is_described(pages: Mapping[str, str]) -> None:
    assert all(f"\n| {int(code)} | " in pages["reference/exit-codes.md"] for code in ExitCode)


def test_a_text_of_the_code_is_not_markup_in_a_page_except_for_its_spans_of_code() -> None:
    assert plain("a <b> `c_d|e` *f* W&B\n  g") == r"a &lt;b> <code>c\_d&#124;e</code> \*f\* W&amp;B g"
