"""A TAB shows what can come next, without Hydra, also in a real bash."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.cli import main
from runner.command import VERBS
from runner.command.complete import complete
from runner.command.completion import SHELLS, script
from runner.config.shipped import shipped_root
from runner.errors import SweepError


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("axosweep ", {"plan", "compare", "lora=", "gpu.", "+sweeps="}),
        ("axosweep pl", {"plan", "ple_cpu_offload="}),
        ("axosweep lora=r", {"lora=r4", "lora=r8", "lora=r16"}),
        ("axosweep -m lora=r8,r1", {"lora=r8,r16"}),
        ("axosweep plan -m lora=q", {"lora=qlora"}),
        ("axosweep plan -m learning_r", {"learning_rate="}),
        ("axosweep plan --over", {"--overrides"}),
        ("axosweep gpu.c", {"gpu.count="}),
        ("axosweep ++learning_r", {"++learning_rate="}),
        ("axosweep ~learning_r", {"~learning_rate"}),
        ("axosweep axolotl.learning_r", {"axolotl.learning_rate="}),
        ("axosweep datasets.0.pat", {"datasets.0.path="}),
        ("axosweep special_tokens.pad", {"special_tokens.pad_token="}),
        ("axosweep gradient_checkpointing=o", {"gradient_checkpointing=offload"}),
        ("axosweep -m +sweeps=", {"+sweeps=tiny_grid"}),
        ("axosweep --cfg ", {"job", "hydra"}),
        ("axosweep completion ", set(SHELLS)),
        ("axosweep bas", {"base=", "base_model="}),
        ("axosweep import --f", {"--force"}),
        ("axosweep eval --ta", {"--tasks"}),
        ("axosweep merge --lo", {"--lora-model-dir"}),
        ("axosweep compare --from ", {"store", "wandb"}),
        ("axosweep serve ", {"list", "stop", "--port"}),
        ("axosweep warm stop --", {"--all", "--yes"}),
        ("axosweep __complete ", {"lora="}),
    ],
)
def test_what_can_come_next_is_offered(line: str, offered: set[str]) -> None:
    assert offered <= set(complete(line, len(line)))


@pytest.mark.parametrize(
    "line", ["axosweep lora=r8,r8", "axosweep setup ", "axosweep nothing=", "axosweep datasets.0.nothing."]
)
def test_nothing_is_offered_where_nothing_fits(line: str) -> None:
    assert complete(line, len(line)) == []


def test_a_base_and_an_import_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert complete("axosweep base=mi", 16) == ["base=mine.yml"]
    assert complete("axosweep import mi", 18) == ["mine.yml"]


def test_the_word_at_the_cursor_counts_and_not_what_follows() -> None:
    assert complete("axosweep lora=r3 gpu=cpu", len("axosweep lora=r3")) == ["lora=r32"]


def test_sweeps_and_prepared_datasets_of_the_store_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("sweeps/lora-1234/plan.json", "prepared/abcd/manifest.json"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("{}")
    monkeypatch.setenv("AXOSWEEP_STORE", str(tmp_path))
    assert complete("axosweep compare lo", 19) == ["lora-1234"]
    assert complete("axosweep status ", 16) == ["--json", "--refresh", "--store", "lora-1234"]
    assert complete("axosweep data a", 15) == ["abcd"]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("plan", "__complete")])
def test_a_verbs_flags_are_those_of_its_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", capsys.readouterr().out))
    line = f"axosweep {verb} --"
    assert set(complete(line, len(line))) == shown - {"--help"}


def test_a_word_is_completed_by_what_its_place_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.yml").touch()
    for line, offered in {
        "axosweep pull lora-1234 ad": ["adapter"],
        "axosweep pull lora-1234 adapter f": ["folder/"],
        "axosweep eval --include-path f": ["folder/"],
        "axosweep eval --base lora-1234 f": [],
        "axosweep import f": ["file.yml", "folder/"],
        "axosweep warm --store folder s": ["status", "stop"],
        "axosweep serve st": ["stop"],
    }.items():
        assert complete(line, len(line)) == offered, line


def test_completing_imports_no_hydra() -> None:
    script = Path(__file__).with_name("completion_imports_script.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, cwd=shipped_root())
    assert done.stdout.strip() == "set()"


def test_an_unknown_shell_is_refused() -> None:
    with pytest.raises(SweepError, match="bash, zsh, fish"):
        script("tcsh")


def _bash(tmp_path: Path, line: str) -> list[str]:
    """The word with which a real bash replaces the last word of `line`."""
    program = tmp_path / "axosweep"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{shipped_root()}" exec "{sys.executable}" -m runner "$@"\n')
    program.chmod(0o755)
    (tmp_path / "completion.bash").write_text(script("bash"))
    requested = f"""
      source completion.bash
      COMP_LINE={line!r} COMP_POINT={len(line)} COMP_WORDS=(axosweep)
      _axosweep
      printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", requested],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("axosweep -m lora=r8,r3", ["r8,r32"]),
        ("axosweep plan -m +sweeps=tiny_g", ["tiny_grid"]),
        ("axosweep gpu.c", ["gpu.count="]),
        ("axosweep comp", ["compare", "completion"]),
    ],
)
def test_bash_replaces_only_what_follows_its_last_word_break(tmp_path: Path, line: str, replies: list[str]) -> None:
    assert _bash(tmp_path, line) == replies
