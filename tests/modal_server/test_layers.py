"""The folders below the files of containers: each set of sources once, with the bytecode of exactly these sources."""

from __future__ import annotations

import os
import py_compile
import sys
from pathlib import Path

import pytest

from tests.modal_server.fixture import needs_mounts
from tests.modal_server.layers import HOME, Layers, Source

NAME = f"{HOME}/package/module.py"
CACHED = Path(HOME[1:], "package", "__pycache__", f"module.{sys.implementation.cache_tag}.pyc")


def write(path: Path, text: str) -> Source:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return Source.of(path)


def compiled(layer: str, upper: Path, mode: py_compile.PycInvalidationMode) -> Path:
    """What a container leaves above a layer when it has imported the module there."""
    source = Path(layer, NAME[1:])
    py_compile.compile(str(source), cfile=str(upper / CACHED), dfile=NAME, invalidation_mode=mode)
    return upper


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    (tmp_path / "layers").mkdir()
    return Layers(tmp_path / "layers")


def test_containers_with_the_same_sources_share_their_folders(layers: Layers, tmp_path: Path) -> None:
    first, same = write(tmp_path / "a.py", "one = 1"), write(tmp_path / "b.py", "one = 1")
    made = layers.layers({NAME: first}, ())
    assert layers.layers({NAME: same}, ()) == made
    assert Path(made[-1], NAME[1:]).read_text() == "one = 1"
    for name, source in ((NAME, write(tmp_path / "c.py", "one = 2")), (f"{HOME}/other.py", first)):
        assert layers.layers({name: source}, ())[-1] != made[-1]


def test_what_a_container_has_compiled_is_there_for_the_next_one_and_earlier_ones_see_no_change(
    layers: Layers, tmp_path: Path
) -> None:
    source = write(tmp_path / "a.py", "one = 1")
    before = layers.layers({NAME: source}, ())
    upper = compiled(before[-1], tmp_path / "upper", py_compile.PycInvalidationMode.TIMESTAMP)
    layers.keep_bytecode({NAME: source}, upper)
    bytecode, sources = layers.layers({NAME: source}, ())
    assert sources == before[-1]
    assert Path(bytecode, CACHED).read_bytes() == (upper / CACHED).read_bytes()
    assert not os.listdir(before[0])


def test_bytecode_of_another_source_is_not_kept(layers: Layers, tmp_path: Path) -> None:
    source, edited = write(tmp_path / "a.py", "one = 1"), write(tmp_path / "b.py", "one = 10")
    (_, layer), (_, other) = layers.layers({NAME: source}, ()), layers.layers({NAME: edited}, ())
    hashed = compiled(layer, tmp_path / "hashed", py_compile.PycInvalidationMode.CHECKED_HASH)
    changed = compiled(other, tmp_path / "changed", py_compile.PycInvalidationMode.TIMESTAMP)
    for upper in (hashed, changed):
        layers.keep_bytecode({NAME: source}, upper)
    assert not os.listdir(layers.layers({NAME: source}, ())[0])


@needs_mounts
def test_hidden_places_hide_what_is_below_them(layers: Layers, tmp_path: Path) -> None:
    _, layer = layers.layers({NAME: write(tmp_path / "a.py", "")}, ("/srv/here",))
    assert os.getxattr(Path(layer, "srv", "here"), "trusted.overlay.opaque") == b"y"
    assert not os.listdir(Path(layer, "srv", "here"))
